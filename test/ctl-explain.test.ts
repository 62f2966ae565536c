import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outcomeOf } from '../src/boots/boots.js';
import type { BootRecord, DhcpEvent, InstanceDetails } from '../src/control/api.js';
import { explainAddress, explainInstance, type Owner } from '../src/ctl/commands/explain.js';
import type { Guest } from '../src/ctl/guests.js';
import { blankBoot } from './support/samples.js';

const start = 1_700_000_000;
const context = {
  style: { terminal: false, colour: false },
  now: start + 3600,
  network: 'mds',
  bridge: 'br-mds',
  dhcpLog: true,
};

function boot(seen: Partial<BootRecord> = {}): BootRecord {
  const record = { ...blankBoot, started: start, ...seen };
  return { ...record, outcome: outcomeOf(record) };
}

function instance(...boots: BootRecord[]): InstanceDetails {
  return {
    name: 'web1',
    uuid: '00000000-0000-4000-8000-000000000001',
    mac: '52:54:00:00:00:01',
    ipv4: '10.122.0.2',
    ipv6: null,
    location: 'rack1',
    hostname: 'web1',
    first_seen: start,
    last_update: start,
    last_boot: null,
    left_network: null,
    datasource: null,
    metadata: {},
    public_keys: [],
    warnings: [],
    no_userdata: null,
    hardware: { vcpus: null, memory_kib: null, architecture: null },
    smbios: null,
    instance_id: 'i-10.122.0.2',
    dns_names: ['web1'],
    boots,
    host_keys: [],
    password: null,
  };
}

/** A DHCP message that came once, some seconds after the start. */
function dhcp(seconds: number, action: DhcpEvent['action'], address = '', refusal = ''): DhcpEvent {
  return { at: start + seconds, last: start + seconds, times: 1, action, address, refusal };
}

const lease = dhcp(2, 'DHCPACK', '10.122.0.2');
const asked = {
  requests: 12,
  first_request: start + 3,
  last_request: start + 9,
  kinds: ['ec2'],
  user_agents: ['Cloud-Init/22.4.2'],
};

function explained(...boots: BootRecord[]): string[] {
  return explainInstance(instance(...boots), context);
}

/** The lines under "What to check:". */
function notes(...boots: BootRecord[]): string[] {
  return explained(...boots)
    .filter((line) => line.startsWith('  - '))
    .map((line) => line.slice(4));
}

test('a boot that went well is described in order, without advice', () => {
  const well = boot({
    ...asked,
    dhcp: [lease],
    tokens: { given: 1, used: 11, refused: 0 },
    userdata: { at: start + 5, status: 200, file: '/u/web1.yaml', bytes: 812 },
    phone_home: start + 30,
    errors: ['404 /latest/meta-data/iam/'],
  });
  const before = boot({ started: start - 86_400, ended: start - 10 });
  assert.deepEqual(explained(well, before), [
    'web1 (10.122.0.2, 52:54:00:00:00:01): its last boot phoned home.',
    '  2023-11-14T22:13:20Z  libvirt started it',
    '  2023-11-14T22:13:22Z  got the address 10.122.0.2 by DHCP',
    '  2023-11-14T22:13:23Z  first request, of 12 in total by Cloud-Init/22.4.2 on ec2 paths; tokens: 1 issued, 11 used, 0 refused',
    '  2023-11-14T22:13:25Z  got 812 bytes of user-data from /u/web1.yaml',
    '  2023-11-14T22:13:29Z  last request',
    '  2023-11-14T22:13:50Z  phoned home',
    '  errors: 404 /latest/meta-data/iam/',
    'Earlier boots:',
    '  2023-11-13T22:13:20Z  ended',
  ]);
});

test('without a boot: says that boots are kept in memory, and what to check', () => {
  assert.deepEqual(explained(), [
    'web1 (10.122.0.2, 52:54:00:00:00:01): no boot seen since mdserver started.',
    "Its domain was last uploaded 1 hour ago. mdserver keeps boots in memory only. If it started since then, libvirt's hook did not report it: run mdserverctl check.",
  ]);
});

test('a boot of which nothing was seen: asks for the network, dnsmasq and the guest', () => {
  const note =
    'No DHCP request was seen: is its first interface on network mds (virsh domiflist web1), is mdserver-dnsmasq running (systemctl status mdserver-dnsmasq), does the guest bring that interface up?';
  assert.deepEqual(notes(boot()), [note]);
  assert.deepEqual(notes(boot({ started: start + 3590 })), [
    `${note} It started 10 seconds ago and may still be booting.`,
  ]);
  assert.deepEqual(notes(boot({ started: start + 3590, ended: start + 3595 })), [note]);
  assert.deepEqual(notes(boot({ by: 'reconnect' })), [
    'mdserver has seen nothing of it since libvirtd started: a guest that is already running rarely asks for anything.',
  ]);
});

test('a start that failed is told as that, and where libvirt says why', () => {
  const failed = { ...boot({ ended: start + 1 }), outcome: 'start-failed' } as const;
  assert.deepEqual(explained(failed), [
    'web1 (10.122.0.2, 52:54:00:00:00:01): libvirt could not start it.',
    '  2023-11-14T22:13:20Z  libvirt started it',
    '  2023-11-14T22:13:21Z  libvirt gave up starting it',
    'What to check:',
    '  - libvirt says why: journalctl -u libvirtd -u virtqemud, or /var/log/libvirt/qemu/ on this host; virsh start web1 says it again.',
  ]);
});

test('a boot that got an address and no more: asks for cloud-init, its datasource, a firewall', () => {
  assert.match(
    notes(boot({ dhcp: [lease] }))[0] ?? '',
    /^It got its address and then asked for nothing: /,
  );
});

test('a lease for another address than the record has is pointed out', () => {
  const other = { ...lease, address: '10.122.0.99' };
  assert.match(
    notes(boot({ dhcp: [lease, other] }))[0] ?? '',
    /^Its lease is for 10\.122\.0\.99, but its record has 10\.122\.0\.2, /,
  );
  // An address that was refused, or only asked for, is not a lease.
  for (const action of ['DHCPNAK', 'DHCPDISCOVER'] as const) {
    assert.equal(notes(boot({ dhcp: [lease, { ...other, action }] })).length, 1, action);
  }
});

test('an address that another machine has: says who answers for it, and how to end the pause', () => {
  const declined = boot({
    dhcp: [
      lease,
      dhcp(3, 'DHCPDECLINE', '10.122.0.2'),
      {
        ...dhcp(4, 'DHCPDISCOVER', '', 'no address available: it was previously declined'),
        ...{ last: start + 64, times: 9 },
      },
    ],
  });
  const pause =
    'dnsmasq does not offer an address for 10 minutes after it was declined; "sudo systemctl reload mdserver-dnsmasq" ends that.';
  const unknown = `  - Another machine on the network has the address 10.122.0.2, the guest found. To see which, run this again after "sudo ip neighbour flush to 10.122.0.2 dev br-mds". ${pause}`;
  assert.deepEqual(explained(declined), [
    'web1 (10.122.0.2, 52:54:00:00:00:01): its last boot asked for an address and has none.',
    '  2023-11-14T22:13:20Z  libvirt started it',
    '  2023-11-14T22:13:22Z  got the address 10.122.0.2 by DHCP',
    '  2023-11-14T22:13:23Z  declined the address 10.122.0.2: another machine has it, it found',
    '  2023-11-14T22:13:24Z  asked for an address by DHCP: no address available: it was previously declined (9 times, last 2023-11-14T22:14:24Z)',
    'What to check:',
    unknown,
  ]);
  const held = (mac: string | null, mac_instance: string | null) => {
    const report = {
      address: '10.122.0.2',
      instance: 'web1',
      mac,
      mac_instance,
      last_refused: null,
    };
    return explainInstance(instance(declined), { ...context, holders: [report] }).at(-1);
  };
  const has = '  - Another machine on the network has the address 10.122.0.2: 52:54:00:00:00:09';
  const take = `Take the address away from it. ${pause}`;
  assert.equal(
    held('52:54:00:00:00:09', 'db1'),
    `${has} answers for it, the MAC address of db1. ${take}`,
  );
  assert.equal(
    held('52:54:00:00:00:09', null),
    `${has} answers for it, "mdserverctl explain 52:54:00:00:00:09" says whose that is. ${take}`,
  );
  // dnsmasq enters the guest itself there.
  assert.equal(held('52:54:00:00:00:01', 'web1'), unknown);
  // It has it in the end.
  const later = boot({
    dhcp: [{ ...lease, times: 2, last: start + 9 }, ...declined.dhcp.slice(1)],
  });
  assert.match(notes(later)[0] ?? '', /^It got its address and then asked for nothing: /);
});

test('a refusal of dnsmasq is told with its reason, and what to do', async (t) => {
  for (const [refusal, note] of [
    [
      'no address available',
      /^dnsmasq has no address for it: is 10\.122\.0\.2 in the network that the bridge has /,
    ],
    ['no address available: it was previously declined', /^It declined its address before /],
    [
      'no address available: it is leased to 52:54:00:00:00:09',
      /^dnsmasq has a lease of its address for another machine .* 52:54:00:00:00:09\)/,
    ],
    ['wrong network', /^dnsmasq refused it the address 192\.168\.1\.2 \(wrong network\): /],
  ] as const) {
    await t.test(refusal, () => {
      const refused = boot({ dhcp: [dhcp(2, 'DHCPNAK', '192.168.1.2', refusal)] });
      assert.equal(refused.outcome, 'no-address');
      const [line = '', ...more] = notes(refused);
      assert.match(line, note);
      assert.deepEqual(more, []);
    });
  }
  const [asked = '', ...more] = notes(boot({ dhcp: [dhcp(2, 'DHCPDISCOVER')] }));
  assert.match(asked, /^dnsmasq offered it an address, and it took none: /);
  assert.deepEqual(more, []);
});

test('DHCPv6 is told as that: an address, none, or one that was declined', () => {
  const refused = dhcp(3, 'DHCPv6-ADVERTISE', '', 'no addresses available');
  const none = boot({ dhcp: [lease, dhcp(2, 'DHCPv6-SOLICIT'), refused] });
  assert.deepEqual(explained(none).slice(3, 5), [
    '  2023-11-14T22:13:22Z  asked for an address by DHCPv6',
    '  2023-11-14T22:13:23Z  was offered no address by DHCPv6: no addresses available',
  ]);
  assert.match(notes(none)[0] ?? '', /^It asks for an IPv6 address, and its record has none: /);
  const advice = (...events: DhcpEvent[]) =>
    explainInstance(
      { ...instance(boot({ dhcp: [lease, ...events] })), ipv6: 'fd00::5' },
      context,
    ).find((line) => /^ {2}- .*(IPv6 address|fd00::5)/.test(line));
  assert.match(advice(refused) ?? '', /still held by another DUID/);
  assert.equal(advice(refused, dhcp(4, 'DHCPv6-REPLY', 'fd00::5')), undefined);
  // A lease that mdserver has ended, or dnsmasq by its restart: the client asks again at once.
  const ended = dhcp(5, 'DHCPv6-REPLY', 'fd00::5', 'lease not found');
  assert.equal(advice(dhcp(4, 'DHCPv6-REPLY', 'fd00::5'), ended), undefined);
  assert.match(
    advice(dhcp(4, 'DHCPv6-REPLY', 'fd00::5'), dhcp(5, 'DHCPv6-DECLINE')) ?? '',
    /Another machine on the network has the address fd00::5, /,
  );
});

test('a boot that got a token and no more is distinguished from one without user-data', () => {
  const tokens = { given: 2, used: 0, refused: 0 };
  assert.match(
    notes(boot({ ...asked, requests: 2, tokens })).join(),
    /^It asked for a token and then for nothing else: /,
  );
  assert.match(
    notes(boot({ ...asked, tokens })).join(),
    /^It asked for metadata but not for user-data: /,
  );
});

test('for a template with an error, names the command that shows its line', () => {
  const userdata = { at: start + 5, status: 500, file: '/u/web1.yaml', bytes: 0 };
  assert.deepEqual(notes(boot({ ...asked, userdata })), [
    'Its user-data cannot be rendered: "mdserverctl render web1" shows the error and its line.',
  ]);
  const errors = ['500 /openstack/latest/vendor_data.json (/u/vendor.yaml)'];
  assert.deepEqual(explained(boot({ ...asked, errors })).slice(-4), [
    '  errors: 500 /openstack/latest/vendor_data.json (/u/vendor.yaml)',
    'What to check:',
    '  - It asked for metadata but not for user-data: its client stopped early, or does not use user-data.',
    '  - Its vendor-data cannot be rendered: "mdserverctl render web1 vendor-data" shows the error and its line.',
  ]);
});

test('missing and built-in user-data is explained', () => {
  const missing = { at: start + 5, status: 404, file: null, bytes: 0 };
  const asking = boot({ ...asked, userdata: missing });
  assert.deepEqual(notes(asking), [
    'There was no user-data for it then. Now there is: start it again.',
  ]);
  const none = {
    ...instance(asking),
    no_userdata: 'userdata in the metadata of its domain is none',
  };
  assert.equal(
    explainInstance(none, context).at(-1),
    '  - There is no user-data for it: userdata in the metadata of its domain is none.',
  );
  const builtIn = { at: start + 5, status: 200, file: null, bytes: 96 };
  assert.match(
    notes(boot({ ...asked, userdata: builtIn }))[0] ?? '',
    /^Its user-data comes from the built-in template: /,
  );
});

test('user-data that Ignition does not take is explained, and whether that is mended', () => {
  const userdata = {
    at: start + 5,
    status: 200,
    file: null,
    bytes: 96,
    not_ignition: true,
  } as const;
  const asking = boot({ ...asked, userdata });
  const problem =
    'Its client is Ignition, and this user-data is no configuration of Ignition, which is JSON: Fedora CoreOS ends its boot with "config is not valid", Flatcar leaves cloud-config to coreos-cloudinit. ';
  assert.deepEqual(
    notes(asking)[0],
    `${problem}Give it a configuration of Ignition, or no user-data: userdata = none in the metadata of its domain, or mdserver.builtin_template = no. See docs/recipes.md.`,
  );
  const mended = { ...instance(asking), no_userdata: 'mdserver.builtin_template is no' };
  const lines = explainInstance(mended, context);
  assert.ok(
    lines.includes(
      `  - ${problem}It has no user-data now: start it again, with a new disk if its first boot went wrong.`,
    ),
    lines.join('\n'),
  );
});

test('requests without a valid token are distinguished from a refused token', () => {
  assert.match(
    notes(boot({ ...asked, errors: ['401 /latest/meta-data/'] })).at(-1) ?? '',
    /^It got a 401 without a valid token: /,
  );
  const tokens = { given: 1, used: 0, refused: 3 };
  assert.match(notes(boot({ ...asked, tokens })).at(-1) ?? '', /^One of its tokens was refused: /);
});

test('changed host keys are reported', () => {
  const said = (at: number, key: string) => ({ at, hostname: null, fqdn: null, keys: [key] });
  const lines = explainInstance(
    {
      ...instance(boot({ phone_home: start + 30 })),
      host_keys: [said(start + 30, 'b'), said(1, 'a')],
      password: null,
    },
    context,
  );
  assert.equal(
    lines.at(-1),
    'Its SSH host keys changed 2023-11-14T22:13:50Z, which is expected only if it was reinstalled.',
  );
});

test('a guest that asks for nothing, and whose first interface is another one, is told as that', () => {
  const [mds, first] = ['52:54:00:00:00:01', '52:54:00:00:00:99'];
  const { name, uuid } = instance();
  const guest = (...interfaces: (readonly [source: string, mac: string])[]): Guest => ({
    domain: { name, uuid: uuid ?? '', running: true },
    interfaces: interfaces.map(([source, mac]) => ({ source, mac })),
    macs: [mds],
  });
  const said = (record: InstanceDetails, ...interfaces: Parameters<typeof guest>) =>
    explainInstance(record, context, guest(...interfaces)).filter((line) =>
      line.startsWith('Its first interface'),
    );
  const silent = instance(boot());
  const line = (where: string) =>
    `Its first interface is ${first} on ${where}. Most images bring up only the first one, and cloud-init looks for metadata there: in its domain (virsh edit web1), put the one on mds or br-mds first.`;
  assert.deepEqual(said(silent, ['default', first], ['mds', mds]), [line('default')]);
  assert.deepEqual(said(silent, ['-', first], ['br-mds', mds]), [line('no network of libvirt')]);
  assert.deepEqual(said(instance(boot({ dhcp: [lease] })), ['default', first], ['mds', mds]), [
    line('default'),
  ]);
  assert.deepEqual(said(silent, ['mds', mds], ['default', first]), []);
  // It has found mdserver; nobody knows of a boot.
  assert.deepEqual(said(instance(boot(asked)), ['default', first], ['mds', mds]), []);
  assert.deepEqual(said(instance(), ['default', first], ['mds', mds]), []);
});

test('a domain that names no datasource is told as that until its guest asks, with the mend', () => {
  const said = (record: InstanceDetails) =>
    explainInstance(record, context).filter((line) => line.startsWith('Its SMBIOS'));
  const none = (...boots: BootRecord[]): InstanceDetails => ({
    ...instance(...boots),
    datasource: 'none',
    last_boot: boots[0] ?? null,
  });
  const nocloud = 'ds=nocloud;s=http://169.254.169.254/nocloud/;dsmode=net';
  const line = (serial: string, domain: string) =>
    `Its SMBIOS names no datasource of mdserver, so cloud-init in most images will look nowhere, unless the image or a seed disk tells it where. This names one, from the next start on: virt-xml --add-device --sysinfo 'smbios,system.serial=${serial}' ${domain}`;
  assert.deepEqual(said(none()), [line(nocloud, 'web1')]);
  assert.deepEqual(said(none(boot({ dhcp: [lease] }))), [line(nocloud, 'web1')]);
  assert.deepEqual(said(none(boot({ ended: start + 5 }))), [line(nocloud, 'web1')]);
  // Half of recipe A is there.
  const uuid = 'ec2b3b52-6a0e-4c57-9d0c-3f3c2b1a7e10';
  assert.deepEqual(said({ ...none(), uuid }), [line(uuid, 'web1')]);
  // virt-xml would read the name as an ID, or as an option.
  assert.deepEqual(said({ ...none(), name: '7' }), [line(nocloud, none().uuid ?? '')]);
  assert.deepEqual(said({ ...none(), name: '-x', uuid: null }), [line(nocloud, '-- -x')]);

  assert.deepEqual(said(none(boot(asked))), []);
  assert.deepEqual(said(none(boot(), boot(asked))), []);
  assert.deepEqual(said(instance(boot())), []);
  assert.deepEqual(said({ ...instance(boot()), datasource: 'nocloud' }), []);
});

test('text from a guest cannot control the terminal', () => {
  const evil = boot({ ...asked, user_agents: ['\x1b]0;x\x07'], errors: ['404 /\x1b[2J'] });
  assert.doesNotMatch(explained(evil).join(''), /[\x00-\x1f]/);
});

test('an address that no instance has: everything that is known about it', () => {
  const report = {
    address: '10.122.9.9',
    instance: null,
    mac: null,
    mac_instance: null,
    last_refused: null,
  };
  const mac = '52:54:00:00:00:09';
  assert.deepEqual(explainAddress({ ...report, last_refused: start }, undefined, context), [
    'No instance has the address 10.122.9.9.',
    'Its last request, which got a 404, was at 2023-11-14T22:13:20Z.',
    "The kernel's neighbour table has no MAC address for it (ip neighbour show 10.122.9.9): ping it and try again.",
  ]);
  const second = (mac_instance: string | null, owner?: Owner | 'no answer') =>
    explainAddress({ ...report, mac, mac_instance }, owner, context)[1];
  assert.match(second('web1') ?? '', /^It belongs to 52:54:00:00:00:09, the MAC address of web1: /);
  const db1 = {
    uuid: '00000000-0000-4000-8000-000000000009',
    name: 'db1',
    running: true,
    source: 'br-mds',
    interfaces: [],
    instance: undefined,
  };
  const interfaces = [{ source: 'mds', mac: instance().mac ?? '' }];
  const is = 'It belongs to 52:54:00:00:00:09. It is the MAC address of the domain db1';
  assert.deepEqual(
    [
      second(null, db1),
      second(null, { ...db1, running: false }),
      second(null, { ...db1, source: 'default' }),
      second(null, { ...db1, name: '7', instance: instance() }),
      second(null, { ...db1, source: 'default', interfaces, instance: instance() }),
      second(null, { ...db1, interfaces, instance: instance() }),
      second(null),
      second(null, 'no answer'),
    ],
    [
      `${is}, which runs without a record, and so without an address: virsh dumpxml db1 | mdserverctl upload -. "mdserverctl check" shows whether the hooks are installed.`,
      `${is}, which does not run. The hook uploads it when it starts; to do so now: virsh dumpxml db1 | mdserverctl upload -`,
      `${is} on default, which mdserver does not serve.`,
      `It belongs to 52:54:00:00:00:09. It is the MAC address of the domain 7, whose record has 52:54:00:00:00:01: only the first interface on the network (virsh domiflist ${db1.uuid}) gets an address. If that has changed: virsh dumpxml ${db1.uuid} | mdserverctl upload -`,
      'It belongs to 52:54:00:00:00:09. It is another interface of db1, on default; its record has 52:54:00:00:00:01 on mds, the only one on which mdserver answers. If db1 looks for metadata on the other one, put 52:54:00:00:00:01 first in its domain (virsh edit db1).',
      'It belongs to 52:54:00:00:00:09. It is another interface of db1, on br-mds; its record has 52:54:00:00:00:01 on mds. Only the first interface on the network gets an address: detach the other one (virsh detach-interface), or set its address in the guest.',
      'It belongs to 52:54:00:00:00:09. No instance and no domain of libvirt has it: it may be a container, another machine, or a guest that changed its MAC address.',
      'It belongs to 52:54:00:00:00:09. libvirt does not answer, so its domain is not known.',
    ],
  );
});
