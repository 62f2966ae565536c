import { parse as parseIni } from 'ini';
import { escapeControls } from '../text.js';

/** A configuration that cannot be used; the message is one line that says what is wrong and where. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';

  constructor(message: string, options?: ErrorOptions) {
    super(escapeControls(message), options);
  }
}

/** A value as ConfigParser gives it, and where it stands: the line of its key, counted from 1. */
export interface ConfigEntry {
  readonly value: string;
  readonly file: string;
  readonly line: number;
}

interface RawOption {
  readonly line: number;
  /** The value's lines, stripped. */
  readonly lines: string[];
}

interface RawSection {
  readonly line: number;
  readonly options: Map<string, RawOption>;
}

/** Its options stand in every other section too, unless that one has its own. */
const defaultSection = 'DEFAULT';

/** What Python's `str.strip` takes for white space; `\s` and `trim` differ from it. */
const whiteSpace = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

function isWhiteSpace(text: string, index: number): boolean {
  return whiteSpace.test(text.charAt(index));
}

// Loops, because a regular expression for the end of a text is quadratic in white space.
function indentOf(text: string): number {
  let indent = 0;
  while (indent < text.length && isWhiteSpace(text, indent)) indent++;
  return indent;
}

function stripEnd(text: string): string {
  let end = text.length;
  while (end > 0 && isWhiteSpace(text, end - 1)) end--;
  return text.slice(0, end);
}

function strip(text: string): string {
  return stripEnd(text.slice(indentOf(text)));
}

/** The rules of ConfigParser's `_read`: which lines make up which section and option. */
function readLines(text: string, file: string): Map<string, RawSection> {
  const sections = new Map<string, RawSection>();
  let sectionName = '';
  let section: RawSection | undefined;
  let option: RawOption | undefined;
  let optionIndent = 0;

  for (const [index, line] of text.split(/\r\n|\r|\n/).entries()) {
    const here = `${file}:${index + 1}`;
    const content = strip(line);
    if (content === '') {
      option?.lines.push('');
      continue;
    }
    if (content.startsWith('#') || content.startsWith(';')) continue;

    const indent = indentOf(line);
    if (option !== undefined && indent > optionIndent) {
      option.lines.push(content);
      continue;
    }
    optionIndent = indent;

    const headerEnd = content.startsWith('[') ? content.lastIndexOf(']') : -1;
    if (headerEnd > 1) {
      sectionName = content.slice(1, headerEnd);
      section = sections.get(sectionName);
      if (section !== undefined && sectionName !== defaultSection) {
        throw new ConfigError(
          `${here}: section [${sectionName}] is there already, on line ${section.line}: put the two together`,
        );
      }
      section ??= { line: index + 1, options: new Map() };
      sections.set(sectionName, section);
      option = undefined;
      continue;
    }
    if (section === undefined) {
      throw new ConfigError(
        `${here}: expected a section, such as [mdserver], before anything else`,
      );
    }

    // What stands on a broken line is not repeated: it may be a password.
    const separator = content.search(/[=:]/);
    if (separator < 0) {
      throw new ConfigError(
        `${here}: expected "key = value" or "[section]"; a line that continues a value has to be indented`,
      );
    }
    const key = stripEnd(content.slice(0, separator)).toLowerCase();
    if (key === '') throw new ConfigError(`${here}: expected a key before the "${content[0]}"`);
    const earlier = section.options.get(key);
    if (earlier !== undefined) {
      throw new ConfigError(
        `${here}: ${sectionName}.${key} is set already, on line ${earlier.line}: remove one of the two`,
      );
    }
    option = { line: index + 1, lines: [strip(content.slice(separator + 1))] };
    section.options.set(key, option);
  }
  return sections;
}

/**
 * The same in the form that `ini` reads as it is meant: line numbers for names, because `ini` nests
 * `a.b`, makes an array of `k[]` and drops `__proto__`, and values as JSON strings on one line.
 */
function iniText(sections: ReadonlyMap<string, RawSection>): string {
  const lines: string[] = [];
  for (const section of sections.values()) {
    lines.push(`[${section.line}]`);
    for (const option of section.options.values()) {
      const value = JSON.stringify(stripEnd(option.lines.join('\n')));
      // JSON leaves these two as they are, and for `ini` the value would end there.
      const escaped = value.replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029');
      lines.push(`${option.line}=${escaped}`);
    }
  }
  return lines.join('\n');
}

/** ConfigParser's interpolation without its references to other keys. */
function unescapePercent(value: string, name: string, here: string): string {
  return value.replace(/%([%(])?/g, (_match, next: string | undefined, index: number) => {
    if (next === '%') return '%';
    // The value is not repeated: it may be a password.
    throw new ConfigError(
      next === '('
        ? `${here}: ${name}: the value refers to another key with "%(" at its character ${index + 1}: expected the value itself, or "%%(" for a "%("`
        : `${here}: ${name}: the value has a single "%" at its character ${index + 1}: expected "%%" for a "%"`,
    );
  });
}

/**
 * Reads one configuration file in the dialect of Python's ConfigParser with its default settings:
 * the options of each section, keys in lower case, in the order of the file; those of `[DEFAULT]`
 * stand in every section, before its own. `file` is only named in entries and errors.
 *
 * It differs in two things: a byte-order mark is skipped, and references to other keys
 * (`%(key)s`) are refused. Throws ConfigError.
 */
export function parseConfigFile(
  text: string,
  file: string,
): ReadonlyMap<string, ReadonlyMap<string, ConfigEntry>> {
  const sections = readLines(text.replace(/^\ufeff/, ''), file);
  const values: Record<string, Record<string, unknown>> = parseIni(iniText(sections));

  const entriesOf = (section: RawSection): Map<string, ConfigEntry> =>
    new Map(
      [...section.options].map(([key, { line }]) => {
        // `ini` makes other types of the words true, false and null, even of quoted ones.
        const value = String(values[section.line]?.[line]);
        return [key, { value, file, line }];
      }),
    );

  const defaults = sections.get(defaultSection);
  sections.delete(defaultSection);
  const inherited = defaults === undefined ? [] : [...entriesOf(defaults)];
  return new Map(
    [...sections].map(([name, section]) => {
      const entries = new Map([...inherited, ...entriesOf(section)]);
      for (const [key, entry] of entries) {
        const here = `${file}:${entry.line}`;
        entries.set(key, { ...entry, value: unescapePercent(entry.value, `${name}.${key}`, here) });
      }
      return [name, entries];
    }),
  );
}
