import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configFrom } from '../src/config/load.js';
import { pythonNames } from '../src/ctl/python-names.js';

/** What a configuration adds to the names that every template has, or changes. */
function changedBy(text: string): Record<string, unknown> {
  const before = pythonNames(configFrom(''), 'web1');
  const after = pythonNames(configFrom(text), 'web1');
  return Object.fromEntries([...after].filter(([name, value]) => value !== before.get(name)));
}

// As Python's server has them: recorded from its own code.
test('a name that Python took first counts: its own, then keys, template data, and items of _config_items_', () => {
  assert.deepEqual(
    changedBy(`
[bottle]
extra = without a section
[mdserver]
password = p%%w
port = 81
[public-keys]
zoe = ssh-rsa Z
my-key = ssh-rsa K
[template-data]
hostname = evil
public_key_zoe = evil
public_keys = evil
foo = bar
mdserver_password = evil
_config_items_ = dnsmasq.prefix,dnsmasq.domain, dnsmasq.gateway,mdserver.port,dnsmasq.nosuch,dnsmasq.use_dns
[dnsmasq]
prefix = no
domain = Yes
`),
    {
      extra: 'without a section',
      'mdserver.password': 'p%w',
      mdserver_password: 'p%w',
      'mdserver.port': '81',
      // A blank after a comma hid the item.
      port: '81',
      'public-keys.zoe': 'ssh-rsa Z',
      'public-keys.my-key': 'ssh-rsa K',
      public_key_zoe: 'ssh-rsa Z',
      'public_key_my-key': 'ssh-rsa K',
      public_keys: Object.assign(Object.create(null), {
        default: '__NOT_CONFIGURED__',
        zoe: 'ssh-rsa Z',
        'my-key': 'ssh-rsa K',
      }),
      'template-data.hostname': 'evil',
      'template-data.public_key_zoe': 'evil',
      'template-data.public_keys': 'evil',
      'template-data.foo': 'bar',
      foo: 'bar',
      'template-data.mdserver_password': 'evil',
      'template-data._config_items_':
        'dnsmasq.prefix,dnsmasq.domain, dnsmasq.gateway,mdserver.port,dnsmasq.nosuch,dnsmasq.use_dns',
      _config_items_:
        'dnsmasq.prefix,dnsmasq.domain, dnsmasq.gateway,mdserver.port,dnsmasq.nosuch,dnsmasq.use_dns',
      // Python's strtobool gives numbers.
      'dnsmasq.prefix': 0,
      prefix: 0,
      'dnsmasq.domain': 1,
      domain: 1,
      use_dns: false,
    },
  );
});

test('an option that no file sets has the value that Python gave it, which may be a number, False or None', () => {
  const names = pythonNames(
    configFrom(
      '[template-data]\n_config_items_ = mdserver.port,dnsmasq.lease_len,dnsmasq.domain,mdserver.default_template\n',
    ),
    'web1',
  );
  const values = [
    'hostname',
    'port',
    'lease_len',
    'domain',
    'default_template',
    'mdserver_password',
  ];
  assert.deepEqual(
    values.map((name) => names.get(name)),
    ['web1', 80, 86_400, false, null, undefined],
  );
});
