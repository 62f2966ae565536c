/** What templates have as in the Python server: functions of Python, and a value. */

/** The default public key if none is configured. */
export const notConfigured = '__NOT_CONFIGURED__';

/** Characters that Python's repr shows by their code. */
const notPrintable = /(?! )[\p{C}\p{Z}]/gu;

function stringText(value: string): string {
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
  const escaped = value
    .replaceAll('\\', '\\\\')
    .replaceAll(quote, `\\${quote}`)
    .replaceAll('\n', '\\n')
    .replaceAll('\r', '\\r')
    .replaceAll('\t', '\\t')
    .replace(notPrintable, (character) => {
      const code = (character.codePointAt(0) ?? 0).toString(16);
      if (code.length <= 2) return `\\x${code.padStart(2, '0')}`;
      return code.length <= 4 ? `\\u${code.padStart(4, '0')}` : `\\U${code.padStart(8, '0')}`;
    });
  return quote + escaped + quote;
}

/**
 * Python's text for a value: `['a', 'b']`, `True`, `None`, `{'a': 1}`. Throws for what is none of text,
 * whole number, boolean, null, list and plain object.
 */
export function repr(value: unknown): string {
  if (typeof value === 'string') return stringText(value);
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (value === null) return 'None';
  if (Number.isSafeInteger(value)) return String(value);
  if (Array.isArray(value)) return `[${value.map(repr).join(', ')}]`;
  if (typeof value === 'object') {
    const entries = Object.entries(value).map(([key, item]) => `${repr(key)}: ${repr(item)}`);
    return `{${entries.join(', ')}}`;
  }
  throw new TypeError('is not a text, a whole number, true, false, null or a list of these');
}

/**
 * The whole number that a text in decimal digits gives, or a number without its fraction. Throws for anything else, as
 * Python does, and for a number that JavaScript does not hold exactly.
 */
export function int(value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(Math.trunc(value)))
    return Math.trunc(value);
  const text = String(value).trim();
  const number = /^[+-]?\d+(?:_\d+)*$/.test(text) ? Number(text.replaceAll('_', '')) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw new TypeError('is not a whole number');
  return number;
}
