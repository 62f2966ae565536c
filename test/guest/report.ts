let failures = 0;

/** How many steps have failed up to now. */
export function failed(): number {
  return failures;
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

function line(verdict: string, who: string, what: string, milliseconds: number): void {
  const time = seconds(milliseconds).padStart(8);
  process.stdout.write(`${verdict.padEnd(5)}${time}  ${who.padEnd(9)}${what}\n`);
}

/** A line that is no check. */
export function note(who: string, text: string): void {
  process.stdout.write(`${' '.repeat(15)}${who.padEnd(9)}${text}\n`);
}

export function heading(text: string): void {
  process.stdout.write(`\n${text}\n`);
}

/** A failure that is no step's own. */
export function failure(who: string, error: unknown): void {
  failures += 1;
  line('FAIL', who, (error as Error).message, 0);
}

/**
 * Does a step and prints whether it went well, and how long it took; text that it gives is
 * printed with it. What a later step needs is not there after a failure: gives undefined then.
 */
export async function step<Result>(
  who: string,
  what: string,
  action: () => Result | Promise<Result>,
): Promise<Result | undefined> {
  const started = Date.now();
  try {
    const result = await action();
    const told = typeof result === 'string' ? `: ${result}` : '';
    line('ok', who, what + told, Date.now() - started);
    return result;
  } catch (error) {
    failures += 1;
    const { message } = error as Error;
    line('FAIL', who, `${what}: ${message}`, Date.now() - started);
    return undefined;
  }
}
