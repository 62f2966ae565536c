/** What a case is to reach: of its ratio, or of its figure in the unit of the case. */
export interface Goal {
  readonly of: 'ratio' | 'figure';
  readonly value: number;
}

/** One line of the table. */
export interface Case {
  readonly name: string;
  readonly unit: 'requests/s' | 'requests per second of CPU' | 'ms' | 'ms of CPU' | 'MB';
  /** What mdserver is compared with. */
  readonly reference: string;
  readonly goal?: Goal;
  /** How many times worse than the recorded one the ratio may be in CI, which checks no others. */
  readonly bound?: number;
}

/** What was measured of a case, in its unit, in the same run. */
export interface Result {
  readonly of: Case;
  readonly mdserver: number;
  readonly reference: number;
}

/** How much is measured. */
export interface Effort {
  /** Of requests to each server, after one to warm it up. */
  readonly rounds: number;
  readonly roundMilliseconds: number;
  /** Of starts, uploads and the like. */
  readonly repeats: number;
  /** Only the cases that CI checks. */
  readonly onlyChecked: boolean;
  /** The one figure of what the same work cost again and again. */
  readonly summary: (costs: readonly number[]) => number;
}

/** mdserver's figure in units of the reference's. */
export function ratioOf({ mdserver, reference }: Result): number {
  return mdserver / reference;
}

/** Whether more is better; it is for requests, and less is for time and memory. */
export function isMoreBetter({ unit }: Case): boolean {
  return unit.startsWith('requests');
}

/** Whether CI checks the case. */
export function isChecked({ bound }: Case): boolean {
  return bound !== undefined;
}

/** Whether the goal is met; undefined without a goal. */
export function isMet(result: Result): boolean | undefined {
  const { goal } = result.of;
  if (goal === undefined) return undefined;
  const value = goal.of === 'ratio' ? ratioOf(result) : result.mdserver;
  return isMoreBetter(result.of) ? value >= goal.value : value <= goal.value;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** The lowest cost: whatever else the machine does only adds to a cost. */
export function lowest(costs: readonly number[]): number {
  return Math.min(...costs);
}
