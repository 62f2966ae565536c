/** The exit statuses of mdserverctl. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  unknownInstance: 4,
} as const;

/** The meanings of the exit statuses, for `--help` and mdserverctl(1). */
export const exitCodeMeanings: readonly (readonly [code: number, meaning: string])[] = [
  [exitCodes.ok, 'Success.'],
  [
    exitCodes.failed,
    'Failure: a check failed, a template has an error, a guest would get nothing, a domain was rejected, or mdserver answered with an error.',
  ],
  [exitCodes.usage, 'The command line is wrong.'],
  [
    exitCodes.unreachable,
    'mdserver is not running, or you may not open the control socket or the configuration.',
  ],
  [exitCodes.unknownInstance, 'There is no such instance.'],
];

/** A command failed: one line that says what went wrong and what to do, and the exit status. */
export class CommandError extends Error {
  override readonly name: string = 'CommandError';

  constructor(
    message: string,
    readonly exitCode: number,
  ) {
    super(message);
  }
}

/** The command line is wrong. */
export class UsageError extends CommandError {
  override readonly name = 'UsageError';

  constructor(message: string) {
    super(message, exitCodes.usage);
  }
}
