import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type Domain,
  DomainXmlError,
  JoinedWordsError,
  NoInterfaceError,
} from '../src/instances/domain.js';
import { type Network, parseDomain, parsePort } from '../src/instances/domain-xml.js';
import { deceptiveCharacters } from '../src/text.js';
import { rowName } from './support/rows.js';

const ours = 'urn:md_server:domain_metadata';
const uuid = '6695eb01-f6a4-8304-79aa-97f2502e193f';
/** The network of the defaults. */
const mds: Network = { net_name: 'mds', interface: 'br-mds' };
const nic =
  "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='mds'/></interface>";

/** A domain XML with each part replaced by what is given. */
function xml({
  attributes = "type='kvm'",
  name = '<name>vm</name>',
  uuidElement = `<uuid>${uuid}</uuid>`,
  devices = `<devices>${nic}</devices>`,
  more = '',
} = {}): string {
  return `<domain ${attributes}>${name}${uuidElement}${more}${devices}</domain>`;
}

const plain = {
  name: 'vm',
  uuid,
  mac: '52:54:00:00:00:01',
  metadata: {},
  vcpus: undefined,
  memoryKib: undefined,
  architecture: undefined,
  smbios: undefined,
};

function metadataOf(metadata: string, attributes?: string): Domain['metadata'] {
  const more = `<metadata>${metadata}</metadata>`;
  return parseDomain(xml(attributes === undefined ? { more } : { more, attributes }), mds).metadata;
}

function refusal(body: Buffer | string): { code: string; message: string } {
  return refusalOf(() => parseDomain(body, mds));
}

/** How a body is refused. Throws if it is taken. */
function refusalOf(parse: () => unknown): { code: string; message: string } {
  let taken: unknown;
  try {
    taken = parse();
  } catch (error) {
    assert.ok(error instanceof DomainXmlError, String(error));
    assert.doesNotMatch(error.message, /[\n\r\0]/);
    assert.ok(error.message.length <= 301);
    return {
      code: error instanceof NoInterfaceError ? 'NO_INTERFACE' : 'DOMAIN_XML',
      message: error.message,
    };
  }
  throw new assert.AssertionError({ message: `taken: ${JSON.stringify(taken)}` });
}

function assertBad(body: Buffer | string, message: RegExp | string): void {
  const refused = refusal(body);
  assert.equal(refused.code, 'DOMAIN_XML');
  if (typeof message === 'string') assert.equal(refused.message, message);
  else assert.match(refused.message, message);
}

function fixture(name: string): Buffer {
  return readFileSync(new URL(`../../test/fixtures/domains/${name}`, import.meta.url));
}

/** What `curl -d @file` makes of a file. */
function asCurlSends(body: Buffer): Buffer {
  return Buffer.from(body.toString().replace(/[\r\n\0]/g, ''));
}

// `virsh dumpxml` of libvirt 9.0's test driver.
const recorded: readonly [file: string, network: string, domain: object][] = [
  [
    'test-driver.xml',
    'default',
    {
      name: 'test',
      uuid,
      mac: 'aa:bb:cc:dd:ee:ff',
      metadata: {},
      vcpus: 2,
      memoryKib: 8388608,
      architecture: 'i686',
      smbios: {},
    },
  ],
  [
    'web.xml',
    'mds',
    {
      name: 'web&server',
      uuid: 'ec2f4d2a-3b1c-4e5f-8a9b-0c1d2e3f4a5b',
      mac: '52:54:00:ab:cd:ef',
      metadata: { userdata_prefix: 'web/base', role: 'front & back', empty: '' },
      vcpus: 4,
      memoryKib: 1953125,
      architecture: 'x86_64',
      smbios: {
        serial: 'ds=nocloud-net;s=http://169.254.169.254/nocloud/',
        uuid: 'ec2f4d2a-3b1c-4e5f-8a9b-0c1d2e3f4a5b',
      },
    },
  ],
  [
    'running.xml',
    'mds',
    {
      name: '0123',
      uuid: '0123e456-7e89-11da-95fe-8d3b4a1b2c3d',
      mac: '52:54:00:00:00:07',
      metadata: { userdata_prefix: 'plain' },
      vcpus: 1,
      memoryKib: 524288,
      architecture: 'aarch64',
      smbios: {},
    },
  ],
  [
    'default-namespace.xml',
    'default',
    {
      name: 'default-namespace',
      uuid: '11111111-2222-4333-8444-555555555555',
      mac: '52:54:00:a5:5e:07',
      metadata: { role: 'a', note: 'x < y & z' },
      vcpus: 1,
      memoryKib: 65536,
      architecture: 'i686',
      smbios: {},
    },
  ],
  // An interface that names the bridge, as of virt-install --network bridge=br-mds.
  [
    'bridge.xml',
    'mds',
    {
      name: 'c1',
      uuid: '11111111-2222-4333-8444-555555555555',
      mac: '52:54:00:aa:bb:01',
      metadata: {},
      vcpus: 2,
      memoryKib: 1048576,
      architecture: 'x86_64',
      smbios: {},
    },
  ],
];

for (const [file, network, domain] of recorded) {
  test(`${file}, written by libvirt, is read whole`, () => {
    assert.deepEqual(parseDomain(fixture(file), { ...mds, net_name: network }), domain);
  });
  test(`${file} reads the same as curl -d sends it, with CRLF, a byte-order mark or a declaration`, async (t) => {
    const text = fixture(file).toString();
    for (const body of [
      asCurlSends(fixture(file)),
      text.replaceAll('\n', '\r\n'),
      `\ufeff${text}`,
      Buffer.from(`\ufeff${text}`),
      `<?xml version='1.0' encoding='UTF-8'?>\n<!-- edited by virsh --><?pi?>${text}<!-- end -->\n`,
      asCurlSends(Buffer.from(`<?xml version="1.0"?>\n${text}`)),
    ]) {
      await t.test(rowName(body), () => {
        assert.deepEqual(parseDomain(body, { ...mds, net_name: network }), domain);
      });
    }
  });
}

test('the name is text, whatever it looks like', async (t) => {
  for (const [written, name] of [
    ['0123', '0123'],
    ['true', 'true'],
    ['1e3', '1e3'],
    ['0x10', '0x10'],
    ['  a b ', '  a b '],
    [' ', ' '],
    ['\u00a0a\u3000', '\u00a0a\u3000'],
    ['\u{1f986}', '\u{1f986}'],
    ['नमस्ते', 'नमस्ते'],
    ['a&amp;b', 'a&b'],
    ['a&amp;lt;b', 'a&lt;b'],
    ['&#119;&#x65;b', 'web'],
    ['a<!-- <name>x</name> -->b', 'ab'],
    ['a<![CDATA[&amp;]]>b', 'a&amp;b'],
    ['a<?b c?>d', 'ad'],
    ['größe', 'größe'],
    ['__proto__', '__proto__'],
    ['toString', 'toString'],
    ['x'.repeat(255), 'x'.repeat(255)],
  ]) {
    await t.test(rowName(written), () => {
      assert.deepEqual(parseDomain(xml({ name: `<name>${written}</name>` }), mds), {
        ...plain,
        name,
      });
    });
  }
});

test('a name that cannot be the name of a file, or that reads as another name, is refused', async (t) => {
  for (const name of [
    '',
    '.',
    '..',
    'a/b',
    '../x',
    'a&#10;b',
    'a\tb',
    '&#x85;x',
    'a&#x9f;',
    'ß'.repeat(128),
    // Line ends: of Unix, Windows, YAML 1.1 and Unicode.
    'a\n',
    'a&#13;',
    'a\u0085b',
    'a\u2028b: [[sh, -c, id]] #',
    '\u2029',
    // Text in another order.
    'a\u202egpj.exe',
    'a\u2066b',
    'a\u200f',
    'a\u061cb',
    // Nothing to see: zero width, soft hyphen, variation selector, filler, tag, annotation.
    'a\u200b',
    'a\u200d',
    '\ufeffa',
    'a\u2060b',
    'a\u00adb',
    '\u2764\ufe0f',
    'a\u{e0100}',
    'a\u3164',
    'a\u{e0061}',
    'a\ufff9b',
    // Noncharacters.
    'a\ufdd0',
    'a\u{1ffff}',
  ]) {
    await t.test(rowName(name), () => {
      assertBad(xml({ name: `<name>${name}</name>` }), /^the <name> of the domain is /);
    });
  }
  assertBad(
    xml({ name: '<name>a&#0;b</name>' }),
    /^"&#0;" is neither a character reference nor one of /,
  );
});

test('there is exactly one name and one uuid, right under the domain', () => {
  assertBad(xml({ name: '' }), 'the domain has no <name>: libvirt writes one');
  assertBad(xml({ uuidElement: '' }), 'the domain has no <uuid>: libvirt writes one');
  assertBad(
    xml({ name: '<os><name>x</name></os>' }),
    'the domain has no <name>: libvirt writes one',
  );
  assertBad(xml({ name: "<q:name xmlns:q='urn:q'>x</q:name>" }), /has no <name>/);
  assertBad(xml({ name: "<name xmlns='urn:q'>x</name>" }), /has no <name>/);
  assertBad(xml({ more: '<name>vm</name>' }), 'the domain has more than one <name>');
  assertBad(xml({ more: `<uuid>${uuid}</uuid>` }), 'the domain has more than one <uuid>');
  assertBad(
    xml({ name: '<name>a<b/>c</name>' }),
    'the <name> of the domain contains another element',
  );
});

test('a UUID is made canonical, and anything else is refused', async (t) => {
  for (const written of [uuid, uuid.toUpperCase(), uuid.replaceAll('-', ''), ` ${uuid}\n`]) {
    await t.test(rowName(written), () => {
      assert.deepEqual(parseDomain(xml({ uuidElement: `<uuid>${written}</uuid>` }), mds), plain);
    });
  }
  for (const written of ['', 'x', `${uuid}0`, uuid.slice(1), uuid.replace('6', 'g')]) {
    await t.test(rowName(written), () => {
      assertBad(
        xml({ uuidElement: `<uuid>${written}</uuid>` }),
        `the <uuid> of the domain is "${written}", which is not a UUID`,
      );
    });
  }
});

test('the MAC is that of the first interface on the network', async (t) => {
  const other =
    "<interface type='network'><source network='default'/><mac address='52:54:00:00:00:02'/></interface>";
  const second = nic.replace(':01', ':03');
  for (const devices of [
    `<devices>${nic}</devices>`,
    `<devices>${other}${nic}${second}</devices>`,
    `<devices>${other}</devices><devices>${nic}</devices>`,
    `<devices>${nic.replaceAll("'", '"')}</devices>`,
    `<devices><interface type='bridge'><mac address="52:54:00:00:00:01"/><source portid='x' network = "mds" bridge='br-mds'/></interface></devices>`,
    `<devices><interface><source network='m&#100;s'></source><mac address='52:54:00:00:00:01'></mac></interface></devices>`,
  ]) {
    await t.test(rowName(devices), () => {
      assert.deepEqual(parseDomain(xml({ devices }), mds), plain);
    });
  }
  assert.equal(
    parseDomain(
      xml({
        devices: `<devices>${nic.replace('52:54:00:00:00:01', 'AE:54:00:00:00:0F')}</devices>`,
      }),
      mds,
    ).mac,
    'ae:54:00:00:00:0f',
  );
  const short = `<devices>${nic.replace('52:54:00:00:00:01', '52:54:0:0:0:1')}</devices>`;
  assert.deepEqual(parseDomain(xml({ devices: short }), mds), plain);
});

test('an interface on the bridge counts where there is none on the network', async (t) => {
  const on = (number: number, source: string) =>
    `<interface type='bridge'><mac address='52:54:00:00:00:0${number}'/><source ${source}/></interface>`;
  const network = on(1, "network='mds' bridge='br-mds'");
  const bridge = on(2, "bridge='br-mds'");
  const elsewhere = on(3, "bridge='br0'");
  // As libvirt shows one of a running domain: it adds the bridge.
  const otherNetwork = on(4, "network='default' bridge='virbr0'");
  const sameBridge = on(5, "network='other' bridge='br-mds'");
  for (const [devices, expected] of [
    [bridge + network, 1],
    [elsewhere + otherNetwork + sameBridge + bridge + on(6, "bridge='br-mds'"), 2],
    [bridge.replace("'bridge'", "'network'"), 2],
  ] as const) {
    await t.test(rowName(devices), () => {
      const { mac } = parseDomain(xml({ devices: `<devices>${devices}</devices>` }), mds);
      assert.equal(mac, `52:54:00:00:00:0${expected}`);
    });
  }
  for (const devices of [elsewhere, otherNetwork, sameBridge]) {
    await t.test(rowName(devices), () => {
      const { code } = refusal(xml({ devices: `<devices>${devices}</devices>` }));
      assert.equal(code, 'NO_INTERFACE');
    });
  }
});

test('a refusal for want of an interface names the uuid of the domain', () => {
  const found: unknown[] = [];
  try {
    parseDomain(xml({ devices: '' }), mds);
  } catch (error) {
    found.push(error instanceof NoInterfaceError && error.uuid);
  }
  assert.deepEqual(found, [uuid]);
});

// ---- ports ----

test('what libvirt gives its network hook at port-created is read: the owner and the MAC', () => {
  assert.deepEqual(parsePort(fixture('port.xml'), mds), {
    name: 'c & d',
    uuid: 'f91ade54-8323-4b80-a9ae-46706af5c155',
    mac: '52:54:00:d6:13:c1',
  });
});

test('a port that is on another network, or no port, is refused', async (t) => {
  const whole = fixture('port.xml').toString();
  const without = (pattern: RegExp) => whole.replace(pattern, '');
  const rows: readonly [string, string, { code: string; message: string }][] = [
    [
      'another network',
      whole.replace('<name>mds</name>', '<name>default</name>'),
      { code: 'NO_INTERFACE', message: 'the port of "c & d" is not on the network "mds"' },
    ],
    [
      'a network that has come up',
      without(/<networkport>[\s\S]*<\/networkport>/),
      { code: 'DOMAIN_XML', message: 'there is no <networkport>' },
    ],
    [
      'no owner',
      without(/<owner>[\s\S]*<\/owner>/),
      { code: 'DOMAIN_XML', message: 'the port has no <owner>' },
    ],
    [
      'no MAC',
      without(/<mac address='52:54:00:d6[^>]*>/),
      {
        code: 'DOMAIN_XML',
        message: 'the port of "c & d" has no <mac address=…>: libvirt writes one',
      },
    ],
    [
      'a name that is no file name',
      whole.replace('c &amp; d', '../d'),
      {
        code: 'DOMAIN_XML',
        message: 'the <name> of the port\'s owner is "../d": "/", "." and ".." are not allowed',
      },
    ],
    [
      'a domain',
      xml(),
      { code: 'DOMAIN_XML', message: 'the root element is <domain>, not <hookData>' },
    ],
    [
      'an empty body',
      '',
      {
        code: 'DOMAIN_XML',
        message: 'the body is empty: curl needs -d @FILE or --data-binary @FILE',
      },
    ],
  ];
  for (const [what, body, expected] of rows) {
    await t.test(what, () => {
      assert.deepEqual(
        refusalOf(() => parsePort(body, mds)),
        expected,
      );
    });
  }
});

test('a domain with no interface on the network is told from a bad one', async (t) => {
  for (const devices of [
    '',
    '<devices/>',
    "<devices><interface type='user'/></devices>",
    "<devices><interface><source network='MDS'/></interface></devices>",
    "<devices><interface><source network='mds2'/></interface></devices>",
    "<devices><interface><source network=' mds'/></interface></devices>",
    "<devices><interface type='bridge'><source bridge='mds'/></interface></devices>",
    nic,
    `<devices><hostdev>${nic}</hostdev></devices>`,
    `<metadata><x:devices xmlns:x='urn:x'>${nic}</x:devices></metadata>`,
    `<metadata><x:m xmlns:x='urn:x'><devices>${nic}</devices></x:m></metadata>`,
    `<devices xmlns='urn:x'>${nic}</devices>`,
    `<!-- <devices>${nic}</devices> -->`,
    `<description><![CDATA[<devices>${nic}</devices>]]></description>`,
  ]) {
    await t.test(rowName(devices), () => {
      assert.deepEqual(refusal(xml({ devices })), {
        code: 'NO_INTERFACE',
        message: 'the domain "vm" has no interface on the network "mds" or the bridge "br-mds"',
      });
    });
  }
});

test('a missing, bad or multicast MAC is refused by name', async (t) => {
  const where = 'the interface of "vm" on the network "mds"';
  const devices = (mac: string) =>
    `<devices>${nic.replace("<mac address='52:54:00:00:00:01'/>", mac)}</devices>`;
  assertBad(xml({ devices: devices('') }), `${where} has no <mac address=…>: libvirt writes one`);
  assertBad(
    xml({ devices: devices('<mac/>') }),
    `${where} has no <mac address=…>: libvirt writes one`,
  );
  for (const mac of ['', 'x', '52:54:00:00:00', '525400000001', '52:54:00:00:00:01 ']) {
    await t.test(rowName(mac), () => {
      assertBad(
        xml({ devices: devices(`<mac address='${mac}'/>`) }),
        `${where} has an invalid MAC address: "${mac}"`,
      );
    });
  }
  for (const mac of ['01:00:5e:00:00:01', 'ff:ff:ff:ff:ff:ff']) {
    await t.test(rowName(mac), () => {
      assertBad(
        xml({ devices: devices(`<mac address='${mac}'/>`) }),
        `${where} has a multicast MAC address: "${mac}"`,
      );
    });
  }
});

test('metadata is known by its namespace, wherever that is declared, whatever its prefix', () => {
  const expected = { userdata_prefix: 'x' };
  assert.deepEqual(
    metadataOf(`<m:userdata_prefix xmlns:m='${ours}'>x</m:userdata_prefix>`),
    expected,
  );
  assert.deepEqual(metadataOf(`<userdata_prefix xmlns="${ours}">x</userdata_prefix>`), expected);
  assert.deepEqual(
    metadataOf('<m:userdata_prefix>x</m:userdata_prefix>', `xmlns:m='${ours}'`),
    expected,
  );
  assert.deepEqual(
    parseDomain(
      xml({
        more: `<metadata xmlns:m='${ours}'><m:userdata_prefix>x</m:userdata_prefix></metadata>`,
      }),
      mds,
    ).metadata,
    expected,
  );
  // An inner declaration overrides an outer one, in both directions.
  assert.deepEqual(
    metadataOf(
      `<m:a xmlns:m='urn:x'>1</m:a><m:userdata_prefix>x</m:userdata_prefix>`,
      `xmlns:m='${ours}'`,
    ),
    expected,
  );
  assert.deepEqual(
    metadataOf(
      `<m:a>1</m:a><m:userdata_prefix xmlns:m='${ours}'>x</m:userdata_prefix>`,
      "xmlns:m='urn:x'",
    ),
    expected,
  );
  assert.deepEqual(
    metadataOf(
      `<m:userdata_prefix xmlns:m='urn:md_server:domain&#95;metadata'>x</m:userdata_prefix>`,
    ),
    expected,
  );
});

test('metadata with the prefix mdserver counts in any namespace, as the Python server reads it', () => {
  assert.deepEqual(
    metadataOf(
      '<mdserver:userdata_prefix>x</mdserver:userdata_prefix>',
      "xmlns:mdserver='http://example.com/mdserver'",
    ),
    { userdata_prefix: 'x' },
  );
});

test('metadata of other programs is ignored', () => {
  assert.deepEqual(
    metadataOf(
      `<a>1</a><userdata_prefix xmlns='urn:x'>2</userdata_prefix><x:y xmlns:x='urn:x'><m:z xmlns:m='${ours}'>3</m:z></x:y>`,
    ),
    {},
  );
  assert.deepEqual(parseDomain(xml({ more: `<m:a xmlns:m='${ours}'>1</m:a>` }), mds), plain);
});

test('an element with an undeclared prefix is refused where libvirt would drop a value of mdserver', () => {
  const undeclared = /^the prefix of <q:a> is not declared: xmlns:q=… is missing$/;
  assertBad(xml({ more: '<metadata><q:a>1</q:a></metadata>' }), undeclared);
  assertBad(
    xml({ more: `<metadata><m:i xmlns:m='${ours}'><q:a>1</q:a></m:i></metadata>` }),
    undeclared,
  );
  // libvirt keeps it in the metadata of another application.
  assert.deepEqual(metadataOf(`<x:y xmlns:x='urn:x'><q:a z:b='1'>1</q:a></x:y>`), {});
  assertBad(xml({ name: '<q:name>x</q:name>' }), /has no <name>/);
});

test('an element of ours that holds elements of ours is a container: they are the values', () => {
  assert.deepEqual(
    metadataOf(
      `<m:instance xmlns:m='${ours}' m:attribute='ignored'> text
         <m:a>1</m:a><m:b/><m:c> two <!-- x --> words </m:c><x:d xmlns:x='urn:x'>no</x:d><m:e>5<m:f>6</m:f></m:e>
       </m:instance>
       <m:plain xmlns:m='${ours}'>p<x:d xmlns:x='urn:x'>no</x:d></m:plain>`,
    ),
    { a: '1', b: '', c: 'two  words', e: '5', plain: 'p' },
  );
});

test('children of the container without a namespace are values, as virsh metadata --set makes them', () => {
  assert.deepEqual(
    metadataOf(
      `<m:instance xmlns:m='${ours}'>
         <role>a</role><m:userdata>b</m:userdata><role>c</role><x xmlns='urn:x'>no</x>
       </m:instance>`,
    ),
    { role: 'a', userdata: 'b' },
  );
  assert.deepEqual(metadataOf(`<m:role xmlns:m='${ours}'>a</m:role>`), { role: 'a' });
  // In the namespace that the container declares for elements without a prefix.
  assert.deepEqual(metadataOf(`<instance xmlns='${ours}'><role>a</role></instance>`), {
    role: 'a',
  });
  assert.deepEqual(
    metadataOf(`<x:instance xmlns:x='urn:x'><role>a</role></x:instance><role>b</role>`),
    {},
  );
});

test('of two values with the same name the first counts, as libvirt keeps the first', () => {
  assert.deepEqual(
    metadataOf(`<a xmlns='${ours}'>1</a><i xmlns='${ours}'><a>2</a><b>3</b><b>4</b></i>`),
    { a: '1', b: '3' },
  );
});

test('names that reach into a prototype are refused for values of mdserver, and others that objects have are just names', async (t) => {
  for (const name of ['__proto__', 'constructor', 'prototype']) {
    for (const more of [
      `<${name}/>`,
      `<os><${name}>x</${name}></os>`,
      `<metadata><m:${name} xmlns:m='${ours}'>x</m:${name}></metadata>`,
      `<metadata><i xmlns='${ours}'><${name} a='1'>x</${name}></i></metadata>`,
      `<metadata><m:i xmlns:m='${ours}'><${name}>x</${name}></m:i></metadata>`,
    ]) {
      await t.test(rowName(more), () => {
        assertBad(
          xml({ more }),
          /^an element must not be named <(m:)?\w+>, except in the metadata of other applications$/,
        );
      });
    }
  }
  const metadata = metadataOf(
    `<i xmlns='${ours}'><toString>1</toString><hasOwnProperty/><__defineGetter__/></i>`,
  );
  assert.deepEqual(Object.entries(metadata), [
    ['toString', '1'],
    ['hasOwnProperty', ''],
    ['__defineGetter__', ''],
  ]);
});

test('the metadata of another application may have any names, and changes no object', async (t) => {
  const before = Object.getOwnPropertyNames(Object.prototype);
  const value = `<m:role xmlns:m='${ours}'>a</m:role>`;
  for (const name of ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty']) {
    for (const other of [
      `<x:${name} xmlns:x='urn:x' b='1'>x</x:${name}>`,
      `<x:${name} xmlns:x='urn:x'/>`,
      `<${name} xmlns='urn:x'><${name} ${name}='1'/></${name}>`,
      `<x:a xmlns:x='urn:x' ${name}='1' x:${name}='2'><${name}><${name}>x</${name}></${name}></x:a>`,
      `<${name}:a xmlns:${name}='urn:x'><${name}:${name}/></${name}:a>`,
    ]) {
      await t.test(rowName(other), () => {
        assert.deepEqual(metadataOf(other + value), { role: 'a' });
      });
    }
    assert.deepEqual(metadataOf(`<${name}:role xmlns:${name}='${ours}'>a</${name}:role>`), {
      role: 'a',
    });
  }
  assert.deepEqual(metadataOf(`<x:a:b xmlns:x='urn:x'/>${value}`), { role: 'a' });
  // Quotes and markup that are none.
  for (const other of [
    `<?p it's?><!-- it's " <?b -->`,
    `<![CDATA[<?b ' <!-- ]]>`,
    '<?b <!-- <![CDATA[?>',
    `<b c='?>' d="-->"/>`,
    // Names that Namespaces in XML has not, and libvirt has.
    "<x:a:b c:d:e='1' :f='2' g:='3'/>",
    '<:role>b</:role>',
    "<\u{10348} \u{10348}='\u{1f986}'>\u{1f986}</\u{10348}>",
    "<b xmlns:c=''/>",
  ]) {
    await t.test(rowName(other), () => {
      const elements = `<x:a xmlns:x='urn:x'>${other}</x:a>${value}<x:b xmlns:x='urn:y'>'</x:b>`;
      assert.deepEqual(metadataOf(elements), { role: 'a' });
    });
  }
  assert.deepEqual(Object.getOwnPropertyNames(Object.prototype), before);
  assert.equal(({} as Record<string, unknown>)['x'], undefined);
});

test('memory is read in the units of libvirt and rounded up to KiB', async (t) => {
  for (const [memory, memoryKib] of [
    ['<memory>1024</memory>', 1024],
    ["<memory unit='KiB'>1</memory>", 1],
    ["<memory unit='k'>1</memory>", 1],
    ["<memory unit='K'>1</memory>", 1],
    ["<memory unit='KB'>1024</memory>", 1000],
    ["<memory unit='b'>1</memory>", 1],
    ["<memory unit='bytes'>2049</memory>", 3],
    ["<memory unit='M'>1</memory>", 1024],
    ["<memory unit='MiB'>1</memory>", 1024],
    ["<memory unit='MB'>1</memory>", 977],
    ["<memory unit='GiB'> 2 </memory>", 2097152],
    ["<memory unit='G'>2</memory>", 2097152],
    ["<memory unit='GB'>2</memory>", 1953125],
    ["<memory unit='TiB'>1</memory>", 1073741824],
    ["<memory unit='T'>1</memory>", 1073741824],
    ["<memory unit='TB'>1</memory>", 976562500],
    ["<memory unit='byte'>1073741825</memory>", 1048577],
    ["<memory unit='PiB'>1</memory>", 2 ** 40],
    ["<memory unit='pb'>1</memory>", 976562500000],
    ["<memory unit='eib'>1</memory>", 2 ** 50],
    ["<memory unit='E'>7</memory>", 7 * 2 ** 50],
    ["<memory unit=''>+04</memory>", 4],
    ['<memory>1</memory><memory>2</memory>', 1],
  ] as const) {
    await t.test(rowName(memory), () => {
      assert.deepEqual(parseDomain(xml({ more: memory }), mds), { ...plain, memoryKib });
    });
  }
});

test('hardware that makes no sense is left out, and refuses no upload', async (t) => {
  for (const more of [
    '<memory/>',
    '<memory>0</memory>',
    '<memory>-1</memory>',
    '<memory>1.5</memory>',
    '<memory>1e3</memory>',
    '<memory>0x10</memory>',
    '<memory><a>1</a></memory>',
    "<memory unit='X'>1</memory>",
    "<memory unit='iB'>1</memory>",
    "<memory unit='KiBs'>1</memory>",
    "<memory unit='constructor'>1</memory>",
    "<memory unit='EiB'>9</memory>",
    `<memory>${'9'.repeat(5000)}</memory>`,
    '<vcpu/>',
    '<vcpu>0</vcpu>',
    '<vcpu>-1</vcpu>',
    '<vcpu>two</vcpu>',
    '<vcpu>1.5</vcpu>',
    '<vcpu>9999999999</vcpu>',
    "<os><type arch='a b'/></os>",
    "<os><type arch=''/></os>",
    `<os><type arch='${'x'.repeat(33)}'/></os>`,
    '<os/>',
  ]) {
    await t.test(rowName(more), () => {
      assert.deepEqual(parseDomain(xml({ more }), mds), plain);
    });
  }
});

test('the vcpu count and the architecture are read', () => {
  const vcpu = "<vcpu current='1'>16</vcpu><vcpu>2</vcpu>";
  const os = "<os><type machine='virt' arch='aarch64'>hvm</type></os>";
  assert.deepEqual(parseDomain(xml({ more: vcpu + os }), mds), {
    ...plain,
    vcpus: 16,
    architecture: 'aarch64',
    smbios: {},
  });
  assert.equal(parseDomain(xml({ more: '<vcpu> 04\n</vcpu>' }), mds).vcpus, 4);
});

test('a body that is not XML is refused with a hint about curl', async (t) => {
  for (const body of ['', ' \r\n', '\ufeff', Buffer.alloc(0)]) {
    await t.test(rowName(body), () => {
      assertBad(body, 'the body is empty: curl needs -d @FILE or --data-binary @FILE');
    });
  }
  assertBad(
    'instance.xml',
    'the body is not XML but starts with "instance.xml": curl needs -d @FILE or --data-binary @FILE',
  );
  assertBad('{"a": 1}', /^the body is not XML/);
  assertBad(Buffer.from([0x3c, 0x61, 0xff, 0x3e]), 'the body is not UTF-8 text');
  assertBad(Buffer.from(`\ufeff${xml()}`, 'utf16le'), 'the body is not UTF-8 text');
  assertBad(
    Buffer.from(xml({ name: '<name>gr\u00f6\u00dfe</name>' }), 'latin1'),
    'the body is not UTF-8 text',
  );
});

test('only UTF-8 may be declared', async (t) => {
  for (const encoding of ['UTF-8', 'utf-8', 'utf8', 'US-ASCII', 'ascii']) {
    await t.test(rowName(encoding), () => {
      assert.deepEqual(
        parseDomain(`<?xml version="1.0" encoding="${encoding}" standalone='yes'?>${xml()}`, mds),
        plain,
      );
    });
  }
  for (const encoding of ['ISO-8859-1', 'UTF-16', 'windows-1252', '']) {
    await t.test(rowName(encoding), () => {
      assertBad(
        `<?xml version='1.0' encoding='${encoding}'?>${xml()}`,
        `line 1: the declared encoding is "${encoding}": only UTF-8 is supported`,
      );
    });
  }
});

test('there is one root element, a domain, and nothing beside it', async (t) => {
  const one = xml();
  for (const around of [` \n${one}\n `, `<!-- a --><?b?>${one}<!-- <b> --><?c d?>`]) {
    await t.test(rowName(around), () => {
      assert.deepEqual(parseDomain(around, mds), plain);
    });
  }
  assertBad(`<domstatus>${one}</domstatus>`, 'the root element is <domstatus>, not <domain>');
  assertBad(
    `<domainsnapshot>${one}</domainsnapshot>`,
    'the root element is <domainsnapshot>, not <domain>',
  );
  assertBad("<Domain type='kvm'/>", 'the root element is <Domain>, not <domain>');
  assertBad(
    `<html><body>502 Bad Gateway</body></html>`,
    'the root element is <html>, not <domain>',
  );
  assertBad(
    xml({ attributes: "xmlns='urn:x'" }),
    `the root element is <domain> in the namespace "urn:x": libvirt's <domain> has no namespace`,
  );
  assertBad(
    "<x:domain xmlns:x='urn:x'/>",
    /^the root element is <x:domain> in the namespace "urn:x"/,
  );
  for (const two of [
    one + one,
    `${one}<a/>`,
    `<a/>${one}`,
    `${one}x`,
    `${one}&amp;`,
    `${one}&amp;<!-- -->`,
    `${one}<![CDATA[x]]>`,
    `<![CDATA[x]]>${one}`,
    `<!-- -->&amp;${one}`,
    `${one}]]>`,
    `${one}</domain>`,
    `${one}\n<?xml version='1.0'?>`,
    ` <?xml version='1.0'?>${one}`,
  ]) {
    await t.test(rowName(two), () => {
      assertBad(two, /^(line \d+, column \d+: |text outside the root element$)/);
    });
  }
  assertBad('<!-- only this -->', 'line 1, column 1: Start tag expected.');
});

test('a DOCTYPE is refused, and text that only looks like one is not', async (t) => {
  const doctype = '<!DOCTYPE domain [<!ENTITY amp "x"><!ENTITY b "&amp;&amp;&amp;">]>';
  for (const body of [
    doctype + xml(),
    `<?xml version='1.0'?>\n<!-- c --><?p?> ${doctype}${xml()}`,
    `\ufeff${doctype}`,
    `<!doctype html>${xml()}`,
    '<!DOCTYPE',
  ]) {
    await t.test(rowName(body), () => {
      assertBad(body, '<!DOCTYPE …> is not allowed: virsh dumpxml writes none');
    });
  }
  assertBad(xml({ more: doctype }), /DOCTYPE must appear before the root element/);
  assertBad(xml() + doctype, /DOCTYPE must appear before the root element/);
  const more = `<description><![CDATA[${doctype}]]><!-- ${doctype} -->&lt;!DOCTYPE x></description>`;
  assert.deepEqual(parseDomain(`<!-- ${doctype} --><?p <!DOCTYPE?>${xml({ more })}`, mds), plain);
});

test('only the entities of XML itself and characters are references', async (t) => {
  for (const reference of [
    '&nbsp;',
    '&copy;',
    '&AMP;',
    '&x;',
    '&#0;',
    '&#8;',
    '&#xD800;',
    '&#xFFFF;',
    '&#x110000;',
    `&#${'9'.repeat(400)};`,
  ]) {
    await t.test(rowName(reference), () => {
      assertBad(
        xml({ more: `<a>${reference}</a>` }),
        /^"&#?\w+[;…]" is neither a character reference nor one of &amp; &lt; &gt; &quot; &apos;$/,
      );
      assertBad(
        xml({ more: `<a b="${reference}"/>` }),
        /^"&#?\w+[;…]" is neither a character reference nor one of/,
      );
    });
  }
  for (const stray of ['&', 'a & b', '&;', '&#;', '&#x;', '&#xg;', '&amp']) {
    await t.test(rowName(stray), () => {
      assertBad(xml({ more: `<a>${stray}</a>` }), /&/);
      assertBad(
        xml({ more: `<a b="${stray}"/>` }),
        '"&" without a reference: write &amp; for a literal "&"',
      );
    });
  }
  assert.deepEqual(metadataOf(`<a xmlns='${ours}'>&lt;&gt;&quot;&apos;&amp;amp;&#x1F600;</a>`), {
    a: '<>"\'&amp;😀',
  });
});

test('XML that is not well-formed is refused with line and column', async (t) => {
  for (const [body, message] of [
    [
      '<domain>\n  <name>a</nam>\n</domain>',
      "line 2, column 10: Expected closing tag 'name' (opened in line 2, col 3) instead of closing tag 'nam'.",
    ],
    ['<domain>\n<a:1></a:b></domain>', /^line 2, column 6: Expected closing tag 'a:1' /],
    [
      "<?xml version='1.0'?><domain>\n<a b='1' b='2'/></domain>",
      "line 2, column 10: Attribute 'b' is repeated.",
    ],
    ["<?xml version='1.0'?><domain <", /^line 1, column \d+: /],
    ['<domain>\n<a b=1/></domain>', "line 2, column 4: Attribute 'b' is without value."],
    ['<domain>\n<a b/></domain>', "line 2, column 4: boolean attribute 'b' is not allowed."],
    [
      "<domain>\n<a b='<'/></domain>",
      "line 2, column 4: Attribute 'b' value must not contain '<'.",
    ],
    [
      '<domain>\n\x01</domain>',
      'line 2, column 1: Illegal control character 0x01 in document content.',
    ],
    ['<domain>\n<!-- a -- b --></domain>', /Comment must not contain '--'/],
    ['<domain>\n]]></domain>', /must not contain ']]>'/],
    ['<domain>\n', /^line 1, column 1: Unclosed tag 'domain'/],
    ['<domain>\n<!-- ', /Comment is not closed/],
    ['<domain>\n<![CDATA[ ]]', /CDATA section is not closed/],
    ["<domain a='\n", /open quote/],
  ] as const) {
    await t.test(rowName(body), () => {
      assertBad(body, message);
    });
  }
});

test('the column is right behind an XML declaration on the same line', () => {
  const declaration = "<?xml version='1.0'?>";
  assertBad(
    `${declaration}<domain><1/></domain>\n `,
    /^line 1, column 30: Tag '1' is an invalid name/,
  );
});

test('an error that may be of words that curl -d has joined is told from others', async (t) => {
  const isJoined = (body: string) => {
    try {
      parseDomain(body, mds);
    } catch (error) {
      return error instanceof JoinedWordsError;
    }
    return false;
  };
  for (const handWritten of [
    "<domain\ntype='kvm'>\n</domain>",
    "<domain type='kvm'\nid='1'>\n</domain>",
    "<domain>\n<q:a\nxmlns:q='urn:q'/>\n</domain>",
    xml().replaceAll(/ (\w+=)/g, '\n$1'),
  ]) {
    await t.test(rowName(handWritten), () => {
      assert.equal(isJoined(handWritten), false);
      assert.equal(isJoined(asCurlSends(Buffer.from(handWritten)).toString()), true);
    });
  }
  for (const broken of [
    "<domain type='kvm'id='1'>\n</domain>",
    '<domain><1/></domain>',
    '<domain><a></b></domain>',
    '<domain><a></domain>',
    '<domain a></domain>',
    '<domain a=1></domain>',
    "<domain a='1' a='2'></domain>",
    "<domain a='<'></domain>",
    '< domain/>',
    'domain',
    '',
  ]) {
    await t.test(rowName(broken), () => {
      assert.equal(isJoined(broken), false);
    });
  }
});

test('a message is one short line, whatever the body holds', async (t) => {
  for (const body of [
    `<${'x'.repeat(5000)}/>`,
    `<${'<'.repeat(5000)}`,
    xml({ name: `<name>${'/'.repeat(5000)}</name>` }),
    xml({ name: '<name>a&#10;b/</name>' }),
    xml({ uuidElement: `<uuid>${'\n \u2028x'.repeat(5000)}</uuid>` }),
    xml({ more: `<metadata><${'x'.repeat(5000)}:b/></metadata>` }),
    xml({ devices: `<devices>${nic.replace('52', 'x\n'.repeat(5000))}</devices>` }),
    '<a>'.repeat(5000),
  ]) {
    await t.test(rowName(body), () => {
      refusal(body);
    });
  }
});

test('a megabyte made to be slow is refused or read', async (t) => {
  const fill = (piece: string) => piece.repeat(Math.floor(2 ** 20 / piece.length));
  const attributes = Array.from({ length: 80_000 }, (_, index) => `a${index}=''`).join(' ');
  for (const body of [
    fill('<a>'),
    xml({ more: '<a>'.repeat(100_000) + '</a>'.repeat(100_000) }),
    xml({ more: `<a ${attributes}/>` }),
    `<domain${' '.repeat(250_000)}=/>`,
    xml({ more: `<a x='${fill('x')}'/>` }),
    xml({ more: fill('&') }),
    xml({ more: `<a>&#${fill('9')};</a>` }),
    `<domain>${fill('<!--')}`,
    xml({ more: fill('<![CDATA[') }),
    xml({ more: fill(']]>') }),
    fill('junk '),
    fill('<'),
    fill('<!---->'),
    `<!DOCTYPE domain [${fill('<!ENTITY a "b">')}]>${xml()}`,
    `<?xml ${fill(' encoding')}`,
    `<domain ${fill('"')}`,
  ]) {
    await t.test(rowName(body), () => {
      assert.equal(refusal(body).code, 'DOMAIN_XML');
    });
  }
  const declarations = Array.from({ length: 10_000 }, (_, index) => `xmlns:a${index}='u'`).join(
    ' ',
  );
  for (const more of [
    fill('<a/>'),
    `<a>${fill('&amp;')}</a>`,
    fill('<!-- -->'),
    fill(' '),
    `<a ${declarations}>${"<b xmlns='c'/>".repeat(40_000)}</a>`,
  ]) {
    await t.test(rowName(more), () => {
      assert.deepEqual(parseDomain(xml({ more }), mds), plain);
    });
  }
});

test('disk chains as deep as libvirt reads them are taken, and deeper elements are refused', () => {
  const chain = (levels: number) =>
    `<devices><disk>${'<backingStore>'.repeat(levels)}<source file="a"/>${'</backingStore>'.repeat(levels)}</disk>${nic}</devices>`;
  // libvirt follows 200, and libxml2 takes 256 levels of elements.
  for (const levels of [200, 253]) {
    assert.deepEqual(parseDomain(xml({ devices: chain(levels) }), mds), plain);
  }
  assertBad(
    xml({ devices: chain(254) }),
    'there are elements more than 256 levels deep: libvirt takes no deeper ones either',
  );
});

test('a megabyte of elements at the greatest depth is read: with text, attributes and namespaces', async (t) => {
  const inside = (tag: string, piece: string) => {
    const around = Array.from({ length: 254 }, (_, index) => `<a${tag.replace('#', `${index}`)}>`);
    const size = 2 ** 20 - around.join('').length - 2000;
    return around.join('') + piece.repeat(size / piece.length) + '</a>'.repeat(254);
  };
  for (const more of [
    inside('', 'x<b/>'),
    inside('', '&amp;'),
    inside(" c='&lt;'", "<b c='1'/>"),
    inside(" xmlns:p#='u' xmlns:q='v'", '<q:b/>'),
    inside(" xmlns:p#='u'", "<b xmlns='x'/>"),
    inside('', '<b></b>'),
  ]) {
    await t.test(rowName(more), () => {
      assert.deepEqual(parseDomain(xml({ more }), mds), plain);
    });
  }
});

test('any bytes are read or refused as a DomainXmlError', () => {
  const pieces = fc.constantFrom(
    '<domain>',
    '</domain>',
    '<name>',
    '</name>',
    '<',
    '>',
    '/>',
    '&',
    '&amp;',
    '&#',
    ';',
    "'",
    '"',
    '=',
    ' ',
    '\n',
    '<!--',
    '-->',
    '<![CDATA[',
    ']]>',
    '<?',
    '?>',
    '<!DOCTYPE ',
    'xmlns:',
    ':',
    '__proto__',
    '\0',
    '\ufeff',
    nic,
    '<metadata>',
  );
  const readOrRefuse = (body: Buffer | string) => {
    try {
      parseDomain(body, mds);
    } catch (error) {
      assert.ok(error instanceof DomainXmlError, String(error));
    }
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => readOrRefuse(Buffer.from(bytes))),
  );
  fc.assert(
    fc.property(
      fc.array(fc.oneof(pieces, fc.string({ maxLength: 5 })), { maxLength: 40 }),
      (parts) => readOrRefuse(`<domain>${parts.join('')}`),
    ),
    { numRuns: 500 },
  );
  const web = fixture('web.xml');
  const edit = fc.record({
    at: fc.nat(web.length),
    remove: fc.nat(20),
    insert: fc.oneof(pieces, fc.string({ maxLength: 3 })),
  });
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
      const bytes = edits.reduce(
        (body, { at, remove, insert }) =>
          Buffer.concat([body.subarray(0, at), Buffer.from(insert), body.subarray(at + remove)]),
        web,
      );
      readOrRefuse(bytes);
    }),
    { numRuns: 500 },
  );
});

test('any name and metadata come back as they were written', () => {
  const text = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 30 })
    .filter(
      (value) =>
        value === value.trim() &&
        !value.includes('/') &&
        !deceptiveCharacters.test(value) &&
        value !== '.' &&
        value !== '..',
    );
  const name = fc
    .stringMatching(/^[a-zA-Z_][\w.-]{0,10}$/)
    .filter((key) => !['__proto__', 'constructor', 'prototype'].includes(key));
  const escaped = (value: string) =>
    Array.from(value, (c) => (/[\w ]/.test(c) ? c : `&#${c.codePointAt(0)};`)).join('');
  fc.assert(
    fc.property(
      text,
      fc.uniqueArray(fc.tuple(name, text), { selector: ([key]) => key }),
      name,
      (domainName, values, prefix) => {
        if (/^xml/i.test(prefix)) return;
        const children = values.map(
          ([key, value]) => `<${prefix}:${key}>${escaped(value)}</${prefix}:${key}>`,
        );
        const more = `<metadata xmlns:${prefix}='${ours}'>${children.join('\n')}</metadata>`;
        const domain = parseDomain(xml({ name: `<name>${escaped(domainName)}</name>`, more }), mds);
        assert.deepEqual(domain, {
          ...plain,
          name: domainName,
          metadata: Object.fromEntries(values),
        });
      },
    ),
  );
});

test('a domain has at most 16 KiB of metadata: names and values, in bytes of UTF-8', () => {
  const values = (characters: number) =>
    `<e:ab xmlns:e="urn:md_server:domain_metadata">${'é'.repeat(characters)}</e:ab>`;
  assert.equal(metadataOf(values(8191))['ab']?.length, 8191);
  const message =
    "the domain's metadata for mdserver has 16386 bytes, names and values together: at most 16384 are allowed";
  assertBad(xml({ more: `<metadata>${values(8192)}</metadata>` }), message);
  const many = Array.from({ length: 3000 }, (_, index) => `<e:k${index}/>`).join('');
  const inside = (text: string) => `<e:all xmlns:e="urn:md_server:domain_metadata">${text}</e:all>`;
  assert.equal(Object.keys(metadataOf(inside(many))).length, 3000);
  assertBad(
    xml({ more: `<metadata>${inside(many.replaceAll('<e:k', '<e:key'))}</metadata>` }),
    /has 19890 bytes/,
  );
});
