import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { dhcpLines, dnsmasqLogPath, followDhcpLog, isReadable } from '../src/boots/dhcp-log.js';
import { configFrom } from '../src/config/load.js';
import type { BootRecord, Health, InstanceDetails } from '../src/control/api.js';
import { recentDhcp } from '../src/ctl/dnsmasq-log.js';
import { dhcpSaid, leases6Given } from '../src/dnsmasq/log.js';
import { temporaryFolder } from './support/cleanup.js';
import { program } from './support/ctl.js';
import { eventually } from './support/daemon.js';
import { startDnsmasq } from './support/dnsmasq.js';
import { addHost, type Namespace } from './support/netns.js';
import { missing, python } from './support/parts.js';
import { rowName } from './support/rows.js';
import { databaseRecord } from './support/samples.js';
import { startSite } from './support/site.js';

// ---- the lines ----

/** As dnsmasq 2.90 wrote them to its log-facility, for guests with and without an address. */
const realLines = `\
Nov 23 09:04:13 dnsmasq[21377]: started, version 2.90 cachesize 150
Nov 23 09:04:13 dnsmasq[21377]: warning: no upstream servers configured
Nov 23 09:04:13 dnsmasq-dhcp[21377]: DHCP, static leases only on 10.122.0.1, lease time 1h
Nov 23 09:04:13 dnsmasq-dhcp[21377]: DHCP, sockets bound exclusively to interface br-mds
Nov 23 09:04:13 dnsmasq-dhcp[21377]: read /var/lib/mdserver/dnsmasq/dhcp/mds.dhcp-hosts
Nov 23 09:04:14 dnsmasq-dhcp[21377]: DHCPDISCOVER(br-mds) 52:54:00:00:00:01 
Nov 23 09:04:14 dnsmasq-dhcp[21377]: DHCPOFFER(br-mds) 10.122.7.8 52:54:00:00:00:01 
Nov 23 09:04:14 dnsmasq-dhcp[21377]: DHCPREQUEST(br-mds) 10.122.7.8 52:54:00:00:00:01 
Nov 23 09:04:14 dnsmasq-dhcp[21377]: DHCPACK(br-mds) 10.122.7.8 52:54:00:00:00:01 web1
Nov 23 09:04:14 dnsmasq-dhcp[21377]: DHCPDISCOVER(br-mds) 10.122.9.9 52:54:00:00:00:01 
Nov  3 09:04:14 dnsmasq-dhcp[21377]: DHCPDISCOVER(br-mds) 52:54:00:00:00:02 no address available
Nov 23 09:04:16 dnsmasq-dhcp[21377]: DHCPDISCOVER(br-mds) 10.122.9.9 52:54:00:00:00:02 no address available
Nov 23 09:04:16 dnsmasq-dhcp[21377]: DHCPNAK(br-mds) 10.122.9.9 52:54:00:00:00:01 wrong address
Nov 23 09:04:17 dnsmasq-dhcp[21377]: DHCPRELEASE(br-mds) 10.122.7.8 52:54:00:00:00:01 web1
Nov 23 09:04:17 dnsmasq-dhcp[21377]: DHCPINFORM(br-mds) 10.122.7.8 52:54:00:00:00:01 
Nov 23 09:04:17 dnsmasq-dhcp[21377]: DHCPREPLY(br-mds) fd00::5 00:01:00:01:2b:3c:4d:5e:52:54:00:00:00:01 web1
Nov 23 09:04:17 dnsmasq-dhcp[21377]: RTR-ADVERT(br-mds) fd00::
Nov 23 09:04:18 dnsmasq-dhcp[21377]: 3074117123 DHCPACK(br-mds) 10.122.7.8 52:54:00:00:00:01 web1
Nov 23 09:04:19 dnsmasq-dhcp[21377]: DHCPREQUEST(br-mds) 10.122.9.9 52:54:00:00:00:03 
Nov 23 09:04:19 dnsmasq-dhcp[21377]: DHCPNAK(br-mds) 10.122.9.9 52:54:00:00:00:03 address not available
Nov 23 09:04:20 dnsmasq-dhcp[21377]: DHCPDECLINE(br-mds) 10.122.7.8 52:54:00:00:00:01 
Nov 23 09:04:20 dnsmasq-dhcp[21377]: disabling DHCP static address 10.122.7.8 for 10m
Nov 23 09:04:21 dnsmasq-dhcp[21377]: not using configured address 10.122.7.8 because it was previously declined
Nov 23 09:04:21 dnsmasq-dhcp[21377]: DHCPDISCOVER(br-mds) 52:54:00:00:00:01 no address available
Nov 23 09:04:22 dnsmasq-dhcp[21377]: DHCPDISCOVER(br-mds) 52:54:00:00:00:03 no address available
Nov 23 09:04:23 dnsmasq-dhcp[21377]: not using configured address 10.122.7.8 because it is leased to 52:54:00:00:00:09
Nov 23 09:04:23 dnsmasq-dhcp[21377]: DHCPDISCOVER(br-mds) 52:54:00:00:00:01 no address available
Nov 23 09:04:24 dnsmasq-dhcp[21377]: DHCPDISCOVER(br-mds) 52:54:00:00:00:04 ignored
Nov 23 09:04:25 dnsmasq-dhcp[21377]: BOOTP(br-mds) 10.122.7.8 52:54:00:00:00:01 
Nov 23 09:04:25 dnsmasq-dhcp[21377]: BOOTP(br-mds) 52:54:00:00:00:03 no address available
Nov 23 09:04:26 dnsmasq-dhcp[21377]: NOANSWER(br-mds) 10.122.7.8 52:54:00:00:00:01 address in use
Nov 23 09:04:27 dnsmasq-dhcp[21377]: DHCPRELEASE(br-mds) 10.122.7.8 52:54:00:00:00:01 unknown lease
`;

/** The messages in a log: time, action, MAC address, address, and why it is a refusal. */
function messages(log: string): string[] {
  return log
    .split('\n')
    .map(dhcpLines())
    .filter((line) => line !== undefined)
    .map(({ action, address, mac, time, refusal }) =>
      [time.slice(-8), action, mac, address, ...(refusal === '' ? [] : [`(${refusal})`])].join(' '),
    );
}

test('requests and answers are read from real dnsmasq log lines', () => {
  assert.deepEqual(messages(realLines), [
    '09:04:14 DHCPDISCOVER 52:54:00:00:00:01 ',
    '09:04:14 DHCPACK 52:54:00:00:00:01 10.122.7.8',
    '09:04:14 DHCPDISCOVER 52:54:00:00:00:01 10.122.9.9',
    '09:04:14 DHCPDISCOVER 52:54:00:00:00:02  (no address available)',
    '09:04:16 DHCPDISCOVER 52:54:00:00:00:02 10.122.9.9 (no address available)',
    '09:04:16 DHCPNAK 52:54:00:00:00:01 10.122.9.9 (wrong address)',
    '09:04:17 DHCPRELEASE 52:54:00:00:00:01 10.122.7.8',
    // With log-dhcp.
    '09:04:18 DHCPACK 52:54:00:00:00:01 10.122.7.8',
    // Of a guest without a record that keeps to its address, with dhcp-authoritative.
    '09:04:19 DHCPNAK 52:54:00:00:00:03 10.122.9.9 (address not available)',
    // It found its address in use, and asked again.
    '09:04:20 DHCPDECLINE 52:54:00:00:00:01 10.122.7.8',
    '09:04:21 DHCPDISCOVER 52:54:00:00:00:01  (no address available: it was previously declined)',
    '09:04:22 DHCPDISCOVER 52:54:00:00:00:03  (no address available)',
    '09:04:23 DHCPDISCOVER 52:54:00:00:00:01  (no address available: it is leased to 52:54:00:00:00:09)',
    '09:04:24 DHCPDISCOVER 52:54:00:00:00:04  (ignored)',
    '09:04:25 BOOTP 52:54:00:00:00:01 10.122.7.8',
    '09:04:25 BOOTP 52:54:00:00:00:03  (no address available)',
    '09:04:26 NOANSWER 52:54:00:00:00:01 10.122.7.8 (address in use)',
    '09:04:27 DHCPRELEASE 52:54:00:00:00:01 10.122.7.8',
  ]);
});

/** As dnsmasq 2.90 wrote them with log-dhcp, for a guest with the DUID of a machine-id. */
const realLines6 = `\
Nov 26 11:34:43 dnsmasq-dhcp[27989]: 1 available DHCPv6 subnet: fd00:122::/64
Nov 26 11:34:43 dnsmasq-dhcp[27989]: 1 client MAC address: 52:54:00:00:00:01
Nov 26 11:34:43 dnsmasq-dhcp[27989]: 1 DHCPSOLICIT(br-mds) 00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff 
Nov 26 11:34:43 dnsmasq-dhcp[27989]: 1 DHCPADVERTISE(br-mds) fd00:122::abcd 00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff web1
Nov 26 11:34:43 dnsmasq-dhcp[27989]: 1 sent size: 10 option:  2 server-id  00:03:00:01:52:54:00:fe:00:01
Nov 26 11:34:44 dnsmasq-dhcp[27989]: 2 available DHCPv6 subnet: fd00:122::/64
Nov 26 11:34:44 dnsmasq-dhcp[27989]: 2 client MAC address: 52:54:00:00:00:01
Nov 26 11:34:44 dnsmasq-dhcp[27989]: 2 DHCPREQUEST(br-mds) 00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff 
Nov 26 11:34:44 dnsmasq-dhcp[27989]: 2 DHCPREPLY(br-mds) fd00:122::abcd 00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff web1
Nov 26 11:34:45 dnsmasq-dhcp[27989]: 3 client MAC address: 52:54:00:00:00:01
Nov 26 11:34:45 dnsmasq-dhcp[27989]: 3 DHCPDECLINE(br-mds) 00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff 
Nov 26 11:34:45 dnsmasq-dhcp[27989]: disabling DHCP static address fd00:122::abcd for 10m
Nov 26 11:34:46 dnsmasq-dhcp[27989]: 4 client MAC address: 52:54:00:00:00:02
Nov 26 11:34:46 dnsmasq-dhcp[27989]: 4 DHCPSOLICIT(br-mds) 00:03:00:01:52:54:00:00:00:ff 
Nov 26 11:34:46 dnsmasq-dhcp[27989]: 4 DHCPADVERTISE(br-mds) 00:03:00:01:52:54:00:00:00:ff no addresses available
Nov 26 11:34:47 dnsmasq-dhcp[27989]: 5 client MAC address: 52:54:00:00:00:02
Nov 26 11:34:47 dnsmasq-dhcp[27989]: 5 DHCPREBIND(br-mds) 00:03:00:01:52:54:00:00:00:02 
Nov 26 11:34:47 dnsmasq-dhcp[27989]: 5 DHCPREPLY(br-mds) fd00:999::eeee 00:03:00:01:52:54:00:00:00:02 address invalid
Nov 26 11:34:48 dnsmasq-dhcp[27989]: 6 client MAC address: 52:54:00:00:00:01
Nov 26 11:34:48 dnsmasq-dhcp[27989]: 6 DHCPRENEW(br-mds) 00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff 
Nov 26 11:34:48 dnsmasq-dhcp[27989]: 6 DHCPREPLY(br-mds) fd00:122::abcd 00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff lease not found
Nov 26 11:34:49 dnsmasq-dhcp[27989]: 7 client MAC address: 52:54:00:00:00:01
Nov 26 11:34:49 dnsmasq-dhcp[27989]: 7 DHCPRELEASE(br-mds) 00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff 
`;

test('messages of DHCPv6 are known by the MAC address that dnsmasq found, whatever the DUID says', () => {
  assert.deepEqual(messages(realLines6), [
    '11:34:43 DHCPv6-SOLICIT 52:54:00:00:00:01 ',
    '11:34:44 DHCPv6-REPLY 52:54:00:00:00:01 fd00:122::abcd',
    '11:34:45 DHCPv6-DECLINE 52:54:00:00:00:01 ',
    '11:34:46 DHCPv6-SOLICIT 52:54:00:00:00:02 ',
    '11:34:46 DHCPv6-ADVERTISE 52:54:00:00:00:02  (no addresses available)',
    '11:34:47 DHCPv6-REPLY 52:54:00:00:00:02 fd00:999::eeee (address invalid)',
    '11:34:48 DHCPv6-REPLY 52:54:00:00:00:01 fd00:122::abcd (lease not found)',
    '11:34:49 DHCPv6-RELEASE 52:54:00:00:00:01 ',
  ]);
  // Without log-dhcp, and of a guest whose MAC address dnsmasq could not find.
  assert.deepEqual(messages(realLines6.replaceAll(/: \d+ /g, ': ')), []);
  const unknown = realLines6.replaceAll(/client MAC.*/g, 'cannot determine client MAC address');
  assert.deepEqual(messages(unknown), []);
  // Of another exchange, even one whose number the guest has chosen.
  const interrupted = realLines6.replaceAll(/: (\d+) (DHCP[A-Z]+)/g, ': 99 $2');
  assert.deepEqual(messages(interrupted), []);
});

const stamp = 'Nov 23 09:04:14 dnsmasq-dhcp[21377]:';

test('other lines are ignored, however long they are', async (t) => {
  const ack = 'DHCPACK(br-mds) 10.122.7.8 52:54:00:00:00:01 web1';
  for (const line of [
    '',
    ack,
    `dnsmasq-dhcp[1]: ${ack}`,
    `Nov 23 09:04:14 dnsmasq[21377]: ${ack}`,
    `Nov 23 09:04:14 dnsmasq[21377]: query[A] x ${stamp} ${ack}`,
    // The MAC address of another guest, as a part of a longer hardware address, and as a whole DUID.
    `${stamp} DHCPDISCOVER(br-mds) 52:54:00:00:00:01:00:ff no address available`,
    `${stamp} DHCPNAK(br-mds) 10.122.7.8 52:54:00:00:00:01:00:ff wrong address`,
    `${stamp} DHCPDISCOVER(br-mds) 06-52:54:00:00:00:01 no address available`,
    `${stamp} DHCPDECLINE(br-mds) 52:54:00:00:00:01 `,
    `${stamp} DHCPRELEASE(br-mds) 52:54:00:00:00:01 `,
    `${stamp} 7 DHCPDECLINE(br-mds) 52:54:00:00:00:01 `,
    `${stamp} DHCPREPLY(br-mds) fd00::5 00:03:00:01:52:54:00:00:00:01 web1`,
    `${stamp} DHCPREPLY(br-mds) fd00::5 52:54:00:00:00:01 web1`,
    // What a guest says of itself, with log-dhcp.
    `${stamp} 7 client provides name: ${ack}`,
    `${stamp} 7 vendor class: 7 client MAC address: 52:54:00:00:00:01`,
    `${stamp} ${'00:'.repeat(100_000)}`,
    `${stamp} 7 DHCPREPLY(br-mds) ${'00:'.repeat(100_000)}`,
    `${stamp} not using configured address ${'because it '.repeat(100_000)}`,
    `${stamp} DHCPACK(br-mds) 10.122.7.8`,
    `${stamp} DHCPACK(br-mds) 10.122.7.8 52:54:00:00:00`,
    `${stamp} DHCPACK(br-mds) 10.122.7.8 52:54:00:00:00:0`,
    `${stamp} DHCPACK(br-mds) 10.122.7 52:54:00:00:00:01`,
    `${stamp} DHCPACK(br-mds 10.122.7.8 52:54:00:00:00:01`,
    `${stamp} DHCPACK(br-mds) 10.122.7.8 01-52:54:00:00:00:01`,
    'DHCPACK('.repeat(200_000),
    `${stamp} ${'DHCPACK('.repeat(200_000)}`,
    `${stamp} `.repeat(50_000),
  ]) {
    await t.test(rowName(line), () => {
      assert.equal(dhcpLines()(line), undefined, line.slice(0, 100));
    });
  }
});

/** The leases of DHCPv6 in a log. */
function leases(log: string): string[] {
  const given = leases6Given();
  return log.split('\n').flatMap((line) => {
    const said = dhcpSaid(line);
    const lease = said && given(said);
    if (lease === undefined) return [];
    const { address, duid, association, iaid, server } = lease;
    return [`${address} ${duid} ${association}:${iaid} ${server}`];
  });
}

test('a lease of DHCPv6 is read with what it can be released with, from an answer that gives it', () => {
  const answer = (message: string, ...options: string[]) =>
    [message, ...options].map((text) => `${stamp} 16777215 ${text}\n`).join('');
  const server = 'sent size: 10 option:  2 server-id  00:03:00:01:52:54:00:fe:00:01';
  const lease = (address: string, seconds = 600) =>
    `nest size: 24 option:  5 iaaddr  ${address} PL=${seconds} VL=${seconds}`;
  const one = 'sent size: 40 option:  3 ia-na  IAID=4294967295 T1=300 T2=525';
  const reply = 'DHCPREPLY(br-mds) fd00:122::abcd 00:04:ab web1';
  const given = 'fd00:122::abcd 00:04:ab 3:4294967295 00:03:00:01:52:54:00:fe:00:01';
  assert.deepEqual(leases(answer(reply, server, one, lease('fd00:122::abcd'))), [given]);
  const two = 'sent size: 32 option:  4 ia-ta  IAID=7';
  assert.deepEqual(
    leases(answer(reply, server, one, lease('fd00:122::abcd'), two, lease('fd00:122::1'))),
    [given, 'fd00:122::1 00:04:ab 4:7 00:03:00:01:52:54:00:fe:00:01'],
  );
  for (const log of [
    // Only offered, without a time, or given back.
    answer(reply.replace('REPLY', 'ADVERTISE'), server, one, lease('fd00:122::abcd')),
    answer(reply, server, one, lease('fd00:122::abcd', 0)),
    answer('DHCPRELEASE(br-mds) 00:04:ab ', server, one, lease('fd00:122::abcd')),
    // Incomplete, of another exchange, or no address.
    answer(reply, one, lease('fd00:122::abcd')),
    answer(reply, server, lease('fd00:122::abcd')),
    answer(reply, server, one, lease('fd00:122::abcd').replace('nest', 'next')),
    answer(reply, server, one) + answer(lease('fd00:122::abcd')).replace(' 16777215 ', ' 7 '),
    answer(reply, server, one, lease('evil')),
    answer(reply, server, one, `client provides name: ${lease('fd00:122::abcd')}`),
    answer(reply, server, one, lease('fd00:122::abcd')).replaceAll(' 16777215 ', ' '),
    answer(reply, server, one, 'nest size: 24 option:  5 '.repeat(50_000)),
  ]) {
    assert.deepEqual(leases(log), [], log.slice(0, 500));
  }
});

test('what a guest says in its own message is not taken for words of dnsmasq', () => {
  // The reason of a DHCPDECLINE, from which dnsmasq takes the ends of lines.
  const text = `x${stamp} DHCPACK(br-mds) 10.1.1.1 52:54:00:00:00:02 no address available`;
  assert.deepEqual(messages(`${stamp} DHCPDECLINE(br-mds) 10.122.7.8 52:54:00:00:00:01 ${text}`), [
    '09:04:14 DHCPDECLINE 52:54:00:00:00:01 10.122.7.8',
  ]);
  // A name like dnsmasq's words, and one like a DUID.
  for (const name of ['deprecated', 'ab', 'no', '00']) {
    const exchange = `${stamp} 7 client MAC address: 52:54:00:00:00:01\n${stamp} 7`;
    assert.deepEqual(messages(`${exchange} DHCPREPLY(br-mds) fd00::5 00:01:02 ${name}`), [
      '09:04:14 DHCPv6-REPLY 52:54:00:00:00:01 fd00::5',
    ]);
  }
  // The reason belongs to the message after it, not to one of another guest later.
  const reason = 'not using configured address 10.122.7.8 because it was previously declined';
  const refused = (mac: string) => `${stamp} DHCPDISCOVER(br-mds) ${mac} no address available`;
  const log = [`${stamp} ${reason}`, `${stamp} 5 tags: x`, refused('52:54:00:00:00:02')].join('\n');
  assert.deepEqual(messages(log), [
    '09:04:14 DHCPDISCOVER 52:54:00:00:00:02  (no address available)',
  ]);
});

test('the log is beside the one of mdserver, where system-integration.sh has it written', async (t) => {
  for (const [logfile, expected] of [
    ['/var/log/mdserver.log', '/var/log/mdserver-dnsmasq.log'],
    ['/var/log/mds/a.b.log', '/var/log/mds/a.b-dnsmasq.log'],
    ['/var/log.d/mdserver', '/var/log.d/mdserver-dnsmasq'],
    ['/var/log/.hidden', '/var/log/.hidden-dnsmasq'],
    ['mdserver.log', 'mdserver-dnsmasq.log'],
    ['.log', '.log-dnsmasq'],
  ] as const) {
    await t.test(rowName(logfile), () => {
      const { config } = configFrom(`[mdserver]\nlogfile = ${logfile}\n`);
      assert.equal(dnsmasqLogPath(config), expected);
    });
  }
});

// ---- following ----

/** A log that is followed with a clock of the test's own. */
function follow(t: TestContext, before?: string) {
  const folder = temporaryFolder(t);
  const path = join(folder, 'dnsmasq.log');
  if (before !== undefined) writeFileSync(path, before);
  t.mock.timers.enable({ apis: ['setInterval'] });
  const told: string[] = [];
  const read = dhcpLines();
  const stop = followDhcpLog(path, (line) => {
    const message = read(line);
    if (message !== undefined) told.push(message.address);
  });
  return {
    path,
    stop,
    /** What was told since the last look. */
    look: () => {
      t.mock.timers.tick(1000);
      return told.splice(0);
    },
  };
}

const line = (last: number) => `${stamp} DHCPACK(br-mds) 10.122.0.${last} 52:54:00:00:00:01 web1\n`;

test('older lines are not reported, and new ones are reported once and in order', (t) => {
  const { path, look, stop } = follow(t, line(1));
  assert.deepEqual(look(), []);
  appendFileSync(path, line(2) + line(3));
  assert.deepEqual(look(), ['10.122.0.2', '10.122.0.3']);
  assert.deepEqual(look(), []);
  appendFileSync(path, line(4));
  assert.deepEqual(look(), ['10.122.0.4']);
  stop();
  appendFileSync(path, line(5));
  assert.deepEqual(look(), []);
});

test('a line written in two parts is reported when it is complete', (t) => {
  const { path, look } = follow(t, '');
  for (let cut = 1; cut < line(2).length; cut += 7) {
    appendFileSync(path, line(2).slice(0, cut));
    assert.deepEqual(look(), []);
    appendFileSync(path, line(2).slice(cut));
    assert.deepEqual(look(), ['10.122.0.2']);
  }
});

test('a log that appears later is reported from its first line', (t) => {
  const { path, look } = follow(t);
  assert.deepEqual(look(), []);
  writeFileSync(path, line(1) + line(2));
  assert.deepEqual(look(), ['10.122.0.1', '10.122.0.2']);
});

test('after a rotation the new file is read, even if it is longer than the old one', (t) => {
  const { path, look } = follow(t, line(1));
  appendFileSync(path, line(2));
  assert.deepEqual(look(), ['10.122.0.2']);
  renameSync(path, `${path}.1`);
  // The old one is still written to until dnsmasq opens the new one.
  assert.deepEqual(look(), []);
  writeFileSync(path, line(3) + line(4) + line(5));
  assert.deepEqual(look(), ['10.122.0.3', '10.122.0.4', '10.122.0.5']);
  renameSync(path, `${path}.2`);
  writeFileSync(path, line(6) + line(7) + line(8) + line(9));
  assert.deepEqual(look(), ['10.122.0.6', '10.122.0.7', '10.122.0.8', '10.122.0.9']);
});

test('a log that was removed and recreated is read from its start, whatever its inode', (t) => {
  const { path, look } = follow(t, line(1));
  rmSync(path);
  assert.deepEqual(look(), []);
  writeFileSync(path, line(2) + line(3) + line(4));
  assert.deepEqual(look(), ['10.122.0.2', '10.122.0.3', '10.122.0.4']);
});

test('a truncated log (copytruncate) is read from its start, without a partial line from before', (t) => {
  const { path, look } = follow(t, line(1) + line(2));
  appendFileSync(path, line(3).slice(0, 60));
  assert.deepEqual(look(), []);
  truncateSync(path, 0);
  assert.deepEqual(look(), []);
  appendFileSync(path, line(4));
  assert.deepEqual(look(), ['10.122.0.4']);
  truncateSync(path, 0);
  appendFileSync(path, line(5).slice(0, 40));
  assert.deepEqual(look(), []);
  appendFileSync(path, line(5).slice(40));
  assert.deepEqual(look(), ['10.122.0.5']);
});

test('binary data between the lines affects none of them', (t) => {
  const { path, look } = follow(t, '');
  const rubbish = Buffer.from(Array.from({ length: 1024 }, (_, index) => index % 256));
  appendFileSync(path, rubbish);
  appendFileSync(path, `\n${line(1)}`);
  appendFileSync(path, Buffer.from([0xff, 0xfe, 0x00, 0x0a]));
  appendFileSync(path, line(2));
  appendFileSync(path, Buffer.alloc(5000, 0xc3));
  assert.deepEqual(look(), ['10.122.0.1', '10.122.0.2']);
  appendFileSync(path, `\n${line(3)}`);
  assert.deepEqual(look(), ['10.122.0.3']);
});

test('a log that grows faster than it is read is skipped, and no lines are joined', (t) => {
  const { path, look } = follow(t, '');
  // The half of a line that the rest of another one would make whole.
  appendFileSync(path, line(1).slice(0, 60));
  assert.deepEqual(look(), []);
  const filler = `${'x'.repeat(99)}\n`.repeat(11_000);
  const end = line(2).slice(60) + line(3);
  appendFileSync(path, line(4) + filler.slice(end.length) + end);
  assert.deepEqual(look(), ['10.122.0.3']);
  // What is read begins within the rest of that line.
  appendFileSync(path, line(1).slice(0, 60));
  look();
  const rest = line(9).slice(60);
  appendFileSync(path, 'y'.repeat(2 * 1024 * 1024));
  appendFileSync(path, rest + 'x'.repeat(1024 * 1024 - rest.length));
  assert.deepEqual(look(), []);
});

test('a log that cannot be read throws nothing, and is followed once it can be', (t) => {
  const { path, look } = follow(t);
  mkdirSync(path);
  assert.deepEqual(look(), []);
  rmSync(path, { recursive: true });
  writeFileSync(path, line(1));
  assert.deepEqual(look(), ['10.122.0.1']);
  assert.deepEqual([isReadable(path), isReadable(`${path}.gone`)], [true, false]);
});

// ---- a real dnsmasq ----

/** Asks for an address in a guest as busybox does, which then changes nothing. */
function udhcpcIn(folder: string) {
  const script = join(folder, 'udhcpc-script');
  writeFileSync(script, '#!/bin/sh\nexit 0\n');
  chmodSync(script, 0o755);
  const options = ['-f', '-n', '-q', '-t', '2', '-T', '1', '-A', '1', '-i', 'eth0', '-s', script];
  return (guest: Namespace, ...more: string[]) => guest.run('udhcpc', [...options, ...more]);
}

test("a guest's DHCP events are in its boot record, also after the log was rotated", {
  skip: missing('netns', 'dnsmasq', 'udhcpc', 'cloud-init'),
}, async (t) => {
  const host = addHost(t);
  const record = (number: number) =>
    databaseRecord(number, { domain_name: `web${number}`, mds_ipv4: `10.122.7.${number}` });
  const { folder, json } = await startSite(t, host, {
    records: [record(1), record(2)],
    dnsmasq: 'user = root',
  });
  const health = async () => (await json('/health')).body as Health;
  assert.equal((await health()).dhcp_log, false);

  const log = join(folder, 'mdserver-dnsmasq.log');
  const { process: dnsmasq } = await startDnsmasq(host.start, folder, log);
  assert.deepEqual(
    await health().then(({ status, dhcp_log, problems }) => ({ status, dhcp_log, problems })),
    { status: 'ok', dhcp_log: true, problems: [] },
  );

  const askForLease = udhcpcIn(folder);
  const boots = async (name: string) =>
    ((await json(`/instances/${name}`)).body as InstanceDetails).boots;
  const dhcp = (boot: BootRecord | undefined) =>
    boot?.dhcp.map(({ action, address }) => `${action} ${address}`);
  const saw = (name: string, action: string) =>
    eventually(`${name} saw ${action}`, async () =>
      ((await boots(name))[0]?.dhcp ?? []).some((event) => event.action === action),
    );

  const guest = host.addGuest(record(1).mds_mac);
  const stranger = host.addGuest('52:54:00:00:00:09');
  const before = Math.floor(Date.now() / 1000);
  assert.notEqual((await askForLease(stranger)).status, 0);
  const [refused, ...more] = recentDhcp(log).refused;
  assert.deepEqual([refused?.[0], more], ['52:54:00:00:00:09', []]);
  const at = refused?.[1] ?? 0;
  assert.ok(at >= before && at <= Date.now() / 1000, String(at));
  // A name that would be another line of the log, were it taken as it is.
  const evil = `x\n${stamp} DHCPACK(br-mds) 10.122.7.2 52:54:00:00:00:02 web2\n`;
  assert.equal((await askForLease(guest, '-x', `hostname:${evil}`, '-F', 'x y')).status, 0);
  await saw('web1', 'DHCPACK');
  const [boot, ...others] = await boots('web1');
  assert.deepEqual(others, []);
  assert.deepEqual(dhcp(boot), ['DHCPDISCOVER ', 'DHCPACK 10.122.7.1']);
  assert.deepEqual(
    [boot?.by, boot?.outcome, boot?.ended, boot?.requests],
    ['dhcp', 'address', null, 0],
  );
  assert.deepEqual(await boots('web2'), []);

  // As logrotate does it.
  renameSync(log, `${log}.1`);
  writeFileSync(log, '', { mode: 0o640 });
  dnsmasq.kill('SIGUSR2');
  // It says nothing of that; what it is asked for now (its cache) goes to the new file.
  dnsmasq.kill('SIGUSR1');
  await eventually('dnsmasq has opened the new log', () => readFileSync(log, 'utf8') !== '');
  // A client that asks for an address which is not its own (RFC 2131 4.3.2, SELECTING).
  const other = host.addGuest(record(2).mds_mac);
  other.ip('address add 10.122.200.1/16 dev eth0');
  const request = Buffer.alloc(300);
  request.set([1, 1, 6]);
  request.write('525400000002', 28, 'hex');
  request.set([99, 130, 83, 99, 53, 1, 3, 50, 4, 10, 122, 9, 9, 54, 4, 10, 122, 0, 1, 255], 236);
  const program = `import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')
s.bind(('', 68))
s.sendto(bytes.fromhex(sys.argv[1]), ('255.255.255.255', 67))`;
  // Broadcasts may be lost while the bridge's port comes up.
  await eventually('dnsmasq refuses the address', async () => {
    const { status, stderr } = await other.run(python, ['-c', program, request.toString('hex')]);
    assert.equal(status, 0, stderr);
    return readFileSync(log, 'utf8').includes('DHCPNAK');
  });
  await saw('web2', 'DHCPNAK');
  assert.equal(dhcp((await boots('web2'))[0])?.[0], 'DHCPNAK 10.122.9.9');
  assert.match(readFileSync(log, 'utf8'), /DHCPNAK\(br-mds\) 10\.122\.9\.9 52:54:00:00:00:02 /);
});

test('a guest whose address another machine has declines it; explain says which, and a reload ends it', {
  skip: missing('netns', 'dnsmasq', 'udhcpc'),
}, async (t) => {
  const host = addHost(t);
  const record = databaseRecord(1, { domain_name: 'web1', mds_ipv4: '10.122.7.1' });
  const site = await startSite(t, host, { records: [record], dnsmasq: 'user = root' });
  const { folder, json } = site;
  const { process: dnsmasq } = await startDnsmasq(
    host.start,
    folder,
    join(folder, 'mdserver-dnsmasq.log'),
  );
  const askForLease = udhcpcIn(folder);
  const explain = async () => {
    const args = [program, '--config', join(folder, 'mdserver.conf'), 'explain', 'web1'];
    const { status, stdout, stderr } = await host.run(process.execPath, args);
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const guest = host.addGuest(record.mds_mac);
  const other = host.addGuest('52:54:00:00:00:09');
  other.ip('address add 10.122.7.1/16 dev eth0');

  // It looks for others with its address before it takes it.
  assert.notEqual((await askForLease(guest, '-a')).status, 0);
  const boot = async () =>
    ((await json('/instances/web1')).body as InstanceDetails).boots[0] as BootRecord;
  await eventually('mdserver has read that', async () =>
    (await boot()).dhcp.some(({ refusal }) => refusal.endsWith('it was previously declined')),
  );
  assert.equal((await boot()).outcome, 'no-address');
  assert.match(await explain(), /"sudo ip neighbour flush to 10\.122\.7\.1 dev br-mds"/);
  host.ip('neighbour flush to 10.122.7.1 dev br-mds');
  const said = await explain();
  assert.match(said, /its last boot asked for an address and has none\./);
  assert.match(said, / declined the address 10\.122\.7\.1: another machine has it, it found/);
  assert.match(
    said,
    /has the address 10\.122\.7\.1: 52:54:00:00:00:09 answers for it, "mdserverctl explain 52:54:00:00:00:09"/,
  );

  other.remove();
  dnsmasq.kill('SIGHUP');
  assert.equal((await askForLease(guest, '-a')).status, 0);
  await eventually('mdserver has read that', async () => (await boot()).outcome === 'address');
  assert.doesNotMatch(await explain(), /has the address/);
});
