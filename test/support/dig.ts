/** Runs a program to its end and gives its standard output. */
type Run = (
  command: string,
  args: readonly string[],
) => Promise<string | { readonly stdout: string }>;

/**
 * Asks a DNS server and gives the answers, a line each. Throws if it does not answer.
 *
 * dig mixes what it has to say with the answers. On a slow machine, the answer to its first try may arrive after
 * its second one, which has another ID ("ID mismatch"): it goes on to wait for the right answer.
 */
export async function dig(run: Run, server: string, ...question: string[]): Promise<string[]> {
  const args = [`@${server}`, '+short', '+tries=2', '+time=10', '-r', ...question];
  const result = await run('dig', args);
  const text = typeof result === 'string' ? result : result.stdout;
  if (/^;; (?:no servers could be reached|connection timed out)/m.test(text)) {
    throw new Error(`dig ${args.join(' ')}: ${text}`);
  }
  return text.split('\n').filter((line) => line !== '' && !line.startsWith(';'));
}
