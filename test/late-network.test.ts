import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { ask, eventually } from './support/daemon.js';
import { runDhclient } from './support/dhclient.js';
import { startDnsmasq } from './support/dnsmasq.js';
import { addHost, type Host } from './support/netns.js';
import { missing } from './support/parts.js';
import { domainXml, hostConfiguration } from './support/samples.js';

const url = 'http://169.254.169.254';

/** The bridge as libvirt makes it. */
function addBridge(host: Host): void {
  host.ip('link add br-mds address 52:54:00:fe:00:01 type bridge');
  for (const address of ['169.254.169.254/32', '10.122.0.1/16']) {
    host.ip(`address add ${address} dev br-mds`);
  }
  host.ip('link set br-mds up');
}

test('mdserver takes uploads before its network is there, and serves guests whenever it is', {
  skip: missing('netns'),
}, async (t) => {
  const host = addHost(t);
  host.ip('link delete br-mds');
  const folder = temporaryFolder(t);
  const socketPath = join(folder, 'run/control.sock');
  const daemon = await startWithControl(
    t,
    folder,
    hostConfiguration(folder),
    '169.254.169.254',
    host.start,
    /mdserverctl is served/,
  );
  const problem = `not serving on ${url}: no interface has this address yet (is its network up? virsh net-start mds; see mdserver.listen_address)`;
  const health = async (): Promise<string[]> =>
    JSON.parse((await ask({ socketPath }, '/health')).text).problems;
  assert.ok((await health()).includes(problem));
  const upload = await ask({ socketPath }, '/instance-upload', {
    method: 'POST',
    body: domainXml(1),
    headers: { accept: 'application/json' },
  });
  const { mds_ipv4 } = JSON.parse(upload.text);

  // More attempts than Node lets listeners pile up.
  await new Promise((resolve) => setTimeout(resolve, 12_000));
  addBridge(host);
  await daemon.printed(`serving on ${url}\n`);
  assert.ok(!(await health()).includes(problem));
  const askGuest = async () => {
    const guest = host.addGuest('52:54:00:00:00:01');
    guest.ip(`address add ${mds_ipv4}/16 dev eth0`);
    guest.ip('route add default via 10.122.0.1');
    let text = '';
    await eventually('the guest is answered', async () => {
      const answer = await guest.run('curl', ['-s', '-m', '2', `${url}/latest/meta-data/hostname`]);
      text = answer.stdout;
      return answer.status === 0;
    });
    guest.remove();
    return text;
  };
  assert.equal(await askGuest(), 'vm1');

  // As virsh net-destroy and net-start do.
  host.ip('link delete br-mds');
  addBridge(host);
  assert.equal(await askGuest(), 'vm1', 'the socket serves on the new bridge');
  const said = daemon.output().split('no interface has this address yet').length - 1;
  assert.equal(said, 1, 'said once');
  assert.doesNotMatch(daemon.output(), /MaxListeners/);
  assert.equal(await daemon.stop(), 0);
});

for (const listen of ['', 'listen_address = 10.122.0.1']) {
  test(`dnsmasq starts before its bridge and serves on it later (${listen || 'no listen_address'}), and the log says when it is gone`, {
    skip: missing('netns', 'dnsmasq', 'dhclient'),
  }, async (t) => {
    const host = addHost(t);
    host.ip('link delete br-mds');
    const folder = temporaryFolder(t);
    const daemon = await startWithControl(
      t,
      folder,
      hostConfiguration(folder, { dnsmasq: `user = root\n${listen}` }),
      '169.254.169.254',
      host.start,
      /mdserverctl is served/,
    );
    const { process: dnsmasq } = await startDnsmasq(host.start, folder);
    const { text } = await ask(
      { socketPath: join(folder, 'run/control.sock') },
      '/instance-upload',
      {
        method: 'POST',
        body: domainXml(1),
        headers: { accept: 'application/json' },
      },
    );
    addBridge(host);
    const guest = host.addGuest('52:54:00:00:00:01');
    const lease = await runDhclient(guest, folder, '-4', { configuration: '' });
    assert.equal(lease?.['ip_address'], JSON.parse(text).mds_ipv4);

    // The daemon looks every five seconds, and has to have seen it.
    await new Promise((resolve) => setTimeout(resolve, 6000));
    dnsmasq.kill('SIGTERM');
    await daemon.printed(/ WARN {2}guests get no addresses and no names: dnsmasq is not running /);
    await startDnsmasq(host.start, folder);
    await daemon.printed(/ INFO {2}dnsmasq is running again\n/);
    assert.equal(await daemon.stop(), 0);
  });
}
