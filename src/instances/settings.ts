import type { Instance } from './instance.js';

/** Whatever has the metadata of a domain. */
type WithMetadata = Pick<Instance, 'metadata'>;

/** Hyphens and underscores are equal in names: EC2 uses the former, domain XML mostly the latter. */
export function settingName(name: string): string {
  return name.toLowerCase().replaceAll('_', '-');
}

/** The texts of instances that were asked for. Instances are immutable: an update is a new key. */
const textsOf = new WeakMap<WithMetadata, ReadonlyMap<string, string>>();

/** The text of an element in the domain's metadata, its name written with hyphens or underscores; '' if it is empty. */
function metadataText(instance: WithMetadata, name: string): string | undefined {
  let texts = textsOf.get(instance);
  if (texts === undefined) {
    const isEmpty = ([, text]: [string, string]) => text === '';
    // Of two spellings of a name, the first counts that has a value: in a map, the last one.
    const entries = Object.entries(instance.metadata).reverse();
    const ordered = [...entries.filter(isEmpty), ...entries.filter((entry) => !isEmpty(entry))];
    texts = new Map(ordered.map(([name, text]) => [settingName(name), text]));
    textsOf.set(instance, texts);
  }
  return texts.get(name);
}

/** The value of a name in the domain's metadata, written with hyphens or underscores; an empty one sets nothing. */
export function fromMetadata(instance: WithMetadata, name: string): string | undefined {
  return metadataText(instance, name) || undefined;
}
