import { isUtf8 } from 'node:buffer';
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import type { Config } from '../config/options.js';
import {
  type Candidates,
  candidatesOf,
  configuredFile,
  directoryEntries,
  type FileVersion,
  type Found,
  type FoundFile,
  fileError,
  findUserdata,
  isCode,
  isSettled,
  sameVersion,
  UserdataError,
} from './find.js';
import {
  builtInTemplate,
  compileTemplate,
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

export interface UserdataOptions {
  /** The configuration in force; a new one has every file read again. */
  readonly config: () => UserdataConfig;
  readonly log: Record<'error' | 'warn', (message: string) => void>;
  /** Is given each user-data that was made (mdserver.debug_userdata). */
  readonly keepCopy?: (instanceName: string, body: string | Buffer) => void;
}

/** What was made for an instance, and the file that it was made from: null for the built-in one. */
export interface Rendered {
  readonly body: string | Buffer;
  readonly file: string | null;
}

/** What throws here throws TemplateError and UserdataError, which are in the log by then. */
export interface Userdata {
  /** Makes an instance's user-data when what it gives is called; undefined where there is none. */
  readonly userdata: (instance: TemplateInstance) => (() => Rendered) | undefined;
  /** Makes an instance's vendor data: empty where none is configured. */
  readonly vendorData: (instance: TemplateInstance) => Rendered;
}

/** EC2 itself takes 16 KiB. In bytes. */
const longestText = 4 * 1024 * 1024;
const longestFile = 16 * 1024 * 1024;

const mostKept = 1000;
const mostKeptBytes = 64 * 1024 * 1024;
const mostReported = 1000;

/** A file in the state in which it was read. */
interface Content {
  readonly bytes: Buffer;
  readonly version: FileVersion;
  /** The file was old enough for a later change to show in its version. */
  readonly settled: boolean;
}

/** A file's content, ready to be served. */
interface Kept extends Content {
  readonly render: (data: TemplateData) => string | Buffer;
}

/** The file's content, or undefined where it is gone or no regular file any more. */
function readContent({ path, target }: FoundFile): Content | undefined {
  let descriptor: number | undefined;
  try {
    // Had a FIFO taken the file's place, opening it would wait for a writer.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
    descriptor = openSync(target, flags);
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) return undefined;
    if (stats.size > longestFile) {
      throw new UserdataError(path, `has ${stats.size} bytes, ${longestFile} are the most`);
    }
    const settled = isSettled(stats);
    return { bytes: readFileSync(descriptor), version: stats, settled };
  } catch (error) {
    if (isCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ESTALE')) return undefined;
    throw error instanceof UserdataError ? error : fileError(path, error);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** cloud-init's own templates: their double braces are for the guest ("Instance metadata"). */
const guestTemplate = /^## template: *jinja/i;

/** How a content is served: text as a template, anything else as it is. */
function renderer(bytes: Buffer, path: string): Kept['render'] {
  if (!isUtf8(bytes) || guestTemplate.test(bytes.toString('latin1', 0, 40))) return () => bytes;
  try {
    if (bytes.length > longestText) {
      const problem = `has ${bytes.length} bytes, ${longestText} are the most for a text`;
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
 * The files that were served, so that an unchanged one is neither read nor compiled again.
 * Gives undefined for a file that is gone.
 */
function fileRenderers(): (file: FoundFile) => Kept['render'] | undefined {
  const kept = new Map<string, Kept>();
  let keptBytes = 0;

  function forget(path: string): void {
    keptBytes -= kept.get(path)?.bytes.length ?? 0;
    kept.delete(path);
  }

  return (file) => {
    const known = kept.get(file.path);
    if (known?.settled && sameVersion(known.version, file.version)) return known.render;
    forget(file.path);
    const content = readContent(file);
    if (content === undefined) return undefined;
    const same = known?.bytes.equals(content.bytes);
    const render = same ? known?.render : undefined;
    const entry = { ...content, render: render ?? renderer(content.bytes, file.path) };
    kept.set(file.path, entry);
    keptBytes += content.bytes.length;
    for (const path of kept.keys()) {
      if (path === file.path || (kept.size <= mostKept && keptBytes <= mostKeptBytes)) break;
      forget(path);
    }
    return entry.render;
  };
}

/** Logs a line once, or once for each version of the file that it is about. */
function onceEach(): (
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
      if (reported.size <= mostReported) break;
      reported.delete(oldest);
    }
    log(line);
  };
}

/** What an instance's user-data is made with, whatever its template holds. */
interface Prepared {
  readonly candidates: Candidates;
  readonly data: TemplateData;
}

const builtIn = compileTemplate(builtInTemplate, 'the built-in template');

/** The user-data of all instances. What is wrong with a file is logged once until it changes. */
export function createUserdata({ config, log, keepCopy }: UserdataOptions): Userdata {
  let current: UserdataConfig | undefined;
  let fileRenderer = fileRenderers();
  let once = onceEach();
  let entries = directoryEntries();
  // An instance is never changed in place: another state of it is another key.
  let prepared = new WeakMap<TemplateInstance, Prepared>();

  /** What follows from the instance and the configuration alone. */
  function prepare(instance: TemplateInstance, settings: UserdataConfig): Prepared {
    const before = prepared.get(instance);
    if (before !== undefined) return before;
    const { publicKeys, templateData: values, mdserver } = settings;
    const places = {
      directory: mdserver.userdata_dir,
      suffixes: mdserver.userdata_suffixes,
      defaultTemplate: mdserver.default_template,
    };
    const { name, mac, metadata } = instance;
    const parts = { publicKeys, templateData: values, password: mdserver.password };
    const made = {
      candidates: candidatesOf(places, { name, mac, prefix: userdataPrefix(metadata) }),
      data: templateData(parts, instance),
    };
    prepared.set(instance, made);
    return made;
  }

  function find(instance: TemplateInstance, settings: UserdataConfig): Found['what'] {
    const present = entries(settings.mdserver.userdata_dir);
    const { what, refused } = findUserdata(prepare(instance, settings).candidates, present);
    for (const line of refused) once(undefined, line, (text) => log.warn(text));
    return what;
  }

  /** Whether there is a file for the prefix. */
  function exists(instance: TemplateInstance, settings: UserdataConfig): boolean {
    try {
      return find(instance, settings) !== 'none';
    } catch (error) {
      // Something is there: render() meets the same error, and says so.
      if (error instanceof UserdataError) return true;
      throw error;
    }
  }

  /** Makes what `look` finds; a file that goes away between look and read is looked for once more. */
  function render(
    what: string,
    instance: TemplateInstance,
    settings: UserdataConfig,
    look: () => Found['what'],
  ): Rendered {
    let version: FileVersion | undefined;
    try {
      const data: TemplateData = Object.create(prepare(instance, settings).data);
      for (let attempt = 1; attempt <= 2; attempt += 1) {
        const found = look();
        if (found === 'none') break;
        if (found === 'built-in') return { body: builtIn(data), file: null };
        version = found.version;
        const body = fileRenderer(found)?.(data);
        if (body !== undefined) return { body, file: found.path };
      }
      throw new UserdataError(`${what} of ${instance.name}`, 'went away while it was read');
    } catch (error) {
      if (error instanceof TemplateError || error instanceof UserdataError) {
        once(version, error.message, (text) => log.error(text));
      }
      throw error;
    }
  }

  /** The configuration in force; what was kept under another one is forgotten. */
  function settingsNow(): UserdataConfig {
    const settings = config();
    if (settings !== current) {
      current = settings;
      fileRenderer = fileRenderers();
      once = onceEach();
      entries = directoryEntries();
      prepared = new WeakMap();
    }
    return settings;
  }

  return {
    userdata(instance) {
      const settings = settingsNow();
      // With no prefix there is always some: metadata listings cost no look at the files then.
      const prefixed = userdataPrefix(instance.metadata) !== undefined;
      if (prefixed && !exists(instance, settings)) return undefined;
      return () => {
        const look = () => find(instance, settings);
        const rendered = render('user-data', instance, settings, look);
        keepCopy?.(instance.name, rendered.body);
        return rendered;
      };
    },
    vendorData(instance) {
      const settings = settingsNow();
      const { vendor_data: path } = settings.mdserver;
      if (path === undefined) return { body: '', file: null };
      return render('vendor data', instance, settings, () =>
        configuredFile(path, 'mdserver.vendor_data'),
      );
    },
  };
}

/** An empty prefix is none. */
function userdataPrefix(metadata: TemplateInstance['metadata']): string | undefined {
  const prefix = Object.hasOwn(metadata, 'userdata_prefix') ? metadata['userdata_prefix'] : '';
  return prefix === '' ? undefined : prefix;
}
