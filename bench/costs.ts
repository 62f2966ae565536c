import type { Effort } from './cases.js';

/** Milliseconds, and those of CPU time, that something took. */
export interface Cost {
  readonly milliseconds: number;
  readonly cpu: number;
}

/** Does each of these once, and again, in turn; gives what each costs. */
export async function inTurn<Name extends string>(
  { repeats, summary }: Effort,
  work: Readonly<Record<Name, (repeat: number) => Promise<Cost>>>,
): Promise<Record<Name, Cost>> {
  const names = Object.keys(work) as Name[];
  const costs = names.map(() => [] as Cost[]);
  // The first turn warms up.
  for (let repeat = 0; repeat <= repeats; repeat += 1) {
    for (const [index, name] of names.entries()) {
      const cost = await work[name](repeat);
      if (repeat > 0) costs[index]?.push(cost);
    }
  }
  const summaries = costs.map((all): Cost => {
    return {
      milliseconds: summary(all.map(({ milliseconds }) => milliseconds)),
      cpu: summary(all.map(({ cpu }) => cpu)),
    };
  });
  return Object.fromEntries(names.map((name, index) => [name, summaries[index]])) as Record<
    Name,
    Cost
  >;
}
