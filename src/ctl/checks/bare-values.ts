import { isDeepStrictEqual } from 'node:util';

import yaml = require('yaml');

import { controlCharacters } from '../../text.js';
import type { Tag } from '../../userdata/source.js';
import {
  compileTemplate,
  functions,
  type Part,
  printValue,
  type TemplateData,
  type TemplateInstance,
} from '../../userdata/template.js';

/** A tag that prints a value without quotes where YAML needs them. */
export interface BareValue {
  /** The template, or the file that it includes. */
  readonly file: string;
  /** The line in the template, counted from 1. */
  readonly line: number;
  /** The tag's expression. */
  readonly code: string;
}

/** A text that a tag printed. */
interface Print extends BareValue {
  readonly text: string;
}

/** The rendered text: what tags printed, between literal text and what needs no look. */
type Parts = readonly (string | Print)[];

/** Words, paths, keys. */
const words = /^[\p{L}_][\p{L}\p{M}\p{N}_./@+=-]*(?: [\p{L}\p{M}\p{N}_./@+=-]+)*$/u;
/** IPv4 addresses, MAC addresses, uuids. */
const identifiers =
  /^(?:\d+(?:\.\d+){3}|[\da-f]{2}(?::[\da-f]{2}){5}|[\da-f]{8}(?:-[\da-f]{4,12}){4})$/;

/** Whether YAML reads the text as itself wherever it stands. Most texts do, and need no closer look. */
function isHarmless(text: string): boolean {
  return (words.test(text) || identifiers.test(text)) && read(text) === text;
}

/** What YAML 1.1 (PyYAML, and so cloud-init) reads from a text; undefined if it is not valid. */
function read(text: string): unknown {
  const document = yaml.parseDocument(text, { version: '1.1', logLevel: 'error' });
  if (document.errors.length > 0) return undefined;
  try {
    return document.toJS({ mapAsMap: true });
  } catch {
    // An alias without an anchor, or aliases that expand without bound.
    return undefined;
  }
}

/** Renders a template into parts. Throws TemplateError. */
function partsOf(
  source: string,
  file: string,
  data: TemplateData,
  part: ((name: string) => Part) | undefined,
): Parts {
  const quoted = new Set<string>();
  const recorded =
    (quote: (value: unknown) => string | number) =>
    (value: unknown): string => {
      const text = String(quote(value));
      quoted.add(text);
      return text;
    };
  const own: TemplateData = Object.create(data);
  for (const name of ['yaml', 'json'] as const) {
    if (data[name] === functions[name]) {
      Object.assign(own, { [name]: recorded(functions[name]) });
    }
  }
  const prints: Print[] = [];
  const print = (value: unknown, tag: Tag): string => {
    const text = printValue(value, tag);
    if (typeof value !== 'string' || quoted.has(text) || isHarmless(text)) return text;
    prints.push({ file: tag.file, line: tag.line, code: tag.code, text });
    // From a private use area: no template and no value is expected to have these.
    return `\u{f1ce0}${prints.length - 1}\u{f1ce1}`;
  };
  const marked = compileTemplate(source, file, { print, ...(part && { part }) })(own);
  return marked
    .split(/\u{f1ce0}(\d+)\u{f1ce1}/u)
    .map((part, index) => (index % 2 === 0 ? part : (prints[Number(part)] ?? part)));
}

/** A word that stands for the text of a print. */
function standIn(index: number): string {
  return `mdserverprint${index}end`;
}

/** The value with a function applied to each string in it, keys included. */
function mapStrings(value: unknown, change: (text: string) => unknown): unknown {
  if (typeof value === 'string') return change(value);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, change));
  if (!(value instanceof Map)) return value;
  return new Map(
    [...value].map(([key, item]) => [mapStrings(key, change), mapStrings(item, change)]),
  );
}

/**
 * Whether a value is meant to be YAML of its own: one that the operator wrote as a number, a list or
 * in quotes, or a number in a domain's metadata.
 */
function isMeantAsYaml(text: string, { name, mac, metadata }: TemplateInstance): boolean {
  const value = read(text);
  if (text === name || text === mac) return false;
  const fromDomain = Object.values(metadata).some(
    (known) => known === text || (known.length > 3 && text.includes(known)),
  );
  if (fromDomain) return /^(?:number|boolean)$/.test(typeof value) && String(value) === text;
  return (value !== undefined && typeof value !== 'string') || /^["']/.test(text);
}

/**
 * The tags of a cloud-config template that print a value bare, without yaml() or json(), where YAML
 * reads something else than the value. Each printed text is compared with a plain word in its place:
 * what surrounds it must stay the same, and the text must come back whole. `part` finds the files that the
 * template includes. Throws TemplateError.
 */
export function bareValues(
  source: string,
  file: string,
  data: TemplateData,
  instance: TemplateInstance,
  part?: (name: string) => Part,
): BareValue[] {
  const parts = partsOf(source, file, data, part);
  if (parts.every((part) => typeof part === 'string')) return [];
  /** The rendered text with stand-ins for the prints that `isReplaced` chooses. */
  const withStandIns = (isReplaced: (print: Print, index: number) => boolean) =>
    parts
      .map((part, index) => {
        if (typeof part === 'string') return part;
        return isReplaced(part, index) ? standIn(index) : part.text;
      })
      .join('');
  // A text of several lines may be a part of the YAML, such as a list that the template has joined.
  const chosen = [() => true, ({ text }: Print) => !text.includes('\n')];
  const isJudged = chosen.find((choice) => read(withStandIns(choice)) !== undefined);
  if (isJudged === undefined) return [];
  const plain = read(withStandIns(isJudged));
  const found = parts.filter((part, index): part is Print => {
    if (typeof part === 'string' || !isJudged(part)) return false;
    const { text } = part;
    // PyYAML refuses most control characters, ends lines at others, and cannot read "=" and "<<".
    if (/^(?:=|<<)$/.test(text) || controlCharacters.test(text.replace(/[\t\n]/g, ' ')))
      return true;
    const word = standIn(index);
    const actual = read(withStandIns((other, at) => isJudged(other) && at !== index));
    const whole = mapStrings(plain, (string) => string.replaceAll(word, () => text));
    if (isDeepStrictEqual(actual, whole)) return false;
    const asYaml = mapStrings(plain, (string) => (string === word ? read(text) : string));
    return !(isMeantAsYaml(text, instance) && isDeepStrictEqual(actual, asYaml));
  });
  return [
    ...new Map(
      found.map(({ file: by, line, code }) => [`${by}:${line} ${code}`, { file: by, line, code }]),
    ).values(),
  ];
}
