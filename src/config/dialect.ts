import ini = require('ini');

import { jsonText, printable } from '../text.js';

/** The configuration cannot be used; the message is one line that says what is wrong and where. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  /** What else is wrong, one line each. */
  readonly others: string[] = [];

  constructor(message: string, options?: ErrorOptions) {
    super(printable(message), options);
  }
}

/** A value and where it is set. */
export interface ConfigEntry {
  /** As ConfigParser returns it. */
  readonly value: string;
  readonly file: string;
  /** The line of its key, counted from 1. */
  readonly line: number;
}

/** Entries by section and key. */
export type ConfigSections = ReadonlyMap<string, ReadonlyMap<string, ConfigEntry>>;

interface RawOption {
  readonly line: number;
  /** The value's lines, stripped. */
  readonly lines: string[];
}

interface RawSection {
  readonly line: number;
  readonly options: Map<string, RawOption>;
}

/** Every other section inherits its options and can override them. */
const defaultSection = 'DEFAULT';

/** The white space of Python's `str.strip`; JavaScript's `\s` and `trim` differ. */
const whiteSpace = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

function isWhiteSpace(text: string, index: number): boolean {
  return whiteSpace.test(text.charAt(index));
}

// Loops, because a regular expression for trailing white space takes quadratic time.
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

/** Groups lines into sections and options by the rules of ConfigParser's `_read`. */
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
          `${here}: section [${sectionName}] already exists on line ${section.line}: move the options there, or to a file in /etc/mdserver/conf.d`,
        );
      }
      section ??= { line: index + 1, options: new Map() };
      sections.set(sectionName, section);
      option = undefined;
      continue;
    }
    if (section === undefined) {
      throw new ConfigError(
        `${here}: expected a section header, such as [mdserver], before the first option`,
      );
    }

    // The message does not contain the line, which may be part of a password.
    const separator = content.search(/[=:]/);
    if (separator < 0) {
      throw new ConfigError(
        `${here}: expected "key = value" or "[section]"; indent a line that continues a value`,
      );
    }
    const key = stripEnd(content.slice(0, separator)).toLowerCase();
    if (key === '') throw new ConfigError(`${here}: expected a key before the "${content[0]}"`);
    const earlier = section.options.get(key);
    if (earlier !== undefined) {
      throw new ConfigError(
        `${here}: ${sectionName}.${key} is already set on line ${earlier.line}: remove one of the two`,
      );
    }
    option = { line: index + 1, lines: [strip(content.slice(separator + 1))] };
    section.options.set(key, option);
  }
  return sections;
}

/**
 * The sections as text that `ini` parses correctly. Names are line numbers, because `ini` nests `a.b`,
 * makes an array of `k[]` and drops `__proto__`; values are JSON strings on one line.
 */
function iniText(sections: ReadonlyMap<string, RawSection>): string {
  const lines: string[] = [];
  for (const section of sections.values()) {
    lines.push(`[${section.line}]`);
    for (const option of section.options.values()) {
      // Escaped, because `ini` takes U+2028 and U+2029 for line ends.
      lines.push(`${option.line}=${jsonText(stripEnd(option.lines.join('\n')))}`);
    }
  }
  return lines.join('\n');
}

/** ConfigParser's interpolation, without references to other keys. */
function unescapePercent(value: string, name: string, here: string): string {
  return value.replace(/%([%(])?/g, (_match, next: string | undefined, index: number) => {
    if (next === '%') return '%';
    // The message does not contain the value, which may be a password.
    throw new ConfigError(
      next === '('
        ? `${here}: ${name}: reference to another key ("%(") at character ${index + 1} of the value: write the value itself, or "%%(" for a literal "%("`
        : `${here}: ${name}: single "%" at character ${index + 1} of the value: write "%%" for a literal "%"`,
    );
  });
}

/**
 * Parses a configuration file in the dialect of Python's ConfigParser with its default settings. Keys
 * are in lower case and in the order of the file; each section starts with the options of `[DEFAULT]`.
 * `file` is the name for entries and errors.
 *
 * There are two differences: a byte-order mark is skipped, and references to other keys (`%(key)s`)
 * are refused. Throws ConfigError.
 */
export function parseConfigFile(text: string, file: string): ConfigSections {
  const sections = readLines(text.replace(/^\ufeff/, ''), file);
  const values: Record<string, Record<string, unknown>> = ini.parse(iniText(sections));

  const entriesOf = (section: RawSection): Map<string, ConfigEntry> =>
    new Map(
      [...section.options].map(([key, { line }]) => {
        // `ini` converts the words true, false and null to other types, even when they are quoted.
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
