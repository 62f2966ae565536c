/** One line of `mdserverctl check`. */
export interface Finding {
  readonly level: 'ok' | 'warning' | 'failure';
  /** What was looked at, in a word or two. */
  readonly check: string;
  readonly text: string;
  /** What to do about it. */
  readonly mend?: string;
}

/** The findings of one check. */
export interface Finder {
  readonly ok: (text: string) => Finding;
  readonly warning: (text: string, mend?: string) => Finding;
  readonly failure: (text: string, mend?: string) => Finding;
}

export function finder(check: string): Finder {
  const bad = (level: Finding['level']) => (text: string, mend?: string) => ({
    level,
    check,
    text,
    ...(mend !== undefined && { mend }),
  });
  return { ok: bad('ok'), warning: bad('warning'), failure: bad('failure') };
}
