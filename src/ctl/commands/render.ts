import { documentNames, type RenderedDocument } from '../../control/api.js';
import { instancePath } from '../client.js';
import { defineCommand } from '../command.js';
import { connect } from '../connection.js';
import { exitCodes, UsageError } from '../errors.js';
import { readInput } from '../input.js';
import { note, printExactly, printJson } from '../output.js';

const names: readonly string[] = documentNames;

/** What libvirt makes for a domain whose XML has none, in words. */
const madeByLibvirt = { uuid: 'uuid', mac: 'MAC address' } as const;

/** The instance's name, undefined with --as-xml, and the document. Throws UsageError. */
function renderOperands(operands: readonly string[], asXml: boolean) {
  const see = 'see mdserverctl render --help';
  if (asXml && operands.length === 2) {
    throw new UsageError(`--as-xml takes the place of NAME; ${see}`);
  }
  const [name, document = 'user-data'] = asXml ? [undefined, ...operands] : operands;
  if (!asXml && name === undefined) throw new UsageError(`render needs a NAME; ${see}`);
  if (!names.includes(document)) {
    throw new UsageError(`"${document}" is not one of ${names.join(', ')}; ${see}`);
  }
  return { name, document };
}

export const render = defineCommand({
  name: 'render',
  usage: ['NAME [DOCUMENT]', '--as-xml FILE [DOCUMENT]'],
  operands: [0, 2],
  completes: ['instance', 'document', 'none'],
  options: {
    'as-xml': {
      argument: 'FILE',
      completes: 'file',
      explanation:
        'Render for the domain XML in FILE ("-" reads standard input), without storing anything.',
    },
  },
  summary: 'Print what a guest would get now.',
  help: [
    `DOCUMENT is one of ${names.join(', ')} (default: user-data). Prints it byte for byte (on a terminal with control and invisible characters escaped), and names its template on standard error. "tree" is everything the guest can ask for.`,
    'A domain XML that libvirt has not seen yet may be without uuid and MAC address: both are made up then. It needs an interface on the network, as without one the guest gets nothing.',
    'An error in a template is shown with its file and line. If an earlier version rendered for the instance, the guest gets what that gives, which is printed. The exit status is 1 in both cases, as when the guest would get nothing (404).',
  ],
  examples: [
    ['mdserverctl render web1', 'its user-data'],
    ['mdserverctl render web1 meta-data', 'its metadata as NoCloud gets it'],
    ['mdserverctl render --as-xml new.xml > user-data', 'for an instance that does not exist yet'],
  ],
  run: async (operands, options) => {
    const file = options['as-xml'];
    const { name = '', document } = renderOperands(operands, file !== undefined);
    const xml = file === undefined ? undefined : readInput(file);
    const control = connect(options);
    const rendered =
      xml === undefined
        ? await control.get<RenderedDocument>(instancePath(name, document))
        : await control.post<RenderedDocument>(`/documents/${document}`, xml);
    const { found, problem, reason, made_up = [] } = rendered;
    const status = found && problem === null ? exitCodes.ok : exitCodes.failed;
    if (options.json) {
      printJson(rendered);
      return status;
    }
    if (made_up.length > 0) {
      const missing = made_up.map((field) => madeByLibvirt[field]).join(' and no ');
      note(`the XML has no ${missing}, which libvirt makes: rendered with made-up ones`);
    }
    if (!found) {
      const why = reason === null ? '' : ` (${reason})`;
      note(`${file ?? name} has no ${document}: it would get a 404${why}`);
      return status;
    }
    if (problem !== null) {
      // Imported here, so that other commands start without it.
      const { lastInForce } = await import('../../userdata/refused.js');
      note(`${problem}; ${lastInForce}`);
    } else if (rendered.file !== null) note(`${document} from ${rendered.file}`);
    else if (document === 'user-data') note('user-data from the built-in template');
    printExactly(Buffer.from(rendered.body, rendered.encoding));
    return status;
  },
});
