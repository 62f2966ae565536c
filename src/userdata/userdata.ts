import { isUtf8 } from 'node:buffer';
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { isGuestTemplate, languageLine } from '../bottle/language.js';
import type { Config } from '../config/options.js';
import { machineKey } from '../instances/instance.js';
import { fromMetadata, refusesUserdata } from '../instances/settings.js';
import {
  builtInInstead,
  type Candidates,
  cachedDirectoryEntries,
  candidatesOf,
  configuredFile,
  type FileVersion,
  fileError,
  findUserdata,
  hasCode,
  includedFile,
  isNoUserdata,
  isSettled,
  MissingFileError,
  type NoUserdata,
  type SourceFile,
  sameVersion,
  UserdataError,
  type UserdataSource,
} from './find.js';
import { type KeptTemplates, noKeptTemplates, type TemplateVersion } from './kept.js';
import { byProblem, type Document, lastInForce, type Refusal } from './refused.js';
import {
  builtInUserdata,
  type CompileOptions,
  compileTemplate,
  type Part,
  type Template,
  type TemplateConfig,
  type TemplateData,
  TemplateError,
  type TemplateInstance,
  templateData,
} from './template.js';

/** The part of the configuration that user-data depends on. */
export type UserdataConfig = Pick<Config, 'publicKeys' | 'templateData'> & {
  readonly mdserver: Pick<
    Config['mdserver'],
    | 'userdata_dir'
    | 'userdata_suffixes'
    | 'default_template'
    | 'builtin_template'
    | 'password'
    | 'vendor_data'
  >;
};

/** What rendering depends on. */
export interface UserdataOptions {
  /** The configuration in force. A new object clears the caches. */
  readonly config: () => UserdataConfig;
  readonly log: Record<'error' | 'warn', (message: string) => void>;
  /** The time in milliseconds, from any start: by default performance.now. */
  readonly now?: () => number;
  /** Called with user-data each time that it is rendered anew (mdserver.debug_userdata). */
  readonly keepCopy?: (instanceName: string, body: string | Buffer) => void;
  /** The versions of templates that have rendered; none by default. */
  readonly kept?: KeptTemplates;
}

/** Rendered user-data or vendor-data. */
export interface Rendering {
  readonly body: string | Buffer;
  /** The path of its template; null for the built-in one. */
  readonly file: string | null;
  /** Why the newest version of the template is refused, if this is from the last one that rendered. */
  readonly problem: string | undefined;
}

/**
 * Renders user-data and vendor-data: from the newest version of the template or, if that fails for the
 * instance, from the last one that rendered for it. Without one, throws TemplateError and UserdataError, which are already
 * logged.
 */
export interface Userdata {
  /** A function that renders the user-data of an instance; undefined if it has none. */
  readonly userdata: (instance: TemplateInstance) => (() => Rendering) | undefined;
  /** Why an instance has no user-data; undefined if it has some. */
  readonly whyNone: (instance: TemplateInstance) => NoUserdata | undefined;
  /** Renders the vendor-data of an instance; empty if none is configured. */
  readonly vendorData: (instance: TemplateInstance) => Rendering;
  /** The refusals of templates that instances have met, as far as they still hold. */
  readonly refusals: (instances: ReadonlyMap<string, TemplateInstance>) => readonly Refusal[];
}

/** In bytes. EC2's own limit is 16 KiB. */
const maxTextLength = 4 * 1024 * 1024;
const maxFileLength = 16 * 1024 * 1024;

const maxCachedFiles = 1000;
const maxCachedBytes = 64 * 1024 * 1024;
const maxReportedLines = 1000;

/** The content of a file when it was read. */
interface FileSnapshot {
  readonly bytes: Buffer;
  readonly version: FileVersion;
  /** Any later change changes the version: see isSettled. */
  readonly settled: boolean;
}

type Text = string | Buffer;

/** Makes the text of a file. */
type Renderer = ((data: TemplateData) => Text) & Pick<Template, 'isPure'>;

/** A file that a template includes, as it was read, or why it cannot be included. */
type FoundPart = { readonly name: string } & (
  | ({ readonly path: string } & FileSnapshot)
  | { readonly problem: string }
);

interface CacheEntry extends FileSnapshot {
  readonly render: Renderer;
  /** The files that it includes, and those that they include. */
  readonly parts: readonly FoundPart[];
}

/** Reads the file; undefined if it is gone or no longer a regular file. */
function readFile({ path, target }: SourceFile): FileSnapshot | undefined {
  let descriptor: number | undefined;
  try {
    // O_NONBLOCK: if a FIFO has replaced the file, open would wait for a writer.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
    descriptor = openSync(target, flags);
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) return undefined;
    if (stats.size > maxFileLength) {
      throw new UserdataError(
        path,
        `is too long: ${stats.size} bytes, the limit is ${maxFileLength}`,
      );
    }
    const settled = isSettled(stats);
    return { bytes: readFileSync(descriptor), version: stats, settled };
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ESTALE')) return undefined;
    throw error instanceof UserdataError ? error : fileError(path, error);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** Reads a file that a template includes. */
function readPart(directory: string, name: string): FoundPart {
  try {
    const file = includedFile(directory, name);
    const snapshot = readFile(file);
    if (snapshot === undefined) return { name, problem: `${file.path}: no such file` };
    if (!isUtf8(snapshot.bytes)) return { name, problem: `${file.path}: is not UTF-8 text` };
    return { name, path: file.path, ...snapshot };
  } catch (error) {
    if (error instanceof UserdataError) return { name, problem: error.message };
    throw error;
  }
}

/** Whether the file that a template includes is as it was when it was read. */
function isUnchanged(directory: string, part: FoundPart): boolean {
  if ('problem' in part) return isSamePart(part, readPart(directory, part.name));
  try {
    const { version } = includedFile(directory, part.name);
    return part.settled && sameVersion(part.version, version);
  } catch (error) {
    if (error instanceof UserdataError) return false;
    throw error;
  }
}

function isSamePart(a: FoundPart, b: FoundPart): boolean {
  if ('problem' in a || 'problem' in b) {
    return 'problem' in a && 'problem' in b && a.problem === b.problem;
  }
  return a.bytes.equals(b.bytes);
}

/** What a template takes in place of a tag that includes a file. */
function partOf(found: FoundPart): Part {
  if ('problem' in found) return found;
  return { path: found.path, source: found.bytes.toString('utf8') };
}

/** Returns a function that finds the files that templates include, by their names in the directory. */
export function partsIn(directory: string): (name: string) => Part {
  return (name) => partOf(readPart(directory, name));
}

/** Renders text as a template, and anything else unchanged. */
function renderer(
  bytes: Buffer,
  path: string,
  options: Pick<CompileOptions, 'part' | 'isJavaScript'>,
): Renderer {
  const start = bytes.toString('latin1', 0, 1024);
  const { language, length } = languageLine(start);
  if (language === 'none') return () => bytes.subarray(length);
  if (!isUtf8(bytes) || isGuestTemplate(start)) return () => bytes;
  try {
    if (bytes.length > maxTextLength) {
      const problem = `is too long: ${bytes.length} bytes, the limit for text is ${maxTextLength}`;
      throw new UserdataError(path, problem);
    }
    return compileTemplate(bytes.toString('utf8'), path, options);
  } catch (error) {
    return () => {
      throw error;
    };
  }
}

/**
 * Returns a function that returns a file's content and renderer and caches them, so that an unchanged file is neither
 * read nor compiled again: a file and all that it includes from the directory. It returns undefined for a file that is gone.
 */
function cachedRenderers(): (file: SourceFile, directory: string) => CacheEntry | undefined {
  const cache = new Map<string, CacheEntry>();
  let cachedBytes = 0;

  function bytesOf({ bytes, parts }: CacheEntry): number {
    return parts.reduce(
      (sum, part) => sum + ('bytes' in part ? part.bytes.length : 0),
      bytes.length,
    );
  }

  function evict(path: string): void {
    const entry = cache.get(path);
    if (entry !== undefined) cachedBytes -= bytesOf(entry);
    cache.delete(path);
  }

  /** The renderer of the file, and what it was compiled with: the same one for the same texts. */
  function rendererOf(
    { bytes }: FileSnapshot,
    path: string,
    directory: string,
    cached: CacheEntry | undefined,
  ): Pick<CacheEntry, 'render' | 'parts'> {
    if (cached?.bytes.equals(bytes)) {
      const parts = cached.parts.map(({ name }) => readPart(directory, name));
      const isSame = parts.every((part, index) => {
        const before = cached.parts[index];
        return before !== undefined && isSamePart(part, before);
      });
      if (isSame) return { render: cached.render, parts };
    }
    const found = new Map<string, FoundPart>();
    const part = (name: string): Part => {
      const known = found.get(name) ?? readPart(directory, name);
      found.set(name, known);
      return partOf(known);
    };
    const render = renderer(bytes, path, { part });
    return { render, parts: [...found.values()] };
  }

  return (file, directory) => {
    const cached = cache.get(file.path);
    if (
      cached?.settled &&
      sameVersion(cached.version, file.version) &&
      cached.parts.every((part) => isUnchanged(directory, part))
    ) {
      return cached;
    }
    evict(file.path);
    const snapshot = readFile(file);
    if (snapshot === undefined) return undefined;
    const entry = { ...snapshot, ...rendererOf(snapshot, file.path, directory, cached) };
    cache.set(file.path, entry);
    cachedBytes += bytesOf(entry);
    for (const path of cache.keys()) {
      if (path === file.path) break;
      if (cache.size <= maxCachedFiles && cachedBytes <= maxCachedBytes) break;
      evict(path);
    }
    return entry;
  };
}

/** What came of a rendering. */
interface KeptRendering {
  readonly instance: TemplateInstance;
  readonly template: object;
  readonly outcome: Text | TemplateError;
  readonly length: number;
  /** When it is to be made anew, in milliseconds. */
  readonly until: number;
}

/**
 * A longer text is kept in bytes: all connections that wait for a slow reader share these, while Node
 * would keep each its own copy of a string.
 */
const longText = 16 * 1024;
const maxKeptLength = 64 * 1024 * 1024;
/** Renderings that take less are not kept if they may change, in milliseconds. */
const shortTime = 1;
/** A text that may change is kept this many times longer than its rendering took. */
const keptTimes = 20;

/**
 * Returns a function that renders, or gives what it rendered before: for as long as the instance and
 * the template are the same if the text depends on nothing else, and otherwise for a while if it took
 * long. So no guest can keep the server busy with one template. A key stands for the one instance and
 * document at a time; `render` makes the text from the template.
 */
function keptRenderings(
  now: () => number,
): (
  key: string,
  instance: TemplateInstance,
  template: Pick<Template, 'isPure'>,
  render: () => Text,
) => KeptRendering {
  const kept = new Map<string, KeptRendering>();
  let keptLength = 0;

  function forget(key: string): void {
    keptLength -= kept.get(key)?.length ?? 0;
    kept.delete(key);
  }

  return (key, instance, template, render) => {
    const before = kept.get(key);
    const isSame = before?.instance === instance && before.template === template;
    if (isSame && (before.until === Number.POSITIVE_INFINITY || now() < before.until))
      return before;
    forget(key);
    const started = now();
    let outcome: KeptRendering['outcome'];
    try {
      const text = render();
      const isLong = typeof text === 'string' && text.length > longText;
      outcome = isLong ? Buffer.from(text) : text;
    } catch (error) {
      if (!(error instanceof TemplateError)) throw error;
      outcome = error;
    }
    const ended = now();
    const took = ended - started;
    const until = template.isPure ? Number.POSITIVE_INFINITY : ended + keptTimes * took;
    const length = outcome instanceof TemplateError ? outcome.message.length : outcome.length;
    const made = { instance, template, outcome, length, until };
    if (!template.isPure && took < shortTime) return made;
    kept.set(key, made);
    keptLength += length;
    for (const oldest of kept.keys()) {
      if (oldest === key || keptLength <= maxKeptLength) break;
      forget(oldest);
    }
    return made;
  };
}

/** Returns a function that logs a line once, or once for each version of the file that it is about. */
function onceLogger(): (
  version: FileVersion | undefined,
  line: string,
  log: (line: string) => void,
) => void {
  const reported = new Map<string, FileVersion | undefined>();
  return (version, line, log) => {
    const before = reported.get(line);
    const isSame = before && version ? sameVersion(before, version) : before === version;
    if (isSame && reported.has(line)) return;
    reported.delete(line);
    reported.set(line, version);
    for (const oldest of reported.keys()) {
      if (reported.size <= maxReportedLines) break;
      reported.delete(oldest);
    }
    log(line);
  };
}

/** What the configuration has for templates. */
function templateConfig({ publicKeys, templateData, mdserver }: UserdataConfig): TemplateConfig {
  return { publicKeys, templateData, password: mdserver.password };
}

/** The data for an instance's template, with what the configuration has for templates. */
export function dataOf(config: UserdataConfig, instance: TemplateInstance): TemplateData {
  return templateData(templateConfig(config), instance);
}

/** The renderer of a version of a template that rendered before. */
function earlierRenderer({ source, parts }: TemplateVersion, path: string): Renderer {
  const part = (name: string): Part => {
    const found = parts?.find((one) => one.name === name);
    if (found === undefined) return { problem: 'no such file' };
    return { path: found.path, source: found.source.toString('utf8') };
  };
  // Before templates could include files, they were JavaScript without saying so.
  return renderer(source, path, { part, isJavaScript: parts === undefined });
}

/** The versions of a template that rendered before, the newest first. */
interface EarlierVersions extends Pick<Template, 'isPure'> {
  readonly versions: readonly (TemplateVersion & { readonly render: Renderer })[];
}

/**
 * The text of the newest version that renders for an instance: with its data of now, else with what
 * the version rendered with before. Throws TemplateError if none does.
 */
function earlierText(
  { versions }: EarlierVersions,
  instance: TemplateInstance,
  data: TemplateData,
): Text {
  let problem: unknown;
  for (const { render, settings, machine } of versions) {
    if (machine !== undefined && machine !== machineKey(instance)) continue;
    for (const base of [() => data, () => templateData(settings, instance)]) {
      try {
        return render(Object.create(base()));
      } catch (error) {
        if (!(error instanceof TemplateError)) throw error;
        problem = error;
      }
    }
  }
  throw problem;
}

/** The inputs of rendering that do not depend on the template. */
interface RenderInputs {
  readonly candidates: Candidates;
  readonly data: TemplateData;
  /** What each document is called in messages, and kept as. */
  readonly names: Readonly<Record<Document, string>>;
}

function nameOf(document: Document, { name }: Pick<TemplateInstance, 'name'>): string {
  return `${document} of ${name}`;
}

/**
 * The instances with the same problem that are rendered anew to see whether it still holds: there may
 * be very many.
 */
const sampleSize = 10;

/** Creates the renderer of user-data and vendor-data. An error in a file is logged once until the file changes. */
export function createUserdata({
  config,
  log,
  keepCopy,
  now = () => performance.now(),
  kept = noKeptTemplates,
}: UserdataOptions): Userdata {
  let current: UserdataConfig | undefined;
  let rendererOf = cachedRenderers();
  let logOnce = onceLogger();
  let entriesOf = cachedDirectoryEntries();
  // Instances are immutable: an update is a new key.
  let inputs = new WeakMap<TemplateInstance, RenderInputs>();
  let rendered = keptRenderings(now);
  const copies = new WeakMap<TemplateInstance, Text>();
  /** The machine, or all, for which a renderer's version was noted to have rendered. */
  let noted = new WeakMap<Renderer, string | undefined>();
  const earlier = new WeakMap<readonly TemplateVersion[], EarlierVersions>();
  /** By what the document of the instance is called. */
  const refused = new Map<string, Refusal>();

  function warnOnce(line: string): void {
    logOnce(undefined, line, (text) => log.warn(text));
  }

  function inputsOf(instance: TemplateInstance, settings: UserdataConfig): RenderInputs {
    const cached = inputs.get(instance);
    if (cached !== undefined) return cached;
    const { mdserver } = settings;
    const location = {
      directory: mdserver.userdata_dir,
      suffixes: mdserver.userdata_suffixes,
      defaultTemplate: mdserver.default_template,
      builtIn: mdserver.builtin_template,
    };
    const prefix = fromMetadata(instance, 'userdata-prefix');
    const refused = refusesUserdata(instance);
    const { name, mac } = instance;
    const made: RenderInputs = {
      candidates: candidatesOf(location, { name, mac, prefix, refused }),
      data: dataOf(settings, instance),
      names: {
        'user-data': nameOf('user-data', instance),
        'vendor-data': nameOf('vendor-data', instance),
      },
    };
    inputs.set(instance, made);
    return made;
  }

  /** The machine that alone gets the template: a file of its name or MAC address. */
  function ownerOf(path: string, instance: TemplateInstance, { files, own }: Candidates) {
    const isOwn = own && files.some((file) => file.path === path);
    return isOwn ? machineKey(instance) : undefined;
  }

  /** Notes that the version of a template has rendered, once. */
  function noteRendered(
    path: string,
    { bytes, render, parts }: CacheEntry,
    machine: string | undefined,
    settings: UserdataConfig,
  ): void {
    if (noted.has(render) && noted.get(render) === machine) return;
    noted.set(render, machine);
    kept.keep(path, {
      source: bytes,
      parts: parts.flatMap((part) =>
        'bytes' in part ? [{ name: part.name, path: part.path, source: part.bytes }] : [],
      ),
      machine,
      settings: templateConfig(settings),
    });
  }

  function earlierVersions(path: string): EarlierVersions {
    const versions = kept.versions(path);
    const known = earlier.get(versions);
    if (known !== undefined) return known;
    const compiled = versions.map((one) => ({ ...one, render: earlierRenderer(one, path) }));
    const made = { versions: compiled, isPure: compiled.every(({ render }) => render.isPure) };
    earlier.set(versions, made);
    return made;
  }

  /** Whether a version of the template may have rendered for the instance before. */
  function hasEarlier(path: string, instance: TemplateInstance): boolean {
    return earlierVersions(path).versions.some(
      ({ machine }) => machine === undefined || machine === machineKey(instance),
    );
  }

  /** The text of the last version of the template that rendered; undefined if there is none. */
  function earlierRendering(
    path: string,
    instance: TemplateInstance,
    { names, data }: RenderInputs,
    document: Document,
  ): Text | undefined {
    if (!hasEarlier(path, instance)) return undefined;
    const versions = earlierVersions(path);
    const { outcome } = rendered(`last ${names[document]}`, instance, versions, () =>
      earlierText(versions, instance, data),
    );
    return outcome instanceof TemplateError ? undefined : outcome;
  }

  function findSource(instance: TemplateInstance, settings: UserdataConfig): UserdataSource {
    const entries = entriesOf(settings.mdserver.userdata_dir);
    const { candidates } = inputsOf(instance, settings);
    for (const line of candidates.warnings) warnOnce(line);
    try {
      return findUserdata(candidates, entries);
    } catch (error) {
      const isMissing = error instanceof MissingFileError && settings.mdserver.builtin_template;
      // One that was there before is like a template with an error: the last version stays in force.
      if (!isMissing || hasEarlier(error.file, instance)) throw error;
      warnOnce(`${error.message}: ${builtInInstead}`);
      return 'built-in';
    }
  }

  function whyNone(instance: TemplateInstance): NoUserdata | undefined {
    const settings = currentConfig();
    // There is user-data otherwise, so a metadata listing need not look at files.
    if (!isNoUserdata(inputsOf(instance, settings).candidates.otherwise)) return undefined;
    try {
      const source = findSource(instance, settings);
      return isNoUserdata(source) ? source : undefined;
    } catch (error) {
      // There is a file; renderSource() gets the same error and reports it.
      if (error instanceof UserdataError) return undefined;
      throw error;
    }
  }

  /** Renders what `look` finds. Looks once more if the file disappears before it is read. */
  function renderSource(
    document: Document,
    instance: TemplateInstance,
    settings: UserdataConfig,
    look: () => UserdataSource,
  ): Rendering {
    const inputs = inputsOf(instance, settings);
    const name = inputs.names[document];
    let isNew = false;
    let version: FileVersion | undefined;
    let path: string | undefined;
    try {
      for (let attempt = 1; attempt <= 2; attempt += 1) {
        const found = look();
        if (isNoUserdata(found)) break;
        if (found === 'built-in') {
          refused.delete(name);
          return { body: builtInUserdata, file: null, problem: undefined };
        }
        ({ path, version } = found);
        const entry = rendererOf(found, settings.mdserver.userdata_dir);
        if (entry === undefined) continue;
        const { outcome } = rendered(name, instance, entry.render, () => {
          isNew = true;
          return entry.render(Object.create(inputs.data));
        });
        if (outcome instanceof TemplateError) throw outcome;
        refused.delete(name);
        if (isNew) noteRendered(path, entry, ownerOf(path, instance, inputs.candidates), settings);
        return { body: outcome, file: path, problem: undefined };
      }
      throw new UserdataError(path ?? name, 'disappeared while it was read');
    } catch (error) {
      if (!(error instanceof TemplateError || error instanceof UserdataError)) throw error;
      const { message: problem } = error;
      // An error may be in a file that the template includes.
      const file = (error instanceof TemplateError ? path : undefined) ?? error.file;
      const body = earlierRendering(file, instance, inputs, document);
      const hasLast = body !== undefined;
      refused.set(name, { document, instance: instance.name, file, problem, hasLast });
      const line = hasLast ? `${problem}; ${lastInForce}` : problem;
      logOnce(version, line, (text) => log.error(text));
      if (!hasLast) throw error;
      return { body, file, problem };
    }
  }

  /** The configuration in force. Clears the caches if it is new. */
  function currentConfig(): UserdataConfig {
    const settings = config();
    if (settings !== current) {
      current = settings;
      rendererOf = cachedRenderers();
      logOnce = onceLogger();
      entriesOf = cachedDirectoryEntries();
      inputs = new WeakMap();
      rendered = keptRenderings(now);
      noted = new WeakMap();
    }
    return settings;
  }

  function userdata(instance: TemplateInstance): (() => Rendering) | undefined {
    const settings = currentConfig();
    if (whyNone(instance) !== undefined) return undefined;
    return () => {
      const look = () => findSource(instance, settings);
      const found = renderSource('user-data', instance, settings, look);
      if (copies.get(instance) !== found.body) keepCopy?.(instance.name, found.body);
      copies.set(instance, found.body);
      return found;
    };
  }

  function vendorData(instance: TemplateInstance): Rendering {
    const settings = currentConfig();
    const { vendor_data: path } = settings.mdserver;
    if (path === undefined) return { body: '', file: null, problem: undefined };
    return renderSource('vendor-data', instance, settings, () =>
      configuredFile(path, 'mdserver.vendor_data'),
    );
  }

  /** Whether the refusal still holds. */
  function stillHolds({ document, problem }: Refusal, instance: TemplateInstance): boolean {
    const name = nameOf(document, instance);
    refused.delete(name);
    try {
      if (document === 'user-data') userdata(instance)?.();
      else vendorData(instance);
    } catch (error) {
      if (!(error instanceof TemplateError || error instanceof UserdataError)) throw error;
    }
    return refused.get(name)?.problem === problem;
  }

  return {
    userdata,
    whyNone,
    vendorData,
    refusals(instances) {
      for (const [name, { instance }] of refused) {
        if (!instances.has(instance)) refused.delete(name);
      }
      for (const group of byProblem(refused.values()).values()) {
        const sample = group.slice(0, sampleSize).filter((refusal) => {
          const instance = instances.get(refusal.instance);
          return instance !== undefined && stillHolds(refusal, instance);
        });
        if (sample.length > 0) continue;
        for (const refusal of group) {
          const name = nameOf(refusal.document, { name: refusal.instance });
          if (refused.get(name) === refusal) refused.delete(name);
        }
      }
      return [...refused.values()];
    },
  };
}
