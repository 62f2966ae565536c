import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parseListeners } from '../src/dnsmasq/ports.js';
import { temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { checkIn } from './support/ctl.js';
import { eventually } from './support/daemon.js';
import { startDnsmasq } from './support/dnsmasq.js';
import { startDomain, startLibvirt } from './support/libvirt.js';
import { addHost } from './support/netns.js';
import { missing } from './support/parts.js';
import { hostConfiguration, mac, uuid } from './support/samples.js';

const skip = missing('netns', 'dnsmasq');

/** A host on which mdserver runs, and has written dnsmasq's configuration. */
async function hostWith(t: TestContext, dnsmasq = '', host = addHost(t)) {
  const folder = temporaryFolder(t, { 'userdata/': '' });
  const daemon = await startWithControl(
    t,
    folder,
    hostConfiguration(folder, { dnsmasq: `user = root\n${dnsmasq}` }),
    '169.254.169.254',
    host.start,
    /mdserverctl is served/,
  );
  return {
    host,
    daemon,
    folder,
    start: () => startDnsmasq(host.start, folder),
    /** Starts another dnsmasq. Gives its process ID. */
    startOther: async (...options: string[]) => {
      const pidFile = join(folder, 'other.pid');
      const common = ['--conf-file=/dev/null', '--user=root', '--no-resolv', '--no-hosts'];
      const files = [`--pid-file=${pidFile}`, `--log-facility=${join(folder, 'other.log')}`];
      const { pid } = host.start('dnsmasq', [
        ...['--keep-in-foreground', ...common, ...files, ...options],
      ]);
      await eventually('the other dnsmasq runs', () => existsSync(pidFile));
      return pid;
    },
    check: (name: string, path?: string) => checkIn(host, folder, name, path),
    /** Those in the health report. */
    problems: async (): Promise<string[]> => {
      const url = ['--unix-socket', join(folder, 'run/control.sock'), 'http://localhost/health'];
      return JSON.parse((await host.run('curl', ['-s', ...url])).stdout).problems;
    },
  };
}

/** A PATH with a journalctl that prints what the journal has of mdserver-dnsmasq, which no namespace has. */
function journalWith(folder: string, lines: readonly string[]): string {
  const bin = join(folder, 'bin');
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, 'lines'), lines.map((line) => `${line}\n`).join(''));
  const script = `#!/bin/sh\ncase "$*" in *--unit=mdserver-dnsmasq*) cat ${bin}/lines ;; esac\n`;
  writeFileSync(join(bin, 'journalctl'), script, { mode: 0o755 });
  return `${bin}:${process.env['PATH']}`;
}

const mend =
  'stop it, or let it leave br-mds alone (dnsmasq: bind-dynamic and except-interface=br-mds; BIND: listen-on; systemd-resolved: DNSStubListenerExtra)';
const free = ['ok: no other program has the ports of DNS and DHCP on br-mds'];

test('sockets are read from what ss prints', () => {
  const output = `udp UNCONN 0      0      0.0.0.0%br-mds:67  0.0.0.0:* users:(("dnsmasq",pid=14,fd=3),("dnsmasq",pid=15,fd=3))
udp UNCONN 0      0         [::]%br-mds:547    [::]:*
tcp LISTEN 0      4096   127.0.0.53%lo:53    0.0.0.0:* users:(("systemd-resolve",pid=9,fd=1))
tcp LISTEN 0      128    [fe80::1]%br-mds:53      [::]:* users:(("a b",pid=12,fd=3))
tcp LISTEN 0      511                *:80           *:*
`;
  const socket = (protocol: string, address: string, device: string | undefined, port: number) => ({
    ...{ protocol, address, device, port },
  });
  assert.deepEqual(parseListeners(output), [
    { ...socket('udp', '0.0.0.0', 'br-mds', 67), owner: { program: 'dnsmasq', pid: 14 } },
    { ...socket('udp', '::', 'br-mds', 547), owner: undefined },
    { ...socket('tcp', '127.0.0.53', 'lo', 53), owner: { program: 'systemd-resolve', pid: 9 } },
    { ...socket('tcp', 'fe80::1', 'br-mds', 53), owner: { program: 'a b', pid: 12 } },
    { ...socket('tcp', '*', undefined, 80), owner: undefined },
  ]);
});

for (const setting of ['', 'listen_address = 10.122.0.1']) {
  test(`DNS and DHCP of other interfaces, as those of libvirt, do no harm, and check knows (${setting || 'no listen_address'})`, {
    skip,
  }, async (t) => {
    const { host, start, startOther, check } = await hostWith(t, setting);
    host.ip('link add virbr0 type bridge');
    host.ip('address add 192.168.122.1/24 dev virbr0');
    host.ip('link set virbr0 up');
    await startOther(
      ...['--bind-dynamic', '--interface=virbr0', '--except-interface=lo'],
      '--dhcp-range=192.168.122.2,192.168.122.9',
    );
    // Whoever starts first.
    assert.deepEqual(await check('ports'), free);
    await start();
    assert.deepEqual(await check('ports'), free);
  });
}

test("check names who has port 53 on the bridge, so that mdserver's dnsmasq cannot start", {
  skip,
}, async (t) => {
  const { start, startOther, check } = await hostWith(t);
  const pid = await startOther();
  await assert.rejects(start(), /failed to create listening socket for .*: Address already in use/);
  assert.deepEqual(await check('ports'), [
    `failure: dnsmasq (process ${pid}) has port 53 of 0.0.0.0 (udp, tcp), which mdserver's dnsmasq needs: ${mend}`,
  ]);
});

test('a dnsmasq whose port 53 is taken does no harm to mdserver, which says who is to blame, until it is mended', {
  skip: missing('netns', 'dnsmasq', 'curl'),
}, async (t) => {
  const { daemon, folder, start, startOther, check, problems } = await hostWith(t);
  const gone = `dnsmasq is not running (no ${folder}/run/mds.pid); it will read its files when it starts`;
  assert.deepEqual(await problems(), [gone]);
  for (const address of ['0.0.0.0', '10.122.0.1', '169.254.169.254']) {
    const options =
      address === '0.0.0.0' ? [] : [`--listen-address=${address}`, '--bind-interfaces'];
    const pid = await startOther(...options, '--except-interface=lo');
    await assert.rejects(
      start(),
      /failed to create listening socket for .*: Address already in use/,
    );
    assert.deepEqual(await problems(), [
      `${gone}; another program has port 53 of ${address} (udp, tcp), which mdserver's dnsmasq needs: 'mdserverctl check' names it`,
    ]);
    const said = await check(
      'dnsmasq',
      journalWith(folder, [
        'Started mdserver-dnsmasq.service.',
        'dnsmasq: failed to create listening socket for 10.122.0.1: Address already in use',
        'mdserver-dnsmasq.service: Main process exited, code=exited, status=2/INVALIDARGUMENT',
      ]),
    );
    assert.equal(
      said.at(-1),
      `failure: ${gone}; it ended with: failed to create listening socket for 10.122.0.1: Address already in use: systemctl restart mdserver-dnsmasq`,
    );
    process.kill(Number(pid), 'SIGKILL');
    await eventually('it is gone', async () => (await problems())[0] === gone);
    rmSync(join(folder, 'other.pid'));
  }
  await start();
  assert.deepEqual(await problems(), []);
  assert.equal(daemon.process.exitCode, null);
});

test("check names another DHCP server on the bridge, beside mdserver's dnsmasq", {
  skip,
}, async (t) => {
  const { start, startOther, check } = await hostWith(t);
  await start();
  const pid = await startOther(
    ...['--port=0', '--bind-dynamic', '--interface=br-mds', '--dhcp-range=10.122.0.2,10.122.0.9'],
  );
  assert.deepEqual(await check('ports'), [
    `failure: dnsmasq (process ${pid}) has port 67 of 0.0.0.0 (udp), which mdserver's dnsmasq needs: ${mend}`,
  ]);
});

test("check names a DHCP server of all interfaces where mdserver's dnsmasq is not there", {
  skip,
}, async (t) => {
  const { host, start, startOther, check } = await hostWith(t, 'net_address6 = fd00:122::');
  host.ip('address add fd00:122::1/64 dev br-mds nodad');
  const pid = await startOther(
    ...['--port=0', '--dhcp-range=10.122.0.2,10.122.0.9'],
    '--dhcp-range=fd00:122::2,fd00:122::9',
  );
  await assert.rejects(start(), /failed to bind DHCP server socket: Address already in use/);
  assert.deepEqual(await check('ports'), [
    `warning: dnsmasq (process ${pid}) has port 67 of 0.0.0.0 (udp), port 547 of :: (udp): mdserver's dnsmasq may not start beside it: ${mend}`,
  ]);
});

test('the health report says that a DHCP server of all interfaces is in the way, but not that those of other bridges are', {
  skip: missing('netns', 'dnsmasq', 'curl'),
}, async (t) => {
  const { host, folder, start, startOther, check, problems } = await hostWith(t);
  const gone = `dnsmasq is not running (no ${folder}/run/mds.pid); it will read its files when it starts`;
  host.ip('link add virbr0 type bridge');
  host.ip('address add 192.168.122.1/24 dev virbr0');
  host.ip('link set virbr0 up');
  const libvirts = await startOther(
    ...['--bind-dynamic', '--interface=virbr0', '--except-interface=lo'],
    '--dhcp-range=192.168.122.2,192.168.122.9',
  );
  assert.deepEqual(await problems(), [gone]);
  process.kill(Number(libvirts), 'SIGKILL');
  rmSync(join(folder, 'other.pid'));

  const pid = await startOther('--port=0', '--dhcp-range=10.122.0.2,10.122.0.9');
  await assert.rejects(start(), /failed to bind DHCP server socket: Address already in use/);
  const text = "has port 67 of 0.0.0.0 (udp): mdserver's dnsmasq may not start beside it";
  assert.deepEqual(await problems(), [
    `${gone}; another program ${text}: 'mdserverctl check' names it`,
  ]);
  assert.deepEqual(await check('ports'), [`warning: dnsmasq (process ${pid}) ${text}: ${mend}`]);
});

test("check names the program that answers in mdserver's place, whether mdserver runs or not", {
  skip,
}, async (t) => {
  const host = addHost(t);
  host.ip('address delete 169.254.169.254/32 dev br-mds');
  const code = `require('http').createServer().listen(80, '0.0.0.0', () => console.log('ready'))`;
  const other = host.start(process.execPath, ['-e', code]);
  if (other.stdout !== null) await once(other.stdout, 'data');
  const { daemon, check } = await hostWith(t, '', host);
  assert.deepEqual(await check('address'), [
    "failure: no interface has the address 169.254.169.254; mdserver serves it as soon as one has: is it in the network (virsh net-edit mds: <ip address='169.254.169.254' prefix='32'/>)? See mdserver.listen_address",
  ]);
  host.ip('address add 169.254.169.254/32 dev br-mds');
  await daemon.printed('another program uses this address and port');
  const expected = [
    `failure: node (process ${other.pid}) answers on http://169.254.169.254: stop it, or set mdserver.port`,
  ];
  assert.deepEqual(await check('address'), expected);
  await daemon.stop();
  assert.deepEqual(await check('address'), expected);
});

test('check: without iproute2, it says what it cannot see, and goes on', { skip }, async (t) => {
  const { check } = await hostWith(t);
  const nowhere = '/nowhere';
  assert.deepEqual(await check('ports', nowhere), [
    'warning: not checked: which programs have the ports of DNS and DHCP: install iproute2',
  ]);
  assert.deepEqual((await check('network', nowhere)).slice(-1), [
    'warning: cannot ask for the addresses of br-mds: install iproute2',
  ]);
  assert.deepEqual(await check('address', nowhere), ['ok: http://169.254.169.254 is served']);
});

test('check: addresses outside of the bridge get nothing from dnsmasq', { skip }, async (t) => {
  const { host, check } = await hostWith(t);
  host.ip('address delete 10.122.0.1/16 dev br-mds');
  host.ip('address add 10.122.0.1/24 dev br-mds');
  assert.deepEqual((await check('network')).slice(-1), [
    "failure: br-mds has 10.122.0.1/24, so dnsmasq gives no address outside of it, but instances get theirs from 10.122.0.0/16 (dnsmasq.net_address and net_prefix): change one of them to match the other (virsh net-edit mds: <ip address='10.122.0.1' prefix='16'>)",
  ]);
});

test('a real libvirt: check says when libvirt runs a dnsmasq of its own on the bridge, and its mend works', {
  skip: missing('root', 'libvirtd', 'qemu', 'virsh', 'unshare'),
}, async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'mdserver.conf'), hostConfiguration(folder));
  const libvirt = await startLibvirt(t);
  const { virsh } = libvirt;
  const interfaces = `<interface type='network'><mac address='${mac(1)}'/><source network='mds'/></interface>`;
  await startDomain(libvirt, folder, { name: 'web1', uuid: uuid(1), interfaces });
  const check = (name: string) => checkIn(libvirt, folder, name);
  const define = async (xml: string) => {
    writeFileSync(join(folder, 'network.xml'), xml);
    await virsh('net-define', join(folder, 'network.xml'));
  };
  const right = await virsh('net-dumpxml', '--inactive', 'mds');
  const active = ["ok: libvirt's network mds is active on br-mds"];
  const autostart = `warning: libvirt's network mds does not start with the host: virsh net-autostart mds`;
  const address = 'ok: br-mds has the address 10.122.0.1';
  assert.deepEqual(await check('network'), [...active, autostart, address]);

  const range = "<dhcp><range start='10.122.0.2' end='10.122.0.9'/></dhcp>";
  await define(
    right
      .replace(/<dns enable='no'\/>/, '')
      .replace(/(<ip address='10[^>]*>)/, `$1${range}`)
      .replace(
        '<forward',
        "<metadata><a:dns xmlns:a='urn:a'>&lt;dns enable='no'/></a:dns></metadata><forward",
      ),
  );
  const edit = "virsh net-edit mds (remove <dhcp>, add <dns enable='no'/>)";
  const restart =
    'virsh net-destroy mds; virsh net-start mds; systemctl restart libvirtd (or virtqemud), which connects running guests again';
  const takes = "which takes DHCP or DNS from mdserver's";
  assert.deepEqual(await check('network'), [
    ...active,
    autostart,
    `warning: when the network mds starts, libvirt starts a dnsmasq of its own, ${takes}: ${edit}`,
    address,
  ]);
  await virsh('net-destroy', 'mds');
  await virsh('net-start', 'mds');
  const own = `failure: libvirt runs a dnsmasq of its own for the network mds, ${takes}`;
  assert.deepEqual(await check('network'), [
    ...active,
    autostart,
    `${own}: ${edit}, then ${restart}`,
    address,
  ]);
  const [ports] = await check('ports');
  assert.match(
    ports ?? '',
    /^failure: libvirt's dnsmasq of the network mds \(process \d+\) has port 53 of 169\.254\.169\.254 \(udp, tcp\), port 53 of 10\.122\.0\.1 \(udp, tcp\), port 67 of 0\.0\.0\.0 \(udp\), which mdserver's dnsmasq needs: virsh net-edit mds /,
  );

  await define(right);
  assert.deepEqual(await check('network'), [...active, autostart, `${own}: ${restart}`, address]);
  await virsh('net-destroy', 'mds');
  await virsh('net-start', 'mds');
  assert.deepEqual(await check('network'), [...active, autostart, address]);
  assert.deepEqual(await check('ports'), [
    'ok: no other program has the ports of DNS and DHCP on br-mds',
  ]);
  const onBridge = async () =>
    (await libvirt.run('ip', ['-brief', 'link', 'show', 'master', 'br-mds'])).stdout;
  assert.equal(await onBridge(), '');
  await libvirt.restart();
  await eventually('the guest is connected again', async () => /^vnet/.test(await onBridge()));
});
