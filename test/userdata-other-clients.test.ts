import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { InstanceDetails } from '../src/control/api.js';
import { builtInUserdata } from '../src/userdata/template.js';
import { rowName } from './support/rows.js';
import { databaseRecord } from './support/samples.js';
import { startSite } from './support/site.js';

// User-data for images that do not take cloud-config.

/** User-data, and whether Ignition takes it. */
const texts: readonly [userdata: string | Buffer, isTaken: boolean][] = [
  ['{"ignition": {"version": "3.4.0"}}', true],
  ['\n\t {', true],
  ['', true],
  [' '.repeat(20_000), true],
  ['#cloud-config\n{}\n', false],
  ['#!/bin/sh\n', false],
  [gzipSync('{}'), false],
];

test('Ignition that gets another kind of user-data is noted, and a warning in the log', async (t) => {
  const { daemon, folder, json } = await startSite(t, '127.152.1.1', {
    records: texts.map((_, index) => databaseRecord(index, { mds_ipv4: `127.152.2.${index}` })),
    userdata: Object.fromEntries(texts.map(([text], index) => [`vm${index}`, text])),
  });
  for (const [index, [text, isTaken]] of texts.entries()) {
    await t.test(rowName(text.slice(0, 20).toString()), async () => {
      const ask = (path: string, agent: string) =>
        daemon.ask(path, { from: `127.152.2.${index}`, headers: { 'user-agent': agent } });
      const noted = async () => {
        const { body } = await json(`/instances/vm${index}`);
        return (body as InstanceDetails).boots[0]?.userdata?.not_ignition === true;
      };
      const warning = `vm${index}: its client is Ignition, and its user-data from ${folder}/userdata/vm${index} is no configuration of Ignition: give it one, or userdata = none in the metadata of its domain`;
      const warnings = () => daemon.output().split(warning).length - 1;
      assert.equal((await ask('/latest/user-data', 'Cloud-Init/22.4.2 Ignition/2')).status, 200);
      assert.deepEqual([warnings(), await noted()], [0, false]);
      for (const path of ['/2019-10-01/user-data', '/openstack/latest/user_data']) {
        assert.equal((await ask(path, 'Ignition/2.14.0')).status, 200);
        assert.equal(await noted(), !isTaken);
      }
      await ask('/latest/meta-data/', 'Ignition/2.14.0');
      assert.equal(warnings(), isTaken ? 0 : 2);
    });
  }
});

test('NixOS would take the built-in template for its configuration, and goes on without user-data', async (t) => {
  const { daemon } = await startSite(t, '127.152.3.1', {
    records: [{}, { userdata: 'none' }].map((domain_metadata, index) =>
      databaseRecord(index, { mds_ipv4: `127.152.3.1${index}`, domain_metadata }),
    ),
  });
  /** Its rule: what is left of the text without comments and host keys is a configuration. */
  const isConfiguration = (text: string) => text.replace(/^(?:#|SSH_HOST_).*$/gm, '').trim() !== '';
  const [plain, none] = await Promise.all(
    [0, 1].map((index) => daemon.ask('/1.0/user-data', { from: `127.152.3.1${index}` })),
  );
  assert.deepEqual([plain?.text, none?.status], [builtInUserdata, 404]);
  assert.equal(isConfiguration(builtInUserdata), true);
});
