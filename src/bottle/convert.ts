import {
  at,
  type Code,
  constantText,
  levels,
  parameter,
  printed,
  quote,
  Refusal,
  shown,
  sure,
} from './code.js';
import { convert } from './expressions.js';
import {
  guestParts,
  isGuestTemplate,
  javaScriptMark,
  languageLine,
  maxIncludes,
} from './language.js';
import { asArray, itemType, truth } from './methods.js';
import {
  type BlockHeader,
  type Expression,
  PythonSyntaxError,
  parseExpression,
  type SimpleStatement,
} from './python.js';
import {
  bind,
  dataType,
  freshName,
  isFreeName,
  narrowed,
  type PythonValue,
  requireBindable,
  type Scope,
  targetNames,
  type Variable,
} from './scope.js';
import {
  type PrintedTag,
  parseBottleTemplate,
  type TemplateNode,
  TemplateProblem,
} from './template.js';
import { join, listOf, refused, sameType, type Type, typeName } from './types.js';

export type { PythonValue } from './scope.js';

/** What a conversion depends on. */
export interface ConvertOptions {
  /** Every name that Python's templates had, with its value now; for get(), also names such as `dnsmasq.gateway`. */
  readonly names: ReadonlyMap<string, PythonValue>;
  /** The text of a file that the template includes, and its name in userdata_dir; undefined if there is none. */
  part(name: string): { readonly name: string; readonly source: string } | undefined;
}

export interface ConversionProblem {
  /** In the template, counted from 1. */
  readonly line: number;
  /** Why it cannot be converted, in one line. */
  readonly problem: string;
}

export type Conversion =
  /** `text` is the template in our language; `changed` is false if the old one means the same here. */
  | { readonly text: string; readonly changed: boolean }
  | { readonly problems: readonly ConversionProblem[] };

/** Modules whose import does nothing that could be seen in a text. */
const harmlessModules = new Set(
  'base64 collections datetime functools hashlib ipaddress itertools json math os os.path random re socket string sys time uuid'.split(
    ' ',
  ),
);

/** The text of a converted template. */
class Output {
  body = '';
  /** Whether it says something that the old template would not say in our language. */
  differs = false;
  private text = '';

  addText(text: string): void {
    this.text += text;
  }

  /** A tag that stays as it is. */
  keepTag(source: string): void {
    this.flush(true);
    this.body += `{{${source}}}`;
  }

  /** A tag that prints the value of JavaScript code. */
  addTag(code: string): void {
    this.flush(true);
    this.differs = true;
    // "!" and "%" at the start have a meaning, and a brace beside braces is hard to read.
    if (/^[!%]/.test(code)) this.body += `{{(${code})}}`;
    else if (code.startsWith('{') || code.endsWith('}')) this.body += `{{ ${code} }}`;
    else this.body += `{{${code}}}`;
  }

  /** A statement, on a line of its own where the text has a line end before it. */
  addStatement(code: string): void {
    this.flush(true);
    this.differs = true;
    const isAlone = this.body === '' || this.body.endsWith('\n');
    // Such a line would be taken out with its spaces.
    if (!isAlone && /(?:^|\n)[ \t]*$/.test(this.body)) {
      throw new Refusal('two backslashes join spaces to this line');
    }
    this.body += `{{% ${code} }}${isAlone ? '\n' : ''}`;
  }

  /** Writes the text that has come together, so that our language reads it as text. */
  flush(beforeTag: boolean): void {
    const atStart = this.body === '' || this.body.endsWith('\n');
    let escaped = this.text.replace(/\{\{/g, "{{'{{'}}");
    if (beforeTag) escaped = escaped.replace(/(?<!\{)\{$/, "{{'{'}}");
    const starts = /(^|\n)([ \t]*)(\\?(?:<%|%))/g;
    escaped = escaped.replace(starts, (all, before: string, spaces: string, mark: string) =>
      before === '' && !atStart ? all : `${before}${spaces}{{${quote(mark)}}}`,
    );
    if (escaped !== this.text) this.differs = true;
    this.body += escaped;
    this.text = '';
  }
}

/** What stays the same in all of a template. */
interface Context {
  readonly options: ConvertOptions;
  readonly problems: ConversionProblem[];
  /** Names that the template binds, and their names in JavaScript. */
  readonly codes: Map<string, string>;
  /** Names that have to be declared before the text. */
  readonly declared: Set<string>;
  /** Names that only loops bind, each in its own. */
  readonly loopNames: ReadonlySet<string>;
  /** Names that the template and its parts use. */
  readonly used: Set<string>;
  readonly depth: number;
}

/**
 * Translates a template of the Python server into ours, so that it gives the same text but for the
 * escaping of HTML. What it cannot prove to give the same text, it reports. A template that says in its first
 * line that it is ours stays.
 */
export function convertTemplate(source: string, options: ConvertOptions): Conversion {
  if (languageLine(source).language !== undefined) return { text: source, changed: false };
  const { conversion } = convertAt(source, options, 0);
  return conversion;
}

function convertAt(
  file: string,
  options: ConvertOptions,
  depth: number,
): { conversion: Conversion; used: ReadonlySet<string> } {
  // Python reads files in text mode.
  const source = file.replace(/\r\n?/g, '\n');
  const problems: ConversionProblem[] = [];
  const used = new Set<string>();
  let nodes: readonly TemplateNode[];
  try {
    nodes = parseBottleTemplate(source);
  } catch (error) {
    if (!(error instanceof TemplateProblem)) throw error;
    return { conversion: { problems: [{ line: error.line, problem: error.message }] }, used };
  }
  const hasCode = nodes.some(
    (node) => node.kind !== 'text' || node.pieces.some((piece) => typeof piece !== 'string'),
  );
  const [guestPart] = guestParts(source);
  if (hasCode && guestPart !== undefined) {
    const line = source.slice(0, guestPart[0]).split('\n').length;
    const problem =
      'this part is a Jinja template for the guest here, and is served as it is: remove this line if mdserver is to render it';
    return { conversion: { problems: [{ line, problem }] }, used };
  }
  if (hasCode && isGuestTemplate(source)) {
    const problem =
      'this is a Jinja template for the guest here, and is served as it is: remove its first line if mdserver is to render it';
    return { conversion: { problems: [{ line: 1, problem }] }, used };
  }
  const context: Context = {
    ...{ options, problems, used, depth, codes: new Map(), declared: new Set() },
    loopNames: loopNamesOf(nodes),
  };
  const out = new Output();
  const scope: Scope = {
    text: '',
    variables: new Map(),
    data: trackedData(options.names, used),
    known: new Map(),
  };
  convertNodes(nodes, scope, out, context);
  out.flush(false);
  if (problems.length > 0) return { conversion: { problems: distinct(problems) }, used };
  if (!out.differs && out.body === source)
    return { conversion: { text: file, changed: false }, used };
  const declared =
    context.declared.size === 0 ? '' : `{{% let ${[...context.declared].join(', ')}; }}\n`;
  return { conversion: { text: `${javaScriptMark}\n${declared}${out.body}`, changed: true }, used };
}

/** The data, which records the names that were asked for. */
function trackedData(
  names: ReadonlyMap<string, PythonValue>,
  used: Set<string>,
): ReadonlyMap<string, PythonValue> {
  const tracked = new Map(names);
  tracked.get = (name) => {
    used.add(name);
    return names.get(name);
  };
  return tracked;
}

function distinct(all: readonly ConversionProblem[]): ConversionProblem[] {
  const seen = new Set<string>();
  const causes = all.filter(({ problem }) => problem !== '');
  const unknown = 'uses a value that cannot be converted';
  const problems = causes.length > 0 ? causes : all.map(({ line }) => ({ line, problem: unknown }));
  return problems.filter(({ line, problem }) => {
    const key = `${line}:${problem}`;
    const isNew = !seen.has(key);
    seen.add(key);
    return isNew;
  });
}

/** The names that loops bind and nothing else does, and no loop inside such a loop. */
function loopNamesOf(nodes: readonly TemplateNode[]): ReadonlySet<string> {
  const loops = new Set<string>();
  const others = new Set<string>();
  const visit = (list: readonly TemplateNode[], enclosing: readonly string[]) => {
    for (const node of list) {
      if (node.kind === 'statement' && node.statement.kind === 'assignment') {
        for (const target of node.statement.targets) {
          for (const name of targetNames(target) ?? []) others.add(name);
        }
      }
      if (node.kind !== 'block') continue;
      const own = node.header.kind === 'for' ? (targetNames(node.header.target) ?? []) : [];
      for (const name of own) {
        loops.add(name);
        if (enclosing.includes(name)) others.add(name);
      }
      visit(node.body, [...enclosing, ...own]);
    }
  };
  visit(nodes, []);
  return new Set([...loops].filter((name) => !others.has(name)));
}

/** Runs a step of the conversion; a Refusal becomes a problem of the line. */
function attempt<T>(line: number, { problems }: Context, step: () => T): T | undefined {
  try {
    return step();
  } catch (error) {
    if (error instanceof PythonSyntaxError) problems.push({ line, problem: error.message });
    else if (error instanceof Refusal) {
      // An empty message: the cause has been reported.
      problems.push({ line, problem: error.message });
    } else throw error;
    return undefined;
  }
}

/** Converts the nodes one after the other, and returns the scope behind them. */
function convertNodes(
  nodes: readonly TemplateNode[],
  before: Scope,
  out: Output,
  context: Context,
): Scope {
  let scope = before;
  for (let index = 0; index < nodes.length; index += 1) {
    const node = nodes[index];
    if (node === undefined) break;
    if (node.kind === 'text') {
      for (const piece of node.pieces) {
        if (typeof piece === 'string') out.addText(piece);
        else attempt(piece.line, context, () => convertTag(piece, scope, out));
      }
    } else if (node.kind === 'statement') {
      const { line, text, statement } = node;
      const next = attempt(line, context, () =>
        convertStatement(statement, { ...scope, text }, out, context),
      );
      scope = next ?? afterRefusal(statement, scope);
    } else if (node.header.kind === 'if') {
      const chain = [node];
      for (let next = nodes[index + 1]; next?.kind === 'block'; next = nodes[index + 1]) {
        if (next.header.kind !== 'elif' && next.header.kind !== 'else') break;
        chain.push(next);
        index += 1;
        if (next.header.kind === 'else') break;
      }
      scope = convertIf(chain, scope, out, context);
    } else {
      scope = convertLoop(node, scope, out, context);
    }
  }
  return scope;
}

/** The scope behind a statement that was refused: what it binds is not known. */
function afterRefusal(statement: SimpleStatement, scope: Scope): Scope {
  const variables = new Map(scope.variables);
  if (statement.kind === 'import') {
    for (const name of statement.modules) {
      const [root = name] = name.split('.');
      variables.set(root, { code: root, type: refused });
    }
  }
  if (statement.kind !== 'assignment') return { ...scope, variables };
  for (const target of statement.targets) {
    for (const name of targetNames(target) ?? [])
      variables.set(name, { code: name, type: refused });
  }
  return { ...scope, variables };
}

function convertTag({ source }: PrintedTag, scope: Scope, out: Output): void {
  const inner = source.trim();
  if (inner === '') throw new Refusal('{{}} is empty');
  const code = (inner.startsWith('!') ? inner.slice(1) : inner).trim();
  const tree = parseExpression(code);
  const value = convert(tree, { ...scope, text: code, whole: tree });
  const result = printed(value);
  if (value.constant !== undefined && value.constant !== null) {
    const constant = constantText(value.constant);
    if (/^(?:'[^'\\{}]*'|"[^"\\{}]*")$/.test(code)) out.keepTag(source);
    // As text, it would be a line end.
    else if (constant.includes('\r')) out.addTag(result.code);
    else {
      out.differs = true;
      out.addText(constant);
    }
  } else if (result === value && isSameHere(tree, value)) out.keepTag(source);
  else out.addTag(result.code);
}

/** Whether the tag means the same in our language, in whatever template it is. */
function isSameHere(tree: Expression, { code, type }: Code): boolean {
  if (type.kind !== 'text' && type.kind !== 'printable') return false;
  if (tree.kind === 'name') return code === tree.name || code === `it[${quote(tree.name)}]`;
  if (tree.kind !== 'subscript' || tree.object.kind !== 'name') return false;
  return tree.index.kind === 'string' && /^[\w-]+$/.test(tree.index.value);
}

// --- statements --------------------------------------------------------------------------------

/** Converts a statement, and returns the scope behind it. Throws Refusal. */
function convertStatement(
  statement: SimpleStatement,
  scope: Scope,
  out: Output,
  context: Context,
): Scope {
  switch (statement.kind) {
    case 'pass':
      return scope;
    case 'import': {
      const unknown = statement.modules.find((name) => !harmlessModules.has(name));
      if (unknown !== undefined) throw new Refusal(`the module "${unknown}" has no counterpart`);
      const variables = new Map(scope.variables);
      for (const name of statement.modules) {
        const [root = name] = name.split('.');
        variables.set(root, { code: root, type: { kind: 'module', name } });
      }
      return { ...scope, variables };
    }
    case 'keyword':
      if (statement.keyword === 'global') return scope;
      throw new Refusal(`"${statement.keyword}" has no counterpart: rewrite it in JavaScript`);
    case 'assignment':
      return convertAssignment(statement, scope, out, context);
    case 'expression':
      return convertCall(statement.expression, scope, out, context);
  }
}

/** The JavaScript name of a name that the template binds. */
function codeOf(name: string, scope: Scope, { codes, declared, options }: Context): string {
  const known = codes.get(name);
  if (known !== undefined) return known;
  requireBindable(name, scope);
  if (options.names.has(name)) {
    // An assignment to data changes this rendering alone.
    if (!isFreeName(name)) throw new Refusal(`"${name}" is a word of JavaScript`);
    codes.set(name, name);
    return name;
  }
  if (!/^[A-Za-z_]\w*$/.test(name)) throw new Refusal(`"${name}" is no name in JavaScript`);
  const others = [...codes.values()].map((code): [string, Variable] => [
    code,
    { code, type: refused },
  ]);
  const code = freshName(name, { ...scope, variables: new Map(others) });
  codes.set(name, code);
  declared.add(code);
  return code;
}

function withVariable(name: string, code: string, type: Type, scope: Scope): Scope {
  return { ...scope, variables: new Map([...scope.variables, [name, { code, type }]]) };
}

function convertAssignment(
  { targets, operator, value }: Extract<SimpleStatement, { kind: 'assignment' }>,
  scope: Scope,
  out: Output,
  context: Context,
): Scope {
  const [target] = targets;
  if (target === undefined) return scope;
  if (operator !== undefined) return convertAugmented(target, operator, value, scope, out, context);
  if (target.kind === 'subscript') {
    if (targets.length > 1) throw new Refusal('an assignment to several places has no counterpart');
    return convertEntry(target.object, target.index, sure(convert(value, scope)), scope, out);
  }
  const names = targetNames(target);
  if (names === undefined) throw new Refusal('the target of the assignment has no counterpart');
  const result = sure(convert(value, scope));
  if (result.type.kind === 'module') throw new Refusal('a module has no counterpart');
  if (target.kind === 'name') {
    let next = scope;
    const codes = targets.map((each) => {
      if (each.kind !== 'name')
        throw new Refusal('an assignment to several places has no counterpart');
      const code = codeOf(each.name, scope, context);
      next = withVariable(each.name, code, result.type, next);
      return code;
    });
    out.addStatement([...codes, at(levels.conditional, result)].join(' = '));
    return next;
  }
  if (targets.length > 1) throw new Refusal('an assignment to several places has no counterpart');
  const codes = names.map((name) => codeOf(name, scope, context));
  const { type } = result;
  let types: readonly Type[];
  if (type.kind === 'tuple' && type.items.length === names.length) {
    types = type.items;
    out.addStatement(`[${codes.join(', ')}] = ${result.code}`);
  } else if (type.kind === 'list' && type.of !== undefined) {
    const { of } = type;
    types = names.map(() => of);
    const parts = parameter('parts', result.code, ...codes);
    const check = `if (${parts}.length !== ${names.length}) throw new Error('needs ${names.length} parts')`;
    out.addStatement(
      `{ const ${parts} = ${result.code}; ${check}; [${codes.join(', ')}] = ${parts}; }`,
    );
  } else
    throw new Refusal(
      `${shown(result)}, which is ${typeName(type)}, is taken apart into ${names.length} names`,
    );
  let next = scope;
  for (const [index, name] of names.entries()) {
    next = withVariable(name, codes[index] ?? name, types[index] ?? refused, next);
  }
  return next;
}

function convertAugmented(
  target: Expression,
  operator: string,
  value: Expression,
  scope: Scope,
  out: Output,
  context: Context,
): Scope {
  if (target.kind !== 'name') throw new Refusal('the target of the assignment has no counterpart');
  const { start, end } = target;
  const sum = convert({ kind: 'binary', operator, left: target, right: value, start, end }, scope);
  const code = codeOf(target.name, scope, context);
  if (sum.type.kind === 'list') {
    // In Python this changes the list itself.
    out.addStatement(`${code}.push(...${at(levels.conditional, sure(convert(value, scope)))})`);
  } else out.addStatement(`${code} = ${at(levels.conditional, sure(sum))}`);
  return withVariable(target.name, code, sum.type, scope);
}

/** `dictionary['key'] = value`. */
function convertEntry(
  object: Expression,
  index: Expression,
  value: Code,
  scope: Scope,
  out: Output,
): Scope {
  const variable = object.kind === 'name' ? scope.variables.get(object.name) : undefined;
  if (object.kind !== 'name' || variable === undefined)
    throw new Refusal('only an entry of a dictionary that the template made can be assigned');
  const { type, code } = variable;
  if (type.kind !== 'dictionary')
    throw new Refusal(`"${object.name}" is ${typeName(type)}, and its items cannot be assigned`);
  if (type.isData === true)
    throw new Refusal(`"${object.name}" may be a dictionary of the data, which cannot be changed`);
  if (index.kind !== 'string' || /^\d+$/.test(index.value))
    throw new Refusal('the key is no literal string that is not a number');
  const of = withItem(type.of, value);
  out.addStatement(`${code}[${quote(index.value)}] = ${at(levels.conditional, value)}`);
  return withVariable(object.name, code, { ...type, of }, scope);
}

/** The type of the items of a list or dictionary to which one is added. */
function withItem(of: Type | undefined, value: Code): Type {
  if (of === undefined) return value.type;
  if (of.kind !== value.type.kind)
    throw new Refusal(`${shown(value)} is ${typeName(value.type)}, and the others are not`);
  return join(of, value.type);
}

/** A call that is a statement: include, setdefault, a method that changes a list, or one without effect. */
function convertCall(call: Expression, scope: Scope, out: Output, context: Context): Scope {
  if (
    call.kind === 'call' &&
    call.function.kind === 'name' &&
    !scope.variables.has(call.function.name)
  ) {
    const { name } = call.function;
    const [first, second] = call.positional;
    if (name === 'include')
      return convertInclude(call.positional, call.keywords.length, scope, out, context);
    if (name === 'print' && call.keywords.length === 0 && !scope.data.has(name)) {
      for (const argument of call.positional) convert(argument, scope);
      return scope;
    }
    if (
      name === 'setdefault' &&
      first?.kind === 'string' &&
      second !== undefined &&
      call.positional.length === 2
    ) {
      const key = first.value;
      const result = convert(call, { ...scope, whole: call });
      out.addStatement(result.code.slice(1, -1));
      if (scope.data.has(key)) return scope;
      return withVariable(key, key, sure(convert(second, scope)).type, scope);
    }
  }
  if (call.kind === 'call' && call.function.kind === 'attribute') {
    const changed = convertListChange(
      call.function.object,
      call.function.name,
      call.positional,
      scope,
      out,
    );
    if (changed !== undefined) return changed;
  }
  convert(call, scope);
  return scope;
}

/** append, extend, sort and reverse of a list that has a name; undefined for anything else. */
function convertListChange(
  object: Expression,
  name: string,
  args: readonly Expression[],
  scope: Scope,
  out: Output,
): Scope | undefined {
  const variable = object.kind === 'name' ? scope.variables.get(object.name) : undefined;
  if (object.kind !== 'name' || variable?.type.kind !== 'list') return undefined;
  const { code, type } = variable;
  const [argument] = args;
  const value = argument === undefined ? undefined : sure(convert(argument, scope));
  if (name === 'append' && value !== undefined && args.length === 1) {
    const of = withItem(type.of, value);
    out.addStatement(`${code}.push(${at(levels.conditional, value)})`);
    return withVariable(object.name, code, listOf(of, true), scope);
  }
  if (name === 'extend' && value !== undefined && args.length === 1) {
    const item = itemType(value);
    const of = item === undefined ? type.of : withItem(type.of, { ...value, type: item });
    out.addStatement(`${code}.push(...${at(levels.conditional, asArray(value))})`);
    return withVariable(object.name, code, listOf(of, type.filled), scope);
  }
  if (name === 'sort' && args.length === 0) {
    const isText = type.of?.kind === 'text' && type.of.plain;
    if (!isText && type.of?.kind !== 'integer')
      throw new Refusal(`"${object.name}" is sorted differently`);
    out.addStatement(`${code}.sort(${isText ? '' : '(a, b) => a - b'})`);
    return scope;
  }
  if (name === 'reverse' && args.length === 0) {
    out.addStatement(`${code}.reverse()`);
    return scope;
  }
  return undefined;
}

function convertInclude(
  args: readonly Expression[],
  keywords: number,
  scope: Scope,
  out: Output,
  context: Context,
): Scope {
  const [argument] = args;
  if (argument?.kind !== 'string' || args.length > 1 || keywords > 0) {
    throw new Refusal('include() only has a counterpart with one literal string');
  }
  const part = context.options.part(argument.value);
  if (part === undefined)
    throw new Refusal(`include(${quote(argument.value)}): there is no such file in userdata_dir`);
  if (context.depth >= maxIncludes)
    throw new Refusal(`more than ${maxIncludes} files include each other`);
  if (part.source.includes('\r'))
    throw new Refusal(`${part.name} has line ends CRLF, which Bottle sends as they are`);
  const { conversion, used } = convertAt(part.source, context.options, context.depth + 1);
  if ('problems' in conversion) {
    const [first] = conversion.problems;
    throw new Refusal(`${part.name}:${first?.line}: ${first?.problem}`);
  }
  const changed = [...used].find((name) => scope.variables.has(name));
  if (changed !== undefined)
    throw new Refusal(`${part.name} uses "${changed}", which this template binds`);
  for (const name of used) context.used.add(name);
  out.addStatement(`include(${quote(part.name)})`);
  return scope;
}

// --- blocks ------------------------------------------------------------------------------------

type Block = Extract<TemplateNode, { kind: 'block' }>;

/** What the data has under the name, until the template assigns to it. */
function dataVariable(name: string, { data }: Scope): Variable | undefined {
  const value = data.get(name);
  return value === undefined ? undefined : { code: name, type: dataType(name, value) };
}

/** What is known where two ways through the template meet. */
function merged(a: Scope, b: Scope): Scope {
  const variables = new Map<string, Variable>();
  for (const name of new Set([...a.variables.keys(), ...b.variables.keys()])) {
    const [one, other] = [a, b].map(
      (scope) => scope.variables.get(name) ?? dataVariable(name, scope),
    );
    const either = one ?? other;
    if (either === undefined) continue;
    const unsure =
      one?.unsure === true || other?.unsure === true || one === undefined || other === undefined;
    const type = join(one?.type ?? either.type, other?.type ?? either.type);
    variables.set(name, { code: either.code, type, unsure });
  }
  return { ...a, variables };
}

function convertIf(chain: readonly Block[], scope: Scope, out: Output, context: Context): Scope {
  let rest = scope;
  const ends: Scope[] = [];
  for (const [index, { line, text, header, body }] of chain.entries()) {
    const opens = index === 0 ? '' : '} else ';
    if (header.kind === 'if' || header.kind === 'elif') {
      const { condition } = header;
      const own = { ...rest, text };
      const test = attempt(line, context, () => truth(convert(condition, own)));
      attempt(line, context, () => out.addStatement(`${opens}if (${test?.code ?? ''}) {`));
      ends.push(convertNodes(body, narrowed(condition, true, own), out, context));
      rest = narrowed(condition, false, rest);
    } else {
      attempt(line, context, () => out.addStatement('} else {'));
      ends.push(convertNodes(body, rest, out, context));
    }
  }
  if (chain.at(-1)?.header.kind !== 'else') ends.push(rest);
  attempt(chain[0]?.line ?? 0, context, () => out.addStatement('}'));
  return { ...ends.reduce(merged), known: scope.known };
}

/** Types of a loop are stable after at most so many rounds. */
const maxRounds = 5;

/**
 * Converts a loop with types that hold in each round, and returns the scope behind it. `enter` gives the
 * scope at the start of a round, and `begin` the statement that begins the loop.
 */
function convertRounds(
  body: readonly TemplateNode[],
  before: Scope,
  enter: (scope: Scope) => Scope,
  begin: (scope: Scope) => string,
  out: Output,
  context: Context,
): Scope {
  let start = before;
  let first: string;
  for (let round = 0; ; round += 1) {
    first = begin(start);
    const trial = { ...context, problems: [] as ConversionProblem[] };
    const end = merged(start, convertNodes(body, enter(start), new Output(), trial));
    if (trial.problems.length > 0) {
      context.problems.push(...trial.problems);
      return end;
    }
    const isStable = [...end.variables].every(([name, { type }]) =>
      sameType(type, start.variables.get(name)?.type),
    );
    if (isStable) break;
    if (round === maxRounds)
      throw new Refusal('the types of the names in this loop change from round to round');
    start = end;
  }
  out.addStatement(first);
  const end = merged(start, convertNodes(body, enter(start), out, context));
  out.addStatement('}');
  return end;
}

function convertLoop(node: Block, scope: Scope, out: Output, context: Context): Scope {
  const { line, text, header, body } = node;
  const own = { ...scope, text };
  const result = attempt(line, context, () => {
    if (header.kind === 'while') {
      const { condition } = header;
      const enter = (start: Scope) => narrowed(condition, true, start);
      // The condition is met again with what the body leaves behind.
      const begin = (start: Scope) =>
        `while (${truth(convert(condition, { ...start, text })).code}) {`;
      return convertRounds(body, own, enter, begin, out, context);
    }
    if (header.kind !== 'for') throw unknownBlock(header);
    return convertFor(header, body, own, out, context);
  });
  return result ?? scope;
}

function unknownBlock(header: BlockHeader): Refusal {
  const keyword = header.kind === 'block' ? header.keyword : header.kind;
  return new Refusal(`"${keyword}" has no counterpart here: rewrite it in JavaScript`);
}

function convertFor(
  { target, iterable }: Extract<BlockHeader, { kind: 'for' }>,
  body: readonly TemplateNode[],
  scope: Scope,
  out: Output,
  context: Context,
): Scope {
  const list = convert(iterable, scope);
  const item = itemType(list);
  if (item === undefined) throw new Refusal(`${shown(list)} is empty`);
  const names = targetNames(target);
  if (names === undefined)
    throw new Refusal('the target of "for" is neither a name nor names in a tuple');
  const isOwn = names.every(
    (name) => context.loopNames.has(name) && !scope.variables.has(name) && !scope.data.has(name),
  );
  const bound = bind(target, item, scope);
  for (const name of bound.names) requireBindable(name, scope);
  const codes = isOwn ? [] : names.map((name) => codeOf(name, scope, context));
  const pattern = isOwn
    ? bound.pattern
    : target.kind === 'name'
      ? (codes[0] ?? '')
      : `[${codes.join(', ')}]`;
  const enter = (start: Scope): Scope => {
    const variables = new Map(start.variables);
    for (const [index, name] of names.entries()) {
      const known = bound.scope.variables.get(name);
      if (known !== undefined) variables.set(name, { ...known, code: codes[index] ?? known.code });
    }
    return { ...start, variables };
  };
  const array = asArray(list);
  const begin = () =>
    `for (${isOwn ? 'const ' : ''}${pattern} of ${at(levels.conditional, array)}) {`;
  const end = convertRounds(body, scope, enter, begin, out, context);
  if (!isOwn) return end;
  const variables = new Map(end.variables);
  for (const name of names) variables.delete(name);
  return { ...end, variables };
}
