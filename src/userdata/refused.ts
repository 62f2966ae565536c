/** The documents that are rendered. */
export type Document = 'user-data' | 'vendor-data';

/** An instance does not get the newest version of its template. */
export interface Refusal {
  readonly document: Document;
  /** The name of the instance. */
  readonly instance: string;
  /** The path of the template. */
  readonly file: string;
  /** What is wrong with its newest version, in one line with file, line and name. */
  readonly problem: string;
  /** Whether it gets the last version that rendered for it; else there is none (500). */
  readonly hasLast: boolean;
}

/** The refusals that have the same problem, by that. */
export function byProblem(refusals: Iterable<Refusal>): Map<string, Refusal[]> {
  const groups = new Map<string, Refusal[]>();
  for (const refusal of refusals) {
    const group = groups.get(refusal.problem);
    if (group === undefined) groups.set(refusal.problem, [refusal]);
    else group.push(refusal);
  }
  return groups;
}

/** The instances as a message names them. */
function instancesText(names: readonly string[]): string {
  const [first = ''] = names;
  return names.length === 1 ? first : `${names.length} instances, such as ${first}`;
}

/** What messages say about an instance whose template is refused. */
export const lastInForce = 'the last version that rendered is in force';

/** More lines help nobody. */
const maxLines = 20;

/** One line for each problem: what is wrong, and what the instances get. */
export function refusalLines(refusals: Iterable<Refusal>): string[] {
  const lines = Array.from(byProblem(refusals), ([problem, group]) => {
    const namesOf = (hasLast: boolean) =>
      group.filter((refusal) => refusal.hasLast === hasLast).map(({ instance }) => instance);
    const [last, none] = [namesOf(true), namesOf(false)];
    const gets = [
      ...(last.length === 0 ? [] : [`${lastInForce} for ${instancesText(last)}`]),
      ...(none.length === 0 ? [] : [`500 for ${instancesText(none)}`]),
    ];
    return [problem, ...gets].join('; ');
  });
  if (lines.length <= maxLines) return lines;
  return [...lines.slice(0, maxLines), `${lines.length - maxLines} more problems with templates`];
}
