import { userInfo } from 'node:os';
import { ConfigError } from '../../config/dialect.js';
import { loadConfig } from '../../config/load.js';
import type { Finding } from './finding.js';
import { findingsOf } from './finding.js';
import { checkUntrusted } from './untrusted.js';

// Started by checkAsDaemon as the daemon's user: prints the findings as one JSON array. Reads the
// configuration itself, as the daemon does, so a file that the daemon cannot read is a finding.
// A function, since a bundle in CommonJS has no await outside of one.
async function main(): Promise<void> {
  const [configFile = '', prefix = ''] = process.argv.slice(2);
  const findings: Finding[] = [];
  const remedy = `mdserver runs as the user ${userName()}, which must be able to read it`;
  try {
    const { config } = loadConfig(configFile, prefix);
    for await (const finding of checkUntrusted(config, remedy)) findings.push(finding);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    findings.push(findingsOf('configuration').failure(error.message, remedy));
  }
  process.stdout.write(JSON.stringify(findings));
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // The number has no name.
    return String(process.getuid?.());
  }
}

void main();
