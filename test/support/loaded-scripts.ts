import { Session } from 'node:inspector';

/*
 * Loaded into the daemon by `--import`: answers each message with the URLs of all scripts that are
 * loaded.
 */
process.on('message', () => {
  const urls: string[] = [];
  const session = new Session();
  session.connect();
  session.on('Debugger.scriptParsed', ({ params }) => urls.push(params.url));
  // Reports the scripts of before, too.
  session.post('Debugger.enable', () => {
    session.disconnect();
    process.send?.(urls);
  });
});
