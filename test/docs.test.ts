import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import GithubSlugger from 'github-slugger';
import { isChecked } from '../bench/cases.js';
import { recordedRatios } from '../bench/check.js';
import { requestCases } from '../bench/requests.js';
import { startCases } from '../bench/start.js';
import { storeCases } from '../bench/store.js';
import { goalOf } from '../bench/table.js';
import { configFrom } from '../src/config/load.js';
import { options } from '../src/config/options.js';
import { bareValues } from '../src/ctl/checks/bare-values.js';
import { commands } from '../src/ctl/commands/index.js';
import { compileTemplate, type TemplateInstance, templateData } from '../src/userdata/template.js';
import { repository } from './support/daemon.js';

function read(path: string): string {
  return readFileSync(join(repository, path), 'utf8');
}

const commandNames: ReadonlySet<string> = new Set(commands.map(({ name }) => name));

/** A page of the documentation, taken apart. */
interface Page {
  readonly path: string;
  readonly text: string;
  /** Without code blocks. */
  readonly prose: string;
  readonly blocks: readonly { readonly language: string; readonly code: string }[];
  /** The `code` in the prose. */
  readonly spans: readonly string[];
}

const codeBlock = /^( *)```(\w*)\n([\s\S]*?)^ *```$/gm;

function pageOf(path: string): Page {
  const text = read(path);
  const prose = text.replace(codeBlock, '');
  return {
    path,
    text,
    prose,
    blocks: [...text.matchAll(codeBlock)].map(([, , language = '', code = '']) => ({
      language,
      code,
    })),
    spans: [...prose.matchAll(/(?<!`)`([^`\n]+)`(?!`)/g)].map(([, code = '']) => code),
  };
}

const pages = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'RELEASING.md',
  'SECURITY.md',
  ...readdirSync(join(repository, 'docs')).map((name) => `docs/${name}`),
].map(pageOf);

function blocksOf(language: string): string[] {
  return pages.flatMap(({ blocks }) =>
    blocks.filter((block) => block.language === language).map(({ code }) => code),
  );
}

/** The anchors that GitHub gives the headings of a page. */
function anchorsOf({ prose }: Page): Set<string> {
  const slugger = new GithubSlugger();
  const headings = [...prose.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => heading);
  return new Set(headings.map((heading) => slugger.slug(heading.replaceAll('`', ''))));
}

/** What is wrong with a relative link of a page; undefined for one that leads somewhere. */
function linkProblem({ path }: Page, link: string): string | undefined {
  const [file = '', anchor] = link.split('#', 2);
  const target = file === '' ? path : join(dirname(path), file);
  if (!existsSync(join(repository, target))) return `${path}: ${link}: no such file`;
  if (anchor === undefined || anchorsOf(pageOf(target)).has(anchor)) return undefined;
  return `${path}: ${link}: no such heading`;
}

function linksOf({ prose }: Page): string[] {
  const links = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link);
  return links.filter((link) => !/^https?:/.test(link));
}

describe('the documentation', () => {
  it('starts with a README that can be read in one go', () => {
    assert.ok(read('README.md').split('\n').length <= 201, 'more than 200 lines: move it to docs/');
  });

  it('has no link that leads nowhere', () => {
    const problems = pages.flatMap((page) =>
      linksOf(page).flatMap((link) => linkProblem(page, link) ?? []),
    );
    assert.deepEqual(problems, []);
  });

  it('is reached from the README, every page of it', () => {
    const [readme] = pages;
    const linked = new Set(readme === undefined ? [] : linksOf(readme));
    const others = pages.map(({ path }) => path).filter((path) => path.startsWith('docs/'));
    assert.deepEqual(
      others.filter((path) => !linked.has(path)),
      [],
    );
  });

  it('leaves the version to package.json, where a release sets it', () => {
    const { version } = JSON.parse(read('package.json'));
    const dated = ['CHANGELOG.md', 'docs/testing.md'];
    const named = pages.filter(({ path, text }) => text.includes(version) && !dated.includes(path));
    assert.deepEqual(
      named.map(({ path }) => path),
      [],
    );
  });

  it('quotes what its templates print into YAML, and so does the demonstration', () => {
    const instance: TemplateInstance = {
      name: '1e3',
      uuid: undefined,
      mac: undefined,
      ipv4: '10.122.0.2',
      ipv6: undefined,
      location: '"a": *b',
      metadata: { role: 'db' },
    };
    const keys = [{ name: 'default', key: 'ssh-ed25519 AAAA "a": #b' }];
    const settings = { publicKeys: keys, templateData: new Map(), password: undefined };
    const data = templateData(settings, instance);
    const templates = [...blocksOf('yaml'), read('etc/mdserver/demo-userdata/web1.yaml')].filter(
      (code) => code.includes('{{'),
    );
    assert.ok(templates.length >= 3);
    for (const code of templates) assert.deepEqual(bareValues(code, 'docs', data, instance), []);
  });

  it('names scripts that package.json has', () => {
    const { scripts } = JSON.parse(read('package.json'));
    const named = pages.flatMap(({ text }) =>
      [...text.matchAll(/npm (?:run ([a-z:]+)|(start|test)\b)/g)].map(([, run, own]) => run ?? own),
    );
    assert.deepEqual(
      [...new Set(named)].filter((name) => name === undefined || !Object.hasOwn(scripts, name)),
      [],
    );
    assert.ok(named.includes('start'));
  });

  it('names commands that mdserverctl has', () => {
    const inSpans = pages.flatMap(({ spans }) =>
      // "mdserverctl is served on" is a line of the log.
      spans.map((code) => /^mdserverctl (?!is )([a-z][a-z-]*)/.exec(code)?.[1]),
    );
    const inBlocks = pages.flatMap(({ blocks }) =>
      blocks.flatMap(({ code }) =>
        [...code.matchAll(/(?:^|\| )(?:\$ )?mdserverctl ([a-z][a-z-]*)/gm)].map(([, name]) => name),
      ),
    );
    const named = new Set([...inSpans, ...inBlocks].filter((name) => name !== undefined));
    assert.deepEqual(
      [...named].filter((name) => !commandNames.has(name)),
      [],
    );
    assert.ok(named.has('list'));
  });

  it('has every command of mdserverctl in its table', () => {
    const spans = new Set(pageOf('docs/mdserverctl.md').spans.map((code) => code.split(' ')[1]));
    assert.deepEqual(
      [...commandNames].filter((name) => !spans.has(name)),
      [],
    );
  });

  it('names options that there are', () => {
    const sections = Object.keys(options).join('|');
    const option = new RegExp(`^(${sections})\\.([\\w-]+)(?: = .*)?$`);
    const named = pages.flatMap(({ path, spans }) =>
      spans.flatMap((code) => {
        const [, section = '', key = ''] = option.exec(code) ?? [];
        // Files: mdserver.conf, mdserver.service, mdserver.log.
        if (section === '' || ['conf', 'service', 'log'].includes(key)) return [];
        return [{ path, section, key }];
      }),
    );
    const table: Readonly<Record<string, object>> = options;
    const unknown = named.filter(({ section, key }) => !Object.hasOwn(table[section] ?? {}, key));
    assert.deepEqual(unknown, []);
    assert.ok(named.some(({ section }) => section === 'dnsmasq'));
  });

  it('names files that are in the repository', () => {
    const named = pages.flatMap(({ path, spans }) =>
      spans
        .filter((code) => /^(?:src|test|tools|hooks|etc|docs|systemd|\.ci)\/[\w./-]*$/.test(code))
        .map((code) => ({ path, code })),
    );
    const absent = named.filter(({ code }) => !existsSync(join(repository, code)));
    assert.deepEqual(absent, []);
    assert.ok(named.length > 5);
  });

  it('shows configurations that mdserver takes without a warning', () => {
    const shown = blocksOf('ini');
    assert.deepEqual(
      shown.map((text) => configFrom(text).warnings),
      shown.map(() => []),
    );
    assert.ok(shown.length > 3);
  });

  it('shows templates that compile', () => {
    const shown = blocksOf('yaml').filter((text) => text.includes('{{'));
    for (const text of shown) compileTemplate(text, 'shown');
    assert.ok(shown.length > 1);
  });

  it('names every field of the control socket, and every metric', () => {
    const answers =
      'InstanceSummary|InstanceDetails|RenderedDocument|AddressReport|BootRecord|DhcpEvent|UserdataAnswer';
    const declared = new RegExp(`^export interface (?:${answers})\\b[\\s\\S]*?^}`, 'gm');
    const source = read('src/control/api.ts') + read('src/boots/boots.ts');
    const fields = (source.match(declared) ?? []).flatMap((text) =>
      [...text.matchAll(/^ +readonly (\w+):/gm)].map(([, name]) => name),
    );
    const metrics = [...read('src/metrics.ts').matchAll(/name: '(mdserver_\w+)'/g)].map(
      ([, name]) => name,
    );
    const absent = (names: readonly (string | undefined)[], page: string) =>
      names.filter((name) => !read(page).includes(`\`${name}\``));
    assert.deepEqual(absent(fields, 'docs/mdserverctl.md'), []);
    assert.deepEqual(absent(metrics, 'docs/monitoring.md'), []);
    assert.ok(fields.length > 30 && metrics.length > 5);
  });

  it('has every case of the benchmark, with its goal, and what CI checks', () => {
    const cases = [...requestCases, ...startCases, ...storeCases];
    const rows = [...read('docs/benchmarks.md').matchAll(/^\| (.+) \|$/gm)].map(([, cells = '']) =>
      cells.split('|').map((cell) => cell.trim()),
    );
    const named = new Set(cases.map(({ name }) => name));
    const ofCases = rows.filter(([name = '']) => named.has(name));
    assert.deepEqual(
      ofCases.filter(({ length }) => length === 6).map(([name, , , , goal]) => [name, goal]),
      cases.map((one) => [one.name, goalOf(one)]),
    );
    const checked = cases.filter(isChecked);
    assert.deepEqual(
      ofCases.filter(({ length }) => length === 2),
      checked.map(({ name, bound = 1 }) => [name, `${Math.round((bound - 1) * 100)} %`]),
    );
    assert.deepEqual(
      Object.keys(recordedRatios().ratios),
      checked.map(({ name }) => name),
    );
  });

  it('quotes messages in the troubleshooting tables as the code has them', () => {
    const files = readdirSync(join(repository, 'src'), { recursive: true, encoding: 'utf8' });
    const source = files.filter((name) => name.endsWith('.ts')).map((name) => read(`src/${name}`));
    const { spans } = pageOf('docs/troubleshooting.md');
    const quoted = spans.filter((code) => code.includes('…'));
    const parts = quoted
      .flatMap((code) => code.split('…'))
      .map((part) => part.replace(/^[\s:;,]+|[\s:;,]+$/g, ''));
    const words = parts.filter((part) => part.length > 3);
    assert.deepEqual(
      words.filter((part) => !source.some((text) => text.includes(part))),
      [],
    );
    assert.ok(words.length > 5);
  });
});

it('nothing in the repository depends on files beside it', (t) => {
  const outside = ['..', 'shared'].join('/');
  const found = spawnSync('git', ['grep', '-lF', outside], { cwd: repository, encoding: 'utf8' });
  if (found.status !== 0 && found.stderr !== '') {
    t.skip('this is no git checkout');
    return;
  }
  assert.equal(found.stdout, '');
});
