import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { Daemon } from './support/daemon.js';
import { databaseRecord } from './support/samples.js';
import { startSite } from './support/site.js';

const server = '127.143.0.1';
const guestAddress = '127.143.0.11';

/** A daemon on loopback with one instance, "guest", whose user-data is in a file of its name. */
async function serveUserdata(t: TestContext): Promise<{ daemon: Daemon; file: string }> {
  const record = databaseRecord(1, { domain_name: 'guest', mds_ipv4: guestAddress });
  const { daemon, folder } = await startSite(t, server, { records: [record] });
  return { daemon, file: join(folder, 'userdata/guest') };
}

const script = '#!/bin/sh\necho "$HOME $x {y} \\"q\\" `id` \\\\ $((1+1))" \t \n\n';
const mime = [
  'Content-Type: multipart/mixed; boundary="==BOUNDARY=="',
  'MIME-Version: 1.0',
  '',
  '--==BOUNDARY==',
  'Content-Type: text/x-shellscript; charset="utf-8"',
  'Content-Transfer-Encoding: base64',
  '',
  Buffer.from(script).toString('base64'),
  '--==BOUNDARY==',
  'Content-Type: text/cloud-config',
  '',
  '#cloud-config',
  'runcmd: [ [ sh, -c, "echo % {% x %} {# y #}" ] ]',
  '--==BOUNDARY==--',
  '',
].join('\r\n');

const payloads: Record<string, string | Buffer> = {
  gzip: gzipSync(mime),
  'MIME multipart with CRLF': mime,
  'a script': script,
  'a script with no newline at its end': script.trimEnd(),
  '#include': '#include\nhttp://example.net/a?x={y}&z=%20\n# comment\nhttp://example.net/b\n',
  '#include-once, #cloud-boothook, #part-handler in CR alone': '#include-once\r#cloud-boothook\r',
  '## template: jinja':
    '## template: jinja\r\n#cloud-config\n{% if v1.x %}\na: {{ v1.y | default("{}") }}\n{% endif %}{# {{ #}\n',
  'blocks and comments of jinja in other files':
    '#cloud-config\n# {% if x %} {# y #} %wheel\n%wheel ALL\n',
  '1 MB of text': '#cloud-config\n# '.concat('0123456789abcdef {x} }} % $y \\\n'.repeat(32768)),
  '1 MB of bytes': Buffer.concat([Buffer.from([0x80]), randomBytes(1024 * 1024)]),
  'NUL and control characters': 'a\0b\x01\x1b[0m\x7f\n',
  'a byte-order mark': '\ufeff#cloud-config\n',
  'UTF-8 of all lengths': 'ä☃😀\u2028\u0085\ufffe\n',
  'Latin-1': Buffer.from('gr\xfc\xdfe {{ name }}\n', 'latin1'),
  'UTF-16': Buffer.from('\ufeff#ps1_sysnative\r\n', 'utf16le'),
  nothing: '',
};

/** What the guest gets: text has LF alone, as from Python; a template of the guest's and bytes stay. */
function served(content: string | Buffer): Buffer {
  if (typeof content !== 'string' || content.startsWith('## template')) return Buffer.from(content);
  return Buffer.from(content.replace(/\r\n?/g, '\n'));
}

test('user-data arrives byte for byte but for the line ends of text, by each of the three ways', async (t) => {
  const { daemon, file } = await serveUserdata(t);
  for (const [name, content] of Object.entries(payloads)) {
    await t.test(name, async () => {
      const expected = served(content);
      writeFileSync(file, content);
      for (const path of [
        '/latest/user-data',
        '/nocloud/user-data',
        '/openstack/latest/user_data',
      ]) {
        const { status, headers, body } = await daemon.ask(path, {
          from: guestAddress,
          headers: { 'accept-encoding': 'gzip, br', range: 'bytes=1-2' },
        });
        assert.equal(status, 200, `${name} ${path}`);
        // Not assert.deepEqual: it would print a megabyte.
        assert.ok(body.equals(expected), `${name} ${path}: ${body.length} of ${expected.length}`);
        assert.equal(headers['content-length'], String(expected.length));
        assert.equal(headers['content-type'], 'application/octet-stream');
        assert.equal(headers['content-encoding'], undefined);
      }
    });
  }
});

test('double braces are the guest’s in a jinja template, ours elsewhere, and there is a way to have both', async (t) => {
  const { daemon, file } = await serveUserdata(t);
  const get = async (content: string) => {
    writeFileSync(file, content);
    const { status, text } = await daemon.ask('/latest/user-data', { from: guestAddress });
    return { status, text };
  };
  const other = '#cloud-config\nhostname: {{ v1.local_hostname }}\n';
  assert.deepEqual(await get(other), { status: 500, text: 'internal error, see the log\n' });
  await daemon.printed(`${file}:2: unknown name "v1" in {{v1.local_hostname}}: `);

  const jinja = '## template: jinja\n#cloud-config\nhostname: {{ v1.local_hostname }}\n';
  assert.deepEqual(await get(jinja), { status: 200, text: jinja });

  // A first line that we print makes the file ours; braces for the guest are printed, too.
  const both = `{{'## template: jinja'}}
#cloud-config
hostname: {{'{{'}} v1.local_hostname }}
name: {{hostname}}
`;
  assert.deepEqual(await get(both), { status: 200, text: `${jinja}name: guest\n` });
});
