import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isDroppedByUfw, letsIn } from '../src/ctl/checks/firewall.js';
import { droppingChains } from '../src/ctl/checks/nftables.js';
import { temporaryFolder } from './support/cleanup.js';
import { checkIn } from './support/ctl.js';
import { eventually } from './support/daemon.js';
import { startLibvirt } from './support/libvirt.js';
import { missing } from './support/parts.js';
import { hostConfiguration } from './support/samples.js';

const ping = [
  '--system',
  '--print-reply',
  '--dest=org.freedesktop.DBus',
  '/',
  'org.freedesktop.DBus.GetId',
];

/** A host with a real libvirt, and a program that answers in mdserver's place. */
async function hostWith(t: TestContext, settings = {}) {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'mdserver.conf'), hostConfiguration(folder, settings));
  const libvirt = await startLibvirt(t);
  const code = "require('http').createServer((_, r) => r.end('metadata')).listen(80, '0.0.0.0')";
  libvirt.start(process.execPath, ['-e', code]);
  /** Runs what must not fail. */
  const must = async (line: string) => {
    const { status, stderr } = await libvirt.run('sh', ['-ec', line]);
    assert.equal(status, 0, `${line}: ${stderr}`);
  };
  await must(
    `ip netns add guest
    ip link add tap0 type veth peer name eth0 netns guest
    ip link set tap0 master br-mds up
    ip -netns guest address add 10.122.0.9/16 dev eth0
    ip -netns guest link set eth0 up
    ip -netns guest route add 169.254.169.254 via 10.122.0.1`,
  );
  return {
    ...libvirt,
    check: () => checkIn(libvirt, folder, 'firewall'),
    /** What a guest on the bridge gets from port 80; '' if nothing. */
    fetched: async () => {
      const curl = ['-s', '-m', '2', 'http://169.254.169.254/'];
      return (await libvirt.run('ip', ['netns', 'exec', 'guest', 'curl', ...curl])).stdout;
    },
    must,
  };
}

test('a real firewalld: check gives the commands that let guests of libvirt reach mdserver', {
  skip: missing('root', 'libvirtd', 'virsh', 'unshare', 'curl', 'firewalld', 'dbus', 'setpriv'),
}, async (t) => {
  const { start, run, restart, check, must, fetched } = await hostWith(t);
  assert.deepEqual(await check(), []);
  await must('mkdir /run/dbus && mount -t tmpfs tmpfs /etc/firewalld');
  start('dbus-daemon', ['--system', '--nofork', '--nopidfile']);
  await eventually('dbus runs', async () => (await run('dbus-send', [...ping])).status === 0);
  start('firewalld', ['--nofork', '--nopid']);
  await eventually(
    'firewalld runs',
    async () => (await run('firewall-cmd', ['--state'])).status === 0,
  );

  const everything = 'metadata (TCP port 80), DHCP, DNS';
  const rejects = (where: string, what: string, mend: string) => [
    `failure: firewalld (${where}, for br-mds) rejects what guests need: ${what}: ${mend}`,
  ];
  const bothWays = (options: string) =>
    `firewall-cmd ${options}; firewall-cmd --permanent ${options}`;
  assert.deepEqual(
    await check(),
    rejects(
      'zone public',
      everything,
      "the bridge has no zone, so this is the default one: systemctl restart libvirtd (or virtnetworkd), which gives it libvirt's, then look again",
    ),
  );
  await restart();
  const mend = bothWays('--zone=libvirt --add-service=http');
  assert.deepEqual(await check(), rejects('zone libvirt', 'metadata (TCP port 80)', mend));
  assert.equal(await fetched(), '');
  await must(mend);
  const isOpen = [`ok: firewalld (zone libvirt, for br-mds) lets guests reach ${everything}`];
  assert.deepEqual(await check(), isOpen);
  assert.equal(await fetched(), 'metadata');
  await must('firewall-cmd --reload');
  assert.deepEqual(await check(), isOpen);
  assert.equal(await fetched(), 'metadata');

  const again = 'firewall-cmd --permanent --zone=libvirt --add-service=http';
  await must(again.replace('add', 'remove'));
  assert.deepEqual(await check(), [
    `warning: firewalld (zone libvirt, for br-mds) lets guests have metadata (TCP port 80) only until it is reloaded: ${again}`,
  ]);

  // Of a network with <forward mode='route'>: a policy comes before its zone.
  await must('firewall-cmd --zone=libvirt-routed --change-interface=br-mds');
  const routed = bothWays('--policy=libvirt-to-host --add-service=http');
  assert.deepEqual(
    await check(),
    rejects('policy libvirt-to-host', 'metadata (TCP port 80)', routed),
  );
  assert.equal(await fetched(), '');
  await must(routed);
  assert.deepEqual(await check(), [
    `ok: firewalld (policy libvirt-to-host, for br-mds) lets guests reach ${everything}`,
  ]);
  assert.equal(await fetched(), 'metadata');
});

test('a real ufw: check gives the command that lets guests reach mdserver', {
  skip: missing('root', 'libvirtd', 'virsh', 'unshare', 'curl', 'ufw'),
}, async (t) => {
  const { check, must, fetched } = await hostWith(t);
  await must('ufw --force enable');
  const mend = 'ufw allow in on br-mds to any port 80 proto tcp';
  assert.deepEqual(await check(), [
    `warning: ufw drops what guests need: metadata (TCP port 80): ${mend}`,
  ]);
  assert.equal(await fetched(), '');
  await must(mend);
  assert.deepEqual(await check(), ['ok: ufw lets guests reach metadata (TCP port 80)']);
  assert.equal(await fetched(), 'metadata');
});

test('a real nftables: check gives the commands that let guests reach mdserver', {
  skip: missing('root', 'libvirtd', 'virsh', 'unshare', 'curl', 'nft'),
}, async (t) => {
  const { check, must, fetched } = await hostWith(t);
  await must(`nft -f - <<'END'
    table inet own {
      set open { type inet_service; elements = { 22, 8080 }; }
      chain input {
        type filter hook input priority filter; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname vmap { "lo" : accept, "eth0" : jump outside }
        meta l4proto icmp accept
        tcp dport @open accept
        iifname "virbr*" accept
      }
      chain outside { tcp dport 80 accept; udp dport { 53, 67 } accept; }
    }
END`);
  const commands = [
    "nft insert rule inet own input iifname br-mds tcp dport '{ 53, 80 }' accept",
    "nft insert rule inet own input iifname br-mds udp dport '{ 53, 67 }' accept",
  ];
  const drops = (what: string, mend: readonly string[]) => [
    `failure: nftables (chain inet own input) drops what guests need: ${what}: ${mend.join('; ')}; and put these rules where yours are loaded from, such as /etc/nftables.conf`,
  ];
  assert.deepEqual(await check(), drops('metadata (TCP port 80), DHCP, DNS', commands));
  assert.equal(await fetched(), '');
  await must(commands[1] ?? '');
  const http = 'nft insert rule inet own input iifname br-mds tcp dport 80 accept';
  assert.deepEqual(await check(), drops('metadata (TCP port 80)', [http]));
  assert.equal(await fetched(), '');
  await must(http);
  assert.deepEqual(await check(), []);
  assert.equal(await fetched(), 'metadata');
});

test('a real iptables that drops: check gives its own command, and sees that libvirt lets in DHCP and DNS', {
  skip: missing('root', 'libvirtd', 'virsh', 'unshare', 'curl', 'nft'),
}, async (t) => {
  const { check, must, fetched } = await hostWith(t);
  await must('iptables -P INPUT DROP');
  const mend = 'iptables -I INPUT -i br-mds -p tcp -m multiport --dports 80 -j ACCEPT';
  assert.deepEqual(await check(), [
    `failure: nftables (chain ip filter INPUT) drops what guests need: metadata (TCP port 80): ${mend}; and put these rules where yours are loaded from, such as /etc/nftables.conf`,
  ]);
  assert.equal(await fetched(), '');
  await must(mend);
  assert.deepEqual(await check(), []);
  assert.equal(await fetched(), 'metadata');
});

test('nftables: what rules do to a first packet of a guest', {
  skip: missing('root', 'unshare', 'nft'),
}, async (t) => {
  const dropped = [
    { policy: 'drop', rules: '', isDropped: true },
    { policy: 'accept', rules: '', isDropped: false },
    { policy: 'accept', rules: 'drop', isDropped: true },
    {
      policy: 'accept',
      rules: 'iifname "br-mds" tcp dport 0-100 counter log reject',
      isDropped: true,
    },
    { policy: 'accept', rules: 'iifname != "br-mds" drop', isDropped: false },
    { policy: 'accept', rules: 'ip saddr 192.0.2.1 drop', isDropped: false },
    { policy: 'accept', rules: 'ip6 nexthdr tcp drop', isDropped: false },
    { policy: 'accept', rules: 'ct state { established, invalid } drop', isDropped: false },
    { policy: 'accept', rules: 'limit rate 1/second drop', isDropped: false },
    { policy: 'accept', rules: 'goto other; drop', isDropped: false },
    { policy: 'drop', rules: 'jump other; ct state new accept', isDropped: false },
    { policy: 'drop', rules: 'meta l4proto { icmp, tcp } accept', isDropped: false },
    { policy: 'drop', rules: 'ip protocol tcp th dport { 22, 79-81 } accept', isDropped: false },
    { policy: 'drop', rules: 'iifname . tcp dport { "br-mds" . 80 } accept', isDropped: false },
    { policy: 'drop', rules: 'ip saddr 10.122.0.0/16 accept', isDropped: false },
    { policy: 'drop', rules: 'tcp sport 80 accept', isDropped: false },
    { policy: 'drop', rules: 'udp dport 80 accept; tcp dport != 80 accept', isDropped: true },
    { policy: 'drop', rules: 'jump other', isDropped: true },
    { policy: 'drop', rules: 'tcp dport vmap { 22 : accept, 80 : jump open }', isDropped: false },
    {
      policy: 'drop',
      rules: 'ct state established accept; iifname "virbr*" accept',
      isDropped: true,
    },
  ];
  for (const { policy, rules, isDropped } of dropped) {
    await t.test(`policy ${policy}: ${rules}`, () => {
      const ruleset = `table inet own {
        chain open { accept; }
        chain other { tcp dport 22 drop; tcp dport 80 return; drop; }
        chain input { type filter hook input priority 0; policy ${policy}; ${rules}; }
        chain forward { type filter hook forward priority 0; policy drop; }
      }`.replace('; ; }', '; }');
      const script = 'nft -f - && nft --json list ruleset';
      const done = spawnSync('unshare', ['--net', 'sh', '-c', script], {
        encoding: 'utf8',
        input: ruleset,
      });
      assert.equal(done.stderr, '');
      const web = { what: 'metadata', port: 80, protocol: 'tcp' } as const;
      assert.deepEqual(
        droppingChains(done.stdout, 'br-mds', [web]),
        isDropped ? [{ chain: 'inet own input', dropped: [web] }] : [],
      );
    });
  }
});

// ---- what they print ----

const libvirtZone = `libvirt (active)
  target: ACCEPT
  icmp-block-inversion: no
  interfaces: br-mds
  services: dhcp dns
  ports: PORTS
  protocols: icmp
  rich rules: 
\trule priority="32767" reject
`;
const http = { what: '', port: 80, protocol: 'tcp', option: '' } as const;

for (const [change, expected] of [
  [(rules: string) => rules, false],
  [(rules: string) => rules.replace('dhcp', 'web'), true],
  [(rules: string) => rules.replace('PORTS', '80/tcp'), true],
  [(rules: string) => rules.replace('PORTS', '22/tcp 70-90/tcp'), true],
  [(rules: string) => rules.replace('PORTS', '80/udp 8080/tcp'), false],
  [(rules: string) => rules.replace('s: icmp', 's: tcp'), true],
  [(rules: string) => rules.replace(/\trule.*/, ''), true],
  [(rules: string) => rules.replace('ACCEPT', 'default').replace(/\trule.*/, ''), false],
  [(rules: string) => `${rules}\trule port port="80" protocol="tcp" accept\n`, true],
  [(rules: string) => `${rules}\trule port port="81" protocol="tcp" accept\n`, false],
  [(rules: string) => `${rules}\trule service name="web" log prefix="a" accept\n`, true],
  [(rules: string) => `${rules}\trule service name="dns" accept\n`, false],
  [(rules: string) => `${rules}\trule family="ipv4" source address="10.0.0.0/8" accept\n`, true],
  [(rules: string) => `${rules}\trule protocol value="tcp" accept\n`, true],
  [(rules: string) => `${rules}\trule protocol value="esp" accept\n`, false],
] as const) {
  const rules = change(libvirtZone);
  test(`firewalld ${expected ? 'lets in' : 'rejects'} port 80: ${JSON.stringify(rules)}`, () => {
    const services = new Map([
      ['web', ['80/tcp']],
      ['dns', ['53/tcp', '53/udp']],
    ]);
    assert.equal(letsIn(rules, services, http), expected);
  });
}

for (const [row, isDropped] of [
  ['22/tcp                     LIMIT IN    Anywhere', true],
  ['3306                       DENY IN     Anywhere', true],
  ['80/tcp on eth0             ALLOW IN    Anywhere', true],
  ['80/udp                     ALLOW IN    Anywhere', true],
  ['25                         ALLOW OUT   Anywhere', true],
  ['Anywhere                   ALLOW FWD   Anywhere on br-mds', true],
  ['443,8443/tcp               ALLOW IN    Anywhere', true],
  ['80/tcp on br-mds           ALLOW IN    Anywhere', false],
  ['80                         ALLOW IN    10.122.0.0/16', false],
  ['22,70:90/tcp               ALLOW IN    Anywhere', false],
  ['80/tcp (WWW)               ALLOW IN    Anywhere', false],
  ['169.254.169.254 80/tcp     ALLOW IN    Anywhere', false],
  ['Anywhere on br-mds         ALLOW IN    Anywhere', false],
] as const) {
  test(`ufw ${isDropped ? 'drops' : 'lets in'} port 80 with the rule: ${row}`, () => {
    const status = (incoming: string) =>
      `Status: active\nDefault: ${incoming} (incoming), allow (outgoing), disabled (routed)\n\nTo                         Action      From\n--                         ------      ----\n${row}                  \n`;
    assert.equal(isDroppedByUfw(status('deny'), 'br-mds', 80), isDropped);
    assert.equal(isDroppedByUfw(status('allow'), 'br-mds', 80), false);
  });
}
