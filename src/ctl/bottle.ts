import type { PythonValue } from '../bottle/convert.js';
import { runProgram } from './programs.js';

/** What Python gave to templates, by name. */
export type PythonNames = ReadonlyMap<string, PythonValue>;

/** Templates for the host's Bottle. */
export interface BottleJob {
  /** The folders in which Bottle looks for what a template includes. */
  readonly folders: readonly string[];
  readonly names: readonly PythonNames[];
  /** Each is rendered once; `names` is the number of its names above. */
  readonly renderings: readonly { readonly template: string; readonly names: number }[];
}

/** The text that Bottle gives, or its error in one line. */
export type BottleAnswer = { readonly output: string } | { readonly error: string };

/** Debian's Python: another one has none of Debian's modules. */
const python = '/usr/bin/python3';

/**
 * Renders as Python's server does, but for the escaping of HTML, which we do not have: the template read in
 * text mode, and the names as keywords. A template may neither run for long nor fill the memory, and what
 * it prints goes nowhere.
 */
const script = `
import json, os, resource, signal, sys, warnings

warnings.simplefilter("ignore")
try:
    import bottle
except ImportError:
    print("null")
    sys.exit()

class Unescaped(bottle.SimpleTemplate):
    def prepare(self, **settings):
        super().prepare(**{**settings, "escape_func": lambda text: text})

def expired(*_):
    raise TimeoutError("no end after 2 seconds")

def render(template, folders, names):
    text = template.replace("\\r\\n", "\\n").replace("\\r", "\\n")
    # A template may change a dictionary, which the server makes anew for each.
    own = {name: dict(value) if isinstance(value, dict) else value for name, value in names.items()}
    bottle.TEMPLATES.clear()
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        output = bottle.template(
            text, template_adapter=Unescaped, template_lookup=folders, **own
        )
        if len(output) > 4_000_000:
            return {"error": "more than 4,000,000 characters"}
        return {"output": output}
    except BaseException as error:
        lines = str(error).split("\\n")
        return {"error": f"{type(error).__name__}: {lines[0]}"[:1000]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
signal.signal(signal.SIGALRM, expired)
job = json.load(sys.stdin)
answers, sys.stdout, sys.stderr = sys.stdout, open(os.devnull, "w"), open(os.devnull, "w")
rendered = [
    render(one["template"], job["folders"], job["names"][one["names"]])
    for one in job["renderings"]
]
json.dump({"version": bottle.__version__, "answers": rendered}, answers)
answers.flush()
os._exit(0)
`;

/**
 * Renders templates with the host's Bottle, without the escaping of HTML: the answers in the order of the
 * job's renderings, and Bottle's version. Undefined if the host has no Bottle. Throws if that does not end
 * within `seconds`. Templates are code: root must not run this.
 */
export async function renderWithBottle(
  { folders, names, renderings }: BottleJob,
  seconds: number,
): Promise<{ version: string; answers: readonly BottleAnswer[] } | undefined> {
  const job = { folders, renderings, names: names.map((one) => Object.fromEntries(one)) };
  const result = await runProgram(python, ['-c', script], {
    signal: AbortSignal.timeout(seconds * 1000),
    input: JSON.stringify(job),
    // Where Python's server runs, and where no module can be that others have put there.
    cwd: '/',
  });
  if (result === undefined) return undefined;
  if (result.status !== 0) {
    const reason = result.stderr.trim().split('\n').at(-1) || `ended with ${result.status}`;
    throw new Error(`Bottle could not render: ${reason}`);
  }
  return JSON.parse(result.stdout) ?? undefined;
}
