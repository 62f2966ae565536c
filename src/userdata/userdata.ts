import { isUtf8 } from 'node:buffer';
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import type { Config } from '../config/options.js';
import {
  type Candidates,
  cachedDirectoryEntries,
  candidatesOf,
  configuredFile,
  type FileVersion,
  fileError,
  findUserdata,
  hasCode,
  isSettled,
  type SourceFile,
  sameVersion,
  UserdataError,
  type UserdataSource,
} from './find.js';
import {
  builtInTemplate,
  compileTemplate,
  quotingFunctions,
  type Template,
  type TemplateData,
  TemplateError,
  type TemplateInstance,
  templateData,
} from './template.js';

/** The part of the configuration that user-data depends on. */
export type UserdataConfig = Pick<Config, 'publicKeys' | 'templateData'> & {
  readonly mdserver: Pick<
    Config['mdserver'],
    'userdata_dir' | 'userdata_suffixes' | 'default_template' | 'password' | 'vendor_data'
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
}

/** Rendered user-data or vendor-data. */
export interface Rendering {
  readonly body: string | Buffer;
  /** The path of its template; null for the built-in one. */
  readonly file: string | null;
}

/** Renders user-data and vendor-data. Throws TemplateError and UserdataError, which are already logged. */
export interface Userdata {
  /** A function that renders the user-data of an instance; undefined if it has none. */
  readonly userdata: (instance: TemplateInstance) => (() => Rendering) | undefined;
  /** Renders the vendor-data of an instance; empty if none is configured. */
  readonly vendorData: (instance: TemplateInstance) => Rendering;
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

/** Makes the text of a file. */
type Renderer = ((data: TemplateData) => string | Buffer) & Pick<Template, 'isPure'>;

interface CacheEntry extends FileSnapshot {
  readonly render: Renderer;
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

/** cloud-init's own templates: cloud-init replaces their double braces in the guest. */
const guestTemplate = /^## template: *jinja/i;

/** Renders text as a template, and anything else unchanged. */
function renderer(bytes: Buffer, path: string): Renderer {
  if (!isUtf8(bytes) || guestTemplate.test(bytes.toString('latin1', 0, 40))) return () => bytes;
  try {
    if (bytes.length > maxTextLength) {
      const problem = `is too long: ${bytes.length} bytes, the limit for text is ${maxTextLength}`;
      throw new UserdataError(path, problem);
    }
    return compileTemplate(bytes.toString('utf8'), path);
  } catch (error) {
    return () => {
      throw error;
    };
  }
}

/**
 * Returns a function that returns a file's renderer and caches it, so that an unchanged file is neither
 * read nor compiled again. It returns undefined for a file that is gone.
 */
function cachedRenderers(): (file: SourceFile) => Renderer | undefined {
  const cache = new Map<string, CacheEntry>();
  let cachedBytes = 0;

  function evict(path: string): void {
    cachedBytes -= cache.get(path)?.bytes.length ?? 0;
    cache.delete(path);
  }

  return (file) => {
    const cached = cache.get(file.path);
    if (cached?.settled && sameVersion(cached.version, file.version)) return cached.render;
    evict(file.path);
    const snapshot = readFile(file);
    if (snapshot === undefined) return undefined;
    const same = cached?.bytes.equals(snapshot.bytes);
    const render = same ? cached?.render : undefined;
    const entry = { ...snapshot, render: render ?? renderer(snapshot.bytes, file.path) };
    cache.set(file.path, entry);
    cachedBytes += snapshot.bytes.length;
    for (const path of cache.keys()) {
      if (path === file.path) break;
      if (cache.size <= maxCachedFiles && cachedBytes <= maxCachedBytes) break;
      evict(path);
    }
    return entry.render;
  };
}

/** What came of a rendering. */
interface KeptRendering {
  readonly instance: TemplateInstance;
  readonly render: Renderer;
  readonly outcome: string | Buffer | TemplateError;
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
 * document at a time; `data` makes what the template gets.
 */
function keptRenderings(
  now: () => number,
): (
  key: string,
  instance: TemplateInstance,
  render: Renderer,
  data: () => TemplateData,
) => KeptRendering {
  const kept = new Map<string, KeptRendering>();
  let keptLength = 0;

  function forget(key: string): void {
    keptLength -= kept.get(key)?.length ?? 0;
    kept.delete(key);
  }

  return (key, instance, render, data) => {
    const before = kept.get(key);
    const isSame = before?.instance === instance && before.render === render;
    if (isSame && (before.until === Number.POSITIVE_INFINITY || now() < before.until))
      return before;
    forget(key);
    const started = now();
    let outcome: KeptRendering['outcome'];
    try {
      const text = render(data());
      const isLong = typeof text === 'string' && text.length > longText;
      outcome = isLong ? Buffer.from(text) : text;
    } catch (error) {
      if (!(error instanceof TemplateError)) throw error;
      outcome = error;
    }
    const ended = now();
    const took = ended - started;
    const until = render.isPure ? Number.POSITIVE_INFINITY : ended + keptTimes * took;
    const length = outcome instanceof TemplateError ? outcome.message.length : outcome.length;
    const made = { instance, render, outcome, length, until };
    if (!render.isPure && took < shortTime) return made;
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

/** The data for an instance's template, with what the configuration has for templates. */
export function dataOf(
  { publicKeys, templateData: values, mdserver }: UserdataConfig,
  instance: TemplateInstance,
): TemplateData {
  const settings = { publicKeys, templateData: values, password: mdserver.password };
  return templateData(settings, instance);
}

/** The documents that are rendered. */
type Document = 'user-data' | 'vendor-data';

/** The inputs of rendering that do not depend on the template. */
interface RenderInputs {
  readonly candidates: Candidates;
  readonly data: TemplateData;
  /** What each document is called in messages, and kept as. */
  readonly names: Readonly<Record<Document, string>>;
}

const builtIn = compileTemplate(builtInTemplate, 'the built-in template');

/** Creates the renderer of user-data and vendor-data. An error in a file is logged once until the file changes. */
export function createUserdata({
  config,
  log,
  keepCopy,
  now = () => performance.now(),
}: UserdataOptions): Userdata {
  let current: UserdataConfig | undefined;
  let rendererOf = cachedRenderers();
  let logOnce = onceLogger();
  let entriesOf = cachedDirectoryEntries();
  // Instances are immutable: an update is a new key.
  let inputs = new WeakMap<TemplateInstance, RenderInputs>();
  let rendered = keptRenderings(now);
  const copies = new WeakMap<TemplateInstance, string | Buffer>();

  function inputsOf(instance: TemplateInstance, settings: UserdataConfig): RenderInputs {
    const cached = inputs.get(instance);
    if (cached !== undefined) return cached;
    const { mdserver } = settings;
    const location = {
      directory: mdserver.userdata_dir,
      suffixes: mdserver.userdata_suffixes,
      defaultTemplate: mdserver.default_template,
    };
    const { name, mac, metadata } = instance;
    const made = {
      candidates: candidatesOf(location, { name, mac, prefix: userdataPrefix(metadata) }),
      data: dataOf(settings, instance),
      names: { 'user-data': `user-data of ${name}`, 'vendor-data': `vendor-data of ${name}` },
    };
    inputs.set(instance, made);
    return made;
  }

  function findSource(instance: TemplateInstance, settings: UserdataConfig): UserdataSource {
    const entries = entriesOf(settings.mdserver.userdata_dir);
    const { source, warnings } = findUserdata(inputsOf(instance, settings).candidates, entries);
    for (const line of warnings) logOnce(undefined, line, (text) => log.warn(text));
    return source;
  }

  /** Whether an instance with a prefix has a file. */
  function hasFile(instance: TemplateInstance, settings: UserdataConfig): boolean {
    try {
      return findSource(instance, settings) !== 'none';
    } catch (error) {
      // There is a file; renderSource() gets the same error and reports it.
      if (error instanceof UserdataError) return true;
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
    let version: FileVersion | undefined;
    try {
      const inputs = inputsOf(instance, settings);
      const name = inputs.names[document];
      const data = (): TemplateData => Object.create(inputs.data);
      for (let attempt = 1; attempt <= 2; attempt += 1) {
        const found = look();
        if (found === 'none') break;
        if (found === 'built-in') {
          // [template-data] may have hidden the functions, which the built-in template needs.
          return { body: builtIn(Object.assign(data(), quotingFunctions)), file: null };
        }
        version = found.version;
        const render = rendererOf(found);
        if (render === undefined) continue;
        const { outcome } = rendered(name, instance, render, data);
        if (outcome instanceof TemplateError) throw outcome;
        return { body: outcome, file: found.path };
      }
      throw new UserdataError(name, 'disappeared while it was read');
    } catch (error) {
      if (error instanceof TemplateError || error instanceof UserdataError) {
        logOnce(version, error.message, (text) => log.error(text));
      }
      throw error;
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
    }
    return settings;
  }

  return {
    userdata(instance) {
      const settings = currentConfig();
      // Without a prefix there always is user-data, so a metadata listing need not look at files.
      const prefixed = userdataPrefix(instance.metadata) !== undefined;
      if (prefixed && !hasFile(instance, settings)) return undefined;
      return () => {
        const look = () => findSource(instance, settings);
        const found = renderSource('user-data', instance, settings, look);
        if (copies.get(instance) !== found.body) keepCopy?.(instance.name, found.body);
        copies.set(instance, found.body);
        return found;
      };
    },
    vendorData(instance) {
      const settings = currentConfig();
      const { vendor_data: path } = settings.mdserver;
      if (path === undefined) return { body: '', file: null };
      return renderSource('vendor-data', instance, settings, () =>
        configuredFile(path, 'mdserver.vendor_data'),
      );
    },
  };
}

/** Undefined if it is missing or empty. */
function userdataPrefix(metadata: TemplateInstance['metadata']): string | undefined {
  const prefix = Object.hasOwn(metadata, 'userdata_prefix') ? metadata['userdata_prefix'] : '';
  return prefix === '' ? undefined : prefix;
}
