import { type Expression, ifPython, parseExpression } from '../bottle/python.js';
import { formOfFunction, formOfMethod } from './python-forms.js';

/**
 * Names that no template of Bottle has: those of JavaScript and ours. An expression with one of them
 * was never served by Python, so its numbers and methods are JavaScript's.
 */
const ourNames = new Set([
  ...Object.getOwnPropertyNames(globalThis).filter((name) => name !== 'eval'),
  ...['yaml', 'json', 'sh', 'instance', 'it'],
]);

/** What can be said about a value before the template is rendered. */
type Kind = 'number' | 'list' | 'other';

/** The direct parts of an expression. */
function partsOf(expression: Expression): readonly Expression[] {
  switch (expression.kind) {
    case 'list':
    case 'tuple':
    case 'set':
      return expression.items;
    case 'dictionary':
      return expression.entries.flatMap(([key, value]) => (key ? [key, value] : [value]));
    case 'attribute':
      return [expression.object];
    case 'call':
      return [
        expression.function,
        ...expression.positional,
        ...expression.keywords.map(([, value]) => value),
      ];
    case 'subscript':
      return [expression.object, expression.index];
    case 'slice':
      return [expression.from, expression.to, expression.step].filter((part) => part !== undefined);
    case 'unary':
      return [expression.operand];
    case 'binary':
    case 'logic':
      return [expression.left, expression.right];
    case 'comparison':
      return [expression.first, ...expression.rest.map(([, operand]) => operand)];
    case 'conditional':
      return [expression.condition, expression.then, expression.otherwise];
    case 'comprehension':
      return [expression.element, ...expression.clauses.map(({ iterable }) => iterable)];
    case 'lambda':
      return [expression.body];
    case 'starred':
    case 'assignment expression':
      return [expression.value];
    case 'f-string':
      return expression.parts.flatMap((part) => (typeof part === 'string' ? [] : [part.value]));
    case 'name':
    case 'string':
    case 'integer':
    case 'float':
    case 'constant':
    case 'other':
      return [];
  }
}

/** The expression and all of its parts, from the outside to the inside. */
function allOf(expression: Expression): Expression[] {
  const found: Expression[] = [];
  // No recursion: a sum of thousands of terms is as deep.
  const waiting = [expression];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    found.push(next);
    waiting.push(...partsOf(next).toReversed());
  }
  return found;
}

/** In characters, of the code of a tag that prints. */
const maxLength = 4000;
/** How deep into an expression its kind is looked for: the parts are looked at for themselves. */
const maxDepth = 20;

/** Functions of Python that give a number. */
const numberFunctions = new Set(['abs', 'float', 'int', 'len', 'ord', 'round', 'sum']);

function kindOf(expression: Expression, depth = 0): Kind {
  const { kind } = expression;
  if (depth > maxDepth) return 'other';
  if (kind === 'integer' || kind === 'float') return 'number';
  if (kind === 'unary') return kindOf(expression.operand, depth + 1);
  if (kind === 'list') return 'list';
  if (kind === 'call') {
    const { function: called } = expression;
    if (called.kind === 'name' && numberFunctions.has(called.name)) return 'number';
    return called.kind === 'attribute' && called.name === 'split' ? 'list' : 'other';
  }
  if (kind !== 'binary') return 'other';
  const left = kindOf(expression.left, depth + 1);
  const right = kindOf(expression.right, depth + 1);
  if (left === 'list' || right === 'list') return 'list';
  return left === 'number' && right === 'number' ? 'number' : 'other';
}

/** Escapes that a text has in both languages. Python keeps the backslash of an unknown one. */
const knownEscapes = /\\(?:[nrtbfv\\'"\n]|x[\da-fA-F]{2}|u[\da-fA-F]{4}|0(?!\d))/g;

/** How to write the multiplication of a value that may be text or a list. */
function productForm([left, right]: readonly [Expression, Expression], code: string): string {
  const [value, count] = kindOf(left) === 'number' ? [right, left] : [left, right];
  const [text, times] = [value, count].map(({ start, end }) => code.slice(start, end));
  if (kindOf(value) === 'list') return `Array(${times}).fill(${text}).flat()`;
  if (value.kind === 'string') return `${text}.repeat(${times})`;
  return `Number(${text}) * ${times} for a number, or ${text}.repeat(${times}) for text`;
}

/** What a part of a tag means in Python alone, and how to write that here. */
type Meaning = readonly [meaning: string, form: string];

/** What an operator means in Python and not here. `isPythons` as in meaningOf. */
function operatorMeaning(
  expression: Expression & { kind: 'binary' },
  code: string,
  isPythons: boolean,
): Meaning | undefined {
  const { operator } = expression;
  const [left, right] = [expression.left, expression.right].map(({ start, end }) =>
    code.slice(start, end),
  ) as [string, string];
  const kinds = [kindOf(expression.left), kindOf(expression.right)];
  if (operator === '//') return ['begins a comment here', `Math.floor(${left} / ${right})`];
  if (kinds.includes('list') && operator === '+') {
    return ['joins lists in Python', `[...${left}, ...${right}]`];
  }
  if (operator === '*' && kinds.some((kind) => kind !== 'number')) {
    const areOurs = [expression.left, expression.right].every(
      ({ kind }) =>
        kind === 'attribute' || kind === 'call' || kind === 'integer' || kind === 'float',
    );
    if (isPythons || !areOurs) {
      return [
        'repeats text and lists in Python',
        productForm([expression.left, expression.right], code),
      ];
    }
  }
  if (!isPythons) return undefined;
  switch (operator) {
    case '/':
      return [
        'gives a number with a point in Python, such as 2.0',
        `Math.floor(${left} / ${right}), or (${left} / ${right}).toFixed(1)`,
      ];
    case '%':
      return [
        'formats text in Python, and has another sign for numbers',
        `\`…\${x}…\` for text, or a function of Math`,
      ];
    case '**':
    case '<<':
    case '>>':
    case '&':
    case '|':
    case '^':
      return ['has no limit in Python, and 32 or 53 bits here', 'the number'];
    default:
      return undefined;
  }
}

/** What a call means in Python and not here. `isPythons` as in meaningOf. */
function callMeaning(
  expression: Expression & { kind: 'call' },
  code: string,
  isPythons: boolean,
): Meaning | undefined {
  const { function: called, positional, keywords } = expression;
  const [keyword] = keywords;
  if (keyword !== undefined) {
    return [`${keyword[0] ?? '**'}=… names an argument in Python`, 'the value alone'];
  }
  if (called.kind === 'name' && called.name === 'eval') {
    return ['runs Python code in Python', 'the expression itself'];
  }
  if (called.kind !== 'attribute') return undefined;
  const object = code.slice(called.object.start, called.object.end);
  const [first, second, third] = positional.map(({ start, end }) => code.slice(start, end));
  switch (called.name) {
    case 'replace': {
      if (first === undefined || second === undefined) return undefined;
      const form = second.includes('$')
        ? `${object}.split(${first}).join(${second})`
        : `${object}.replaceAll(${first}, ${second})`;
      const meaning =
        third === undefined
          ? 'replaces all in Python, and the first alone here'
          : `replaces ${third} in Python, and the first alone here`;
      return [meaning, form];
    }
    case 'split':
      if (second !== undefined) {
        return [
          'keeps the rest in its last part in Python, and drops it here',
          `${object}.split(${first}), or ${object}.slice(${object}.indexOf(${first}) + 1) for the rest`,
        ];
      }
      if (first === undefined) {
        return ['splits at spaces in Python', `${object}.trim().split(/\\s+/)`];
      }
      return undefined;
    case 'pop':
    case 'sort':
    case 'reverse':
      return isPythons ? ['gives something else in Python', 'it in JavaScript'] : undefined;
    default:
      return undefined;
  }
}

/** What a comparison means in Python and not here. */
function comparisonMeaning(
  { first, rest }: Expression & { kind: 'comparison' },
  code: string,
): Meaning | undefined {
  if (rest.length > 1) return ['compares each with the next in Python', 'a < b && b < c'];
  const [operator, operand] = rest[0] ?? ['', first];
  const isList = [first, operand].some((one) => kindOf(one) === 'list' || one.kind === 'tuple');
  if (/^(?:not )?in$/.test(operator) && (isList || operand.kind === 'string')) {
    const [item, list] = [first, operand].map(({ start, end }) => code.slice(start, end));
    return ['looks for a value in Python, and for an index here', `${list}.includes(${item})`];
  }
  if (/^[!=]=$/.test(operator) && isList) {
    return ['compares what is in the lists in Python', 'the comparison of their parts'];
  }
  const others = [first, operand].filter((one) => kindOf(one) !== 'number');
  const [other] = others;
  if (!/^[!=]=$/.test(operator) || others.length !== 1 || other?.kind === 'attribute') {
    return undefined;
  }
  const text = code.slice(other?.start, other?.end);
  return [
    `is ${operator === '!='} for text and a number in Python`,
    `Number(${text}) for ${text}, or ${operator}= for ${operator}`,
  ];
}

/**
 * What one part of an expression means in Python and not here. `isPythons`: Python could have served
 * the whole tag, and so the numbers that it prints are Python's.
 */
function meaningOf(expression: Expression, code: string, isPythons: boolean): Meaning | undefined {
  const { kind } = expression;
  if (kind === 'binary') return operatorMeaning(expression, code, isPythons);
  if (kind === 'call') return callMeaning(expression, code, isPythons);
  if (kind === 'comparison') return comparisonMeaning(expression, code);
  if (kind === 'subscript') {
    // A part of something else would get the word "undefined".
    const { object, index } = expression;
    if (index.kind !== 'unary' || index.operator !== '-') return undefined;
    const [list, position] = [object, index].map(({ start, end }) => code.slice(start, end));
    return ['counts from the end in Python, and is nothing here', `${list}.at(${position})`];
  }
  if (kind === 'tuple') return ['is a list of values in Python, and the last of them here', '[…]'];
  if (kind === 'float' && isPythons) {
    return ['is printed with its point by Python', "'…' in quotes"];
  }
  if (kind === 'unary' && expression.operator === '~' && isPythons) {
    return ['has no limit in Python, and 32 bits here', 'the number'];
  }
  // A text with a character by its name (\N{DASH}) is of the kind "other".
  if (kind !== 'string' && kind !== 'other') return undefined;
  const rest = code.slice(expression.start, expression.end).replace(knownEscapes, '');
  const [unknown] = /\\[\s\S]?/.exec(rest) ?? [];
  if (unknown === undefined) return undefined;
  return [`"${unknown}" in quotes is another text in Python`, `\\${unknown} for a backslash`];
}

/** How to write here Python's comparisons in words. */
const wordForms: ReadonlyMap<string, string> = new Map([
  ['in', 'y.includes(x) for x in y'],
  ['not in', '!y.includes(x) for x not in y'],
  ['is', 'x === y for x is y'],
  ['is not', 'x !== y for x is not y'],
]);

/** How to write here expressions that are Python alone. */
const kindForms: ReadonlyMap<Expression['kind'], string> = new Map([
  ['conditional', 'c ? a : b for a if c else b'],
  ['f-string', `\`…\${x}…\` for f'…{x}…'`],
  ['comprehension', 'y.filter((x) => c).map((x) => f(x)) for [f(x) for x in y if c]'],
  ['lambda', '(x) => y for lambda x: y'],
  ['set', 'new Set([x]) for {x}'],
]);

/** How to write here what is Python alone in a part of an expression: `x || y for x or y`. */
function newForm(part: Expression, code: string): string | undefined {
  const { kind } = part;
  if (kind === 'call') return calledForm(part.function);
  if (kind === 'constant') {
    return formOfFunction(part.value === null ? 'None' : part.value ? 'True' : 'False');
  }
  if (kind === 'logic') return part.operator === 'or' ? 'x || y for x or y' : 'x && y for x and y';
  if (kind === 'unary') return part.operator === 'not' ? '!x for not x' : undefined;
  if (kind === 'comparison') {
    return part.rest.map(([operator]) => wordForms.get(operator)).find((form) => form);
  }
  if (kind === 'subscript') {
    const isNegative = part.index.kind === 'unary' && part.index.operator === '-';
    return isNegative ? 'x.at(-1) for x[-1]' : undefined;
  }
  if (kind === 'slice') {
    return part.step === undefined
      ? 'x.slice(a, b) for x[a:b]'
      : "[...x].reverse().join('') for x[::-1]";
  }
  if (kind === 'string') {
    const isOneLiteral = /^\(*(['"])(?:(?!\1)[^\\]|\\[\s\S])*\1\)*$/.test(
      code.slice(part.start, part.end),
    );
    return isOneLiteral
      ? undefined
      : "'…' + '…' for strings with prefixes, three quotes, or side by side";
  }
  if (kind === 'other') return `it in JavaScript, which has no ${part.what}`;
  return kindForms.get(kind);
}

function calledForm(called: Expression): string | undefined {
  if (called.kind === 'name') return formOfFunction(called.name);
  return called.kind === 'attribute' ? formOfMethod(called.name) : undefined;
}

const maxForms = 3;

/**
 * How to write here what is Python alone in the code of a tag that prints: `x || y for x or y, …`.
 * Undefined if there is nothing of the kind.
 */
export function newForms(code: string): string | undefined {
  const expression = code.length > maxLength ? undefined : ifPython(parseExpression, code);
  if (expression === undefined) return undefined;
  const forms = new Set(allOf(expression).map((part) => newForm(part, code)));
  forms.delete(undefined);
  return forms.size === 0 ? undefined : [...forms].slice(0, maxForms).join(', ');
}

/** The first part of the expression that means one thing in Python and another here, and how to write it. */
function problemOf(
  all: readonly Expression[],
  code: string,
  isPythons: boolean,
): string | undefined {
  for (const part of all) {
    const [meaning, form] = meaningOf(part, code, isPythons) ?? [];
    if (meaning === undefined) continue;
    return `${code.slice(part.start, part.end)} ${meaning}: write ${form}`;
  }
  return undefined;
}

/**
 * Why the code of a tag that prints is refused: it means one thing in Python and another in
 * JavaScript. Undefined if it means the same, or is an error in one of them.
 */
export function doubleMeaning(code: string): string | undefined {
  if (/^[A-Za-z_][\w.]*$/.test(code)) return undefined;
  if (code.length > maxLength) return `is longer than ${maxLength} characters`;
  const expression = ifPython(parseExpression, code);
  if (expression === undefined) return undefined;
  const all = allOf(expression);
  const isPythons = !all.some((part) => part.kind === 'name' && ourNames.has(part.name));
  return problemOf(all, code, isPythons);
}

/** The expression in a statement of JavaScript. */
const statementExpressions = [
  /^(?:let|const|var)?\s*[\w$]+\s*=(?!=)([^;]+);?$/,
  /^\}?\s*(?:else\s+)?(?:if|while)\s*\((.*)\)\s*\{$/,
  /^for\s*\(\s*(?:const|let|var)\s+[\w$]+\s+of\s+(.*)\)\s*\{$/,
];

/**
 * Why a statement is refused, which is JavaScript: a part of it looks as if it had been Python, and
 * would mean something else. Undefined if nothing does.
 */
export function doubleMeaningOfStatement(code: string): string | undefined {
  if (code.length > maxLength) return undefined;
  for (const pattern of statementExpressions) {
    const found = pattern.exec(code)?.[1]?.trim();
    const expression = found === undefined ? undefined : ifPython(parseExpression, found);
    if (found !== undefined && expression !== undefined) {
      return problemOf(allOf(expression), found, false);
    }
  }
  return undefined;
}
