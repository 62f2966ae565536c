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

/** What this user may not look at, in a warning. */
export function notChecked(check: string, what: string): Finding {
  return findingsOf(check).warning(`not checked: ${what}`, 'run this with sudo');
}

/** Whether an error of the file system says that this user may not do it. */
export function isDenied(error: unknown): boolean {
  const { code } = (error ?? {}) as NodeJS.ErrnoException;
  return code === 'EACCES' || code === 'EPERM';
}

/**
 * The finding for what may not be opened. `access` is the remedy if this runs as mdserver's user, which
 * has to open it; without it, another user may.
 */
export function denied(check: string, message: string, access: string | undefined): Finding {
  return access === undefined
    ? notChecked(check, message)
    : findingsOf(check).failure(message, access);
}

/**
 * Turns an error of the file system into a finding of the check, so that the others still run: see
 * `denied`.
 */
export async function* guarded(
  check: string,
  findings: AsyncIterable<Finding> | Iterable<Finding>,
  access?: string,
): AsyncGenerator<Finding> {
  try {
    yield* findings;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (!/^E[A-Z0-9]+$/.test(code ?? '')) throw error;
    yield isDenied(error) ? denied(check, message, access) : findingsOf(check).failure(message);
  }
}
