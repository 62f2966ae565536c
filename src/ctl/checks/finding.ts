/** One line of `mdserverctl check`. */
export interface Finding {
  readonly level: 'ok' | 'warning' | 'failure';
  /** What was checked, in a word or two. */
  readonly check: string;
  readonly text: string;
  /** How to fix it. The name is the key in the JSON output. */
  readonly mend?: string;
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
