import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from './daemon.js';

/** A template, and what Bottle 0.12 makes of it; where 0.13 differs, that too (null: an error). */
export interface Form {
  readonly id: string;
  readonly template: string;
  readonly output?: string;
  readonly error?: string;
  readonly output_bottle_0_13?: string | null;
}

interface Forms {
  readonly names: {
    readonly hostname: string;
    readonly public_keys: Readonly<Record<string, string>>;
    readonly mdserver_password: string;
    readonly 'template-data': Readonly<Record<string, string>>;
    readonly 'unset options through _config_items_': Readonly<Record<string, false>>;
  };
  readonly files: Readonly<Record<string, string>>;
  readonly forms: readonly Form[];
}

/** The recorded forms, with the names and the files that Bottle had. */
export const { names, files, forms }: Forms = JSON.parse(
  readFileSync(join(repository, 'test/golden/bottle-forms.json'), 'utf8'),
);

const entities = { '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#039;': "'", '&amp;': '&' } as const;

/** The text before Bottle escaped it for HTML. */
export function unescaped(text: string): string {
  return text.replace(
    /&(?:lt|gt|quot|#039|amp);/g,
    (entity) => entities[entity as keyof typeof entities],
  );
}
