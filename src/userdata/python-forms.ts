/** How to write here what Python calls by a name of its own. "x" is what it is called with. */
const functionForms: ReadonlyMap<string, string> = new Map([
  ['True', "'True', true in a condition,"],
  ['False', "'False', false in a condition,"],
  ['None', "'None', null in a condition,"],
  ['abs', 'Math.abs(x)'],
  ['all', 'x.every(Boolean)'],
  ['any', 'x.some(Boolean)'],
  ['bool', 'Boolean(x)'],
  ['chr', 'String.fromCodePoint(x)'],
  ['defined', "'name' in it"],
  ['dict', '{ name: x }'],
  ['enumerate', 'x.entries()'],
  ['filter', 'x.filter((one) => …)'],
  ['float', 'Number(x)'],
  ['format', `\`…\${x}…\``],
  ['get', "it['name'] ?? 'default'"],
  ['globals', 'it'],
  ['hex', 'x.toString(16)'],
  ['include', "{{% include('FILE') }}"],
  ['isinstance', 'typeof x'],
  ['iter', 'x.values()'],
  ['len', 'x.length, or Object.keys(x).length of public_keys'],
  ['list', '[...x]'],
  ['locals', 'it'],
  ['map', 'x.map((one) => …)'],
  ['max', 'Math.max(x, y)'],
  ['min', 'Math.min(x, y)'],
  ['next', 'x[0]'],
  ['open', "{{% include('FILE') }}"],
  ['ord', 'x.codePointAt(0)'],
  ['pow', 'x ** y'],
  ['print', '{{x}}'],
  ['range', '[...Array(x).keys()]'],
  ['rebase', 'the text of that template'],
  ['reversed', '[...x].reverse()'],
  ['round', 'Math.round(x)'],
  ['set', 'new Set(x)'],
  ['setdefault', "{{% const name = it['name'] ?? 'default' }}"],
  ['sorted', '[...x].sort()'],
  ['str', 'String(x)'],
  ['sum', 'x.reduce((sum, one) => sum + one, 0)'],
  ['tuple', '[...x]'],
  ['type', 'typeof x'],
  ['zip', 'x.map((one, index) => [one, y[index]])'],
]);

/** Python's other functions, which have no form here. */
const otherFunctions =
  'ascii bin bytearray bytes callable classmethod compile complex delattr dir divmod eval exec ' +
  'frozenset getattr hasattr hash help id input issubclass memoryview object oct property ' +
  'setattr slice staticmethod super vars Exception KeyError NameError TypeError ValueError';
/** These are functions of templates here, too. */
const sameFunctions: ReadonlySet<string> = new Set(['int', 'repr']);
const pythonFunctions = new Set([
  ...functionForms.keys(),
  ...sameFunctions,
  ...otherFunctions.split(' '),
]);

/** How to write here what Python calls as a method of a value, "x". */
const methodForms: ReadonlyMap<string, string> = new Map([
  ['__len__', 'x.length'],
  ['append', 'x.push(y)'],
  ['capitalize', 'x[0].toUpperCase() + x.slice(1).toLowerCase()'],
  ['casefold', 'x.toLowerCase()'],
  ['center', 'x.padStart(…).padEnd(…)'],
  ['copy', '[...x], or { ...x }'],
  ['count', 'x.split(y).length - 1'],
  ['decode', 'x'],
  ['encode', 'x, or Buffer.from(x)'],
  ['endswith', 'x.endsWith(y)'],
  ['expandtabs', "x.replaceAll('\\t', ' '.repeat(8))"],
  ['extend', 'x.push(...y)'],
  ['find', 'x.indexOf(y)'],
  ['format', `\`…\${y}…\``],
  ['get', "x['name'] ?? 'default'"],
  ['index', 'x.indexOf(y)'],
  ['insert', 'x.splice(index, 0, y)'],
  ['isalnum', '/^[a-z\\d]+$/i.test(x)'],
  ['isalpha', '/^[a-z]+$/i.test(x)'],
  ['isdecimal', '/^\\d+$/.test(x)'],
  ['isdigit', '/^\\d+$/.test(x)'],
  ['islower', 'x === x.toLowerCase()'],
  ['isnumeric', '/^\\d+$/.test(x)'],
  ['isspace', '/^\\s+$/.test(x)'],
  ['isupper', 'x === x.toUpperCase()'],
  ['items', 'Object.entries(x)'],
  ['join', 'y.join(x)'],
  ['keys', 'Object.keys(x)'],
  ['ljust', 'x.padEnd(length)'],
  ['lower', 'x.toLowerCase()'],
  ['lstrip', 'x.trimStart()'],
  ['partition', 'x.split(y)'],
  ['remove', 'x.filter((one) => one !== y)'],
  ['removeprefix', "x.replace(/^prefix/, '')"],
  ['removesuffix', "x.replace(/suffix$/, '')"],
  ['rfind', 'x.lastIndexOf(y)'],
  ['rindex', 'x.lastIndexOf(y)'],
  ['rjust', 'x.padStart(length)'],
  ['rpartition', 'x.split(y)'],
  ['rsplit', 'x.split(y)'],
  ['rstrip', 'x.trimEnd()'],
  ['setdefault', "x['name'] ??= 'default'"],
  ['splitlines', "x.split('\\n')"],
  ['startswith', 'x.startsWith(y)'],
  ['strip', 'x.trim()'],
  ['swapcase', 'x.toLowerCase(), or x.toUpperCase()'],
  ['title', 'x.replace(/[a-z]+/gi, (word) => word[0].toUpperCase() + word.slice(1).toLowerCase())'],
  ['translate', "x.replaceAll('a', 'b')"],
  ['update', 'Object.assign(x, y)'],
  ['upper', 'x.toUpperCase()'],
  ['values', 'Object.values(x)'],
  ['zfill', "x.padStart(length, '0')"],
]);

/** Whether Python, or Bottle, has a function or constant of that name in every template. */
export function isPythonFunction(name: string): boolean {
  return pythonFunctions.has(name);
}

/**
 * How to write here what Python calls by the name, such as `x.length for len(…)`; undefined if that is no name
 * of Python, or the same here.
 */
export function formOfFunction(name: string): string | undefined {
  if (sameFunctions.has(name)) return undefined;
  const form = functionForms.get(name);
  if (form !== undefined) return `${form} for ${/^[A-Z]/.test(name) ? name : `${name}(…)`}`;
  return pythonFunctions.has(name) ? `it in JavaScript, which has no ${name}(…)` : undefined;
}

/** The same for a method of Python's values. */
export function formOfMethod(name: string): string | undefined {
  const form = methodForms.get(name);
  return form && `${form} for x.${name}(…)`;
}
