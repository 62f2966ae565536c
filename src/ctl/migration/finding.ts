/**
 * What becomes of a part of the Python installation. `replaced` is what system-integration.sh puts ours in the
 * place of, or takes away; `differs` works, but not as before; `convert` and `decide` would break.
 */
export type Fate = 'stays' | 'replaced' | 'converted' | 'differs' | 'convert' | 'decide';

/** One line of `mdserverctl migrate`. */
export interface MigrationFinding {
  readonly fate: Fate;
  readonly file: string;
  /** Counted from 1. */
  readonly line?: number;
  readonly text: string;
}
