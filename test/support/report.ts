let failures = 0;

/** The number of failures so far. */
export function failureCount(): number {
  return failures;
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

function printLine(verdict: string, who: string, what: string, milliseconds: number): void {
  const time = seconds(milliseconds).padStart(8);
  process.stdout.write(`${verdict.padEnd(5)}${time}  ${who.padEnd(9)}${what}\n`);
}

/** Prints a line that is not the result of a step. */
export function note(who: string, text: string): void {
  process.stdout.write(`${' '.repeat(15)}${who.padEnd(9)}${text}\n`);
}

export function heading(text: string): void {
  process.stdout.write(`\n${text}\n`);
}

/** Reports a failure outside any step. */
export function failure(who: string, error: unknown): void {
  failures += 1;
  printLine('FAIL', who, (error as Error).message, 0);
}

/**
 * Runs a step and prints whether it succeeded and how long it took, and its result if that is text.
 * Returns the result; undefined after a failure.
 */
export async function step<Result>(
  who: string,
  what: string,
  action: () => Result | Promise<Result>,
): Promise<Result | undefined> {
  const started = Date.now();
  try {
    const result = await action();
    const detail = typeof result === 'string' ? `: ${result}` : '';
    printLine('ok', who, what + detail, Date.now() - started);
    return result;
  } catch (error) {
    failures += 1;
    const { message } = error as Error;
    printLine('FAIL', who, `${what}: ${message}`, Date.now() - started);
    return undefined;
  }
}

/** Throws unless the two values are equal. */
export function same(what: string, actual: string | undefined, expected: string): void {
  if (actual !== expected)
    throw new Error(`${what} is ${JSON.stringify(actual)}, expected "${expected}"`);
}
