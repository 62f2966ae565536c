/** One line of `mdserverctl check`. */
export interface Finding {
  readonly level: 'ok' | 'warning' | 'failure';
  /** What was checked, in a word or two. */
  readonly check: string;
  readonly text: string;
  /** How to fix it. The name is the key in the JSON output. */
  readonly mend?: string;
}

/** Whether a value from another process is a finding. */
export function isFinding(value: unknown): value is Finding {
  const { level, check, text, mend } = (value ?? {}) as Record<keyof Finding, unknown>;
  return (
    (level === 'ok' || level === 'warning' || level === 'failure') &&
    typeof check === 'string' &&
    /^[a-z-]{1,20}$/.test(check) &&
    typeof text === 'string' &&
    (mend === undefined || typeof mend === 'string')
  );
}

/** Functions that make the findings of one check. */
export interface FindingsOfCheck {
  readonly ok: (text: string) => Finding;
  readonly warning: (text: string, mend?: string) => Finding;
  readonly failure: (text: string, mend?: string) => Finding;
}

/** The functions that make the findings of a check. */
export function findingsOf(check: string): FindingsOfCheck {
  const finding = (level: Finding['level']) => (text: string, mend?: string) => ({
    level,
    check,
    text,
    ...(mend !== undefined && { mend }),
  });
  return { ok: finding('ok'), warning: finding('warning'), failure: finding('failure') };
}

/**
 * Turns an error of the file system into a failure of the check, so that the others still run.
 * `access` is the remedy if a file may not be opened.
 */
export async function* guarded(
  check: string,
  findings: AsyncIterable<Finding> | Iterable<Finding>,
  access = 'run this with sudo',
): AsyncGenerator<Finding> {
  try {
    yield* findings;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (!/^E[A-Z0-9]+$/.test(code ?? '')) throw error;
    yield findingsOf(check).failure(message, code === 'EACCES' ? access : undefined);
  }
}
