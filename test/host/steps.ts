import { basename } from 'node:path';
import { heading, same, step } from '../support/report.js';
import type { Machine } from './machine.js';

/** What the steps need beside the machine. */
export interface StepOptions {
  /** The package of this version, and the same as an earlier version. */
  readonly built: string;
  readonly earlier: string;
  /** README.md. */
  readonly readme: string;
  /** Runs only the steps that have this text in their name, and the installation. */
  readonly only: string | undefined;
}

/** A step: its name, a script for the machine with the functions of prelude.sh, and its limit in seconds if not 60. */
type Step = readonly [name: string, script: string, limit?: number];

/** The commands of the README's installation, as a reader types them: a here-document belongs to its command. */
export function installationCommands(readme: string): string[] {
  const [, behind = ''] = readme.split(/^## Install it on a host$/m);
  const section = behind.replace(/^## [\s\S]*/m, '');
  return [...section.matchAll(/^```\n([\s\S]*?)^```$/gm)]
    .flatMap(([, code = '']) => code.match(/^.*<<'END'\n[\s\S]*?^END$|^.+$/gm) ?? [])
    .map((command) => command.replace(/ +#.*/, '').trim())
    .filter((command) => command !== '');
}

/** Commands of the README that this run does elsewhere: they make the package. */
const doneBefore = /^(npm ci|npm run package)$/;

const running: Step[] = [
  [
    'status, and what runs as whom',
    String.raw`
systemctl status mdserver mdserver-dnsmasq >/dev/null
systemctl is-enabled -q mdserver
for unit in mdserver mdserver-dnsmasq; do
  same "the user of $unit" "$(ps -o user= -p "$(pid_of $unit)")" mdserver
done
same "restarts of mdserver" "$(property NRestarts)" 0
curl -fsS --unix-socket /run/mdserver/control.sock http://localhost/health | grep -q '"ok"'`,
  ],
  [
    'AppArmor enforces the profile of libvirtd',
    String.raw`
grep -q '^libvirtd (enforce)$' /sys/kernel/security/apparmor/profiles
for unit in libvirtd virtqemud; do
  pid=$(pid_of $unit)
  [ "$pid" = 0 ] || grep -q '(enforce)' "/proc/$pid/attr/current"
done`,
  ],
  [
    'virsh start: the hook uploads, and the guest is told its address and name',
    String.raw`
define_domain one 1
virsh -q start one
[ -n "$(address_of one)" ] || fail "no instance: $(mdserverctl list)"
check_client one
same "what journal and kernel say of denials" "$(journalctl -b -k -o cat | grep -c 'apparmor="DENIED".*hooks' || :)" 0`,
    120,
  ],
  [
    'check: no failure on a fresh host',
    String.raw`mdserverctl check || fail "$(mdserverctl check | grep -v '^ok')"`,
  ],
  [
    'the journal has priorities, and no second timestamp',
    String.raw`
journalctl -q -u mdserver -o cat _PID="$(pid_of mdserver)" | grep -v '^[0-9]\{4\}-' >/dev/null
! journalctl -q -u mdserver -o cat _PID="$(pid_of mdserver)" | grep '^[0-9]\{4\}-[0-9][0-9]-'`,
  ],
  [
    'the sandbox: what mdserver can write, and its capabilities',
    String.raw`
pid=$(pid_of mdserver)
same capabilities "$(awk '/^Cap(Eff|Bnd|Amb)/ { print $2 }' "/proc/$pid/status" | sort -u)" 0000000000000400
same NoNewPrivs "$(awk '/^NoNewPrivs/ { print $2 }' "/proc/$pid/status")" 1
writes=$(for folder in / /etc /etc/mdserver /usr/lib/mdserver /var/lib /var/lib/libvirt /var/log /run /home /root /boot \
  /var/lib/mdserver /var/log/mdserver /run/mdserver /tmp /var/tmp /dev; do
  if nsenter -t "$pid" -m -- setpriv --reuid=mdserver --regid=mdserver --clear-groups -- \
    sh -c 'touch "$0/probe" && rm "$0/probe"' "$folder" 2>/dev/null; then printf '%s ' "$folder"; fi
done)
same "what mdserver can write" "$writes" "/var/lib/mdserver /var/log/mdserver /run/mdserver /tmp /var/tmp "
writes=$(for folder in / /etc /etc/mdserver /usr /usr/lib/mdserver /var /var/lib /var/log /boot; do
  if nsenter -t "$pid" -m -- sh -c 'touch "$0/probe" && rm "$0/probe"' "$folder" 2>/dev/null; then printf '%s ' "$folder"; fi
done)
same "what even root can write there" "$writes" ""`,
  ],
  [
    'systemd-analyze security: 1.6 at most',
    String.raw`
for unit in mdserver mdserver-dnsmasq; do
  systemd-analyze security --threshold=16 $unit.service >/run/security || fail "$(tail -1 /run/security)"
done`,
  ],
  [
    'stop ends both, start brings both, restart keeps dnsmasq',
    String.raw`
systemctl stop mdserver
within 10 fails systemctl is-active mdserver-dnsmasq
systemctl start mdserver
serves
within 10 systemctl is-active mdserver-dnsmasq
within 10 pgrep -u mdserver dnsmasq
pid=$(pid_of mdserver-dnsmasq) before=$(pid_of mdserver)
systemctl restart mdserver
runs_anew mdserver "$before" || fail "mdserver was not restarted"
serves
same "dnsmasq's process" "$(pid_of mdserver-dnsmasq)" "$pid"`,
  ],
  [
    'reload: a good configuration is in force, a bad one is refused',
    String.raw`
pid=$(pid_of mdserver)
cp -p $conf /root/conf
set_value service location first
systemctl reload mdserver
taken() { journalctl -q -u mdserver -o cat --since -1min | grep 'read the configuration again'; }
within 15 taken
set_value mdserver port nonsense
fails systemctl reload mdserver || fail "a bad configuration was taken"
serves
same "the state" "$(state mdserver) $(pid_of mdserver)" "active $pid"
cat /root/conf >$conf
systemctl reload mdserver`,
  ],
  [
    'restart with a bad configuration: the last good one serves, and check says so',
    String.raw`
set_value mdserver port nonsense
systemctl restart mdserver
serves
mdserverctl check >/run/check || :
grep -q 'port' /run/check
journalctl -q -u mdserver -p err -o cat --since -1min | grep -q port || fail "no line of priority 3"
cat /root/conf >$conf
systemctl restart mdserver`,
  ],
  [
    'kill -9 of mdserver: it starts again, dnsmasq runs on',
    String.raw`
pid=$(pid_of mdserver-dnsmasq) before=$(pid_of mdserver)
kill -9 "$before"
within 15 runs_anew mdserver "$before"
within 15 serves
same "dnsmasq's process" "$(pid_of mdserver-dnsmasq)" "$pid"`,
  ],
  [
    'kill -9 of dnsmasq: it starts again, mdserver runs on',
    String.raw`
pid=$(pid_of mdserver) before=$(pid_of mdserver-dnsmasq)
kill -9 "$before"
within 15 runs_anew mdserver-dnsmasq "$before"
same "mdserver's process" "$(pid_of mdserver)" "$pid"
within 10 dig +short +time=1 +tries=1 @10.122.0.1 one`,
  ],
  [
    'dnsmasq stopped from outside: mdserver says so, and runs; a start brings it back',
    String.raw`
pid=$(pid_of mdserver)
systemctl stop mdserver-dnsmasq
says_dnsmasq() { curl -sS --unix-socket /run/mdserver/control.sock http://localhost/health | grep -q 'dnsmasq'; }
within 10 says_dnsmasq
same "mdserver's process" "$(pid_of mdserver)" "$pid"
systemctl start mdserver-dnsmasq
within 10 systemctl is-active mdserver-dnsmasq
sleep 1
systemctl is-active -q mdserver-dnsmasq`,
  ],
  [
    'the network is destroyed and started: guests are served again',
    String.raw`
virsh -q destroy one
virsh -q net-destroy mds
virsh -q net-start mds
within 15 serves
virsh -q start one
check_client one`,
    120,
  ],
  [
    'logrotate by its unit: new files, which are written to',
    String.raw`
printf '/var/log/mdserver/*.log {\n}\n' >/dev/null
sed -i 's/^    weekly/    size 1/' /etc/logrotate.d/mdserver
systemctl start logrotate
same "logrotate's result" "$(systemctl show -P Result logrotate)" success
ls /var/log/mdserver/mdserver.log.1 /var/log/mdserver/mdserver-dnsmasq.log.1 >/dev/null
written() { systemctl reload mdserver; [ -s /var/log/mdserver/mdserver.log ]; }
within 15 written
sed -i 's/^    size 1/    weekly/' /etc/logrotate.d/mdserver`,
  ],
  [
    'the log file is removed: a reload makes it again',
    String.raw`
rm /var/log/mdserver/mdserver.log
serves
systemctl reload mdserver
within 10 test -s /var/log/mdserver/mdserver.log
serves`,
  ],
  [
    'a full /var: guests start and are served, and what was missed is made up for',
    String.raw`
virsh -q destroy one
truncate -s 24M /run/small
mkfs.ext4 -q -F /run/small
systemctl stop mdserver
mkdir -p /run/kept
cp -a /var/lib/mdserver/. /run/kept/
mount -o loop /run/small /var/lib/mdserver
cp -a /run/kept/. /var/lib/mdserver/
chown mdserver: /var/lib/mdserver
systemctl start mdserver
fallocate -l 64M /var/lib/mdserver/fill 2>/dev/null || :
dd if=/dev/zero of=/var/lib/mdserver/fill2 bs=4k 2>/dev/null || :
define_domain full 7
virsh -q start full
virsh -q start one
serves
curl -sS --unix-socket /run/mdserver/control.sock http://localhost/health >/run/health
grep -q degraded /run/health || fail "healthy without space: $(cat /run/health)"
rm -f /var/lib/mdserver/fill*
saved() { grep -q '"full"' /var/lib/mdserver/db_file.json; }
within 30 saved
check_client full
virsh -q destroy full
virsh -q undefine full
systemctl stop mdserver
umount /var/lib/mdserver
systemctl start mdserver`,
    120,
  ],
  [
    'port 53 is taken: dnsmasq cannot start, mdserver does not flap, and check and /health have the reason',
    String.raw`
systemctl stop mdserver
dnsmasq -C /dev/null --no-daemon --port=53 --listen-address=10.122.0.1 --bind-interfaces --no-resolv >/dev/null 2>&1 &
other=$!
within 10 dig +time=1 +tries=1 @10.122.0.1 one
systemctl start mdserver
serves
failed() { [ "$(systemctl show -P NRestarts mdserver-dnsmasq)" -gt 1 ]; }
within 15 failed
same "mdserver's state" "$(state mdserver) $(property NRestarts)" "active 0"
curl -sS --unix-socket /run/mdserver/control.sock http://localhost/health >/run/health
mdserverctl check >/run/check || :
kill $other
wait || :
within 15 systemctl is-active mdserver-dnsmasq
grep -iq 'in use' /run/health || fail "/health: $(cat /run/health)"
grep -iq 'in use' /run/check || fail "check: $(grep -v '^ok' /run/check)"`,
  ],
];

const editing: Step[] = [
  [
    'without its program, as after npm uninstall, mdserver is not started again and again',
    String.raw`
mv /usr/lib/mdserver/mdserver.js /usr/lib/mdserver/away
kill -9 "$(pid_of mdserver)"
gone() { [ "$(state mdserver)" = failed ]; }
within 20 gone
before=$(property NRestarts)
sleep 3
same "restarts" "$(property NRestarts) $(state mdserver)" "$before failed"
mv /usr/lib/mdserver/away /usr/lib/mdserver/mdserver.js
systemctl reset-failed mdserver
systemctl start mdserver
within 15 serves`,
  ],
  [
    'net_name: the new network is served, and the old one is not',
    String.raw`
virsh -q destroy one || :
cp -p $conf /root/conf
sed "s/br-mds/br-lab/; s,<name>mds,<name>lab," /usr/share/mdserver/mds-network.xml >/run/lab.xml
virsh -q net-destroy mds
virsh -q net-define /run/lab.xml
virsh -q net-start lab
set_value dnsmasq net_name lab
set_value dnsmasq interface br-lab
systemctl restart mdserver
within 15 serves
define_domain labguest 2 lab
virsh -q start labguest
check_client labguest br-lab
virsh -q destroy labguest
virsh -q undefine labguest
virsh -q net-destroy lab
virsh -q net-undefine lab
virsh -q net-start mds
cat /root/conf >$conf
systemctl restart mdserver
within 15 serves`,
    120,
  ],
  [
    'listen_address and port',
    String.raw`
set_value mdserver listen_address 10.122.0.1
set_value mdserver port 8099
systemctl restart mdserver
within 15 curl -fsS -m 5 -o /dev/null http://10.122.0.1:8099/
fails serves || fail "the old address is served"
define_domain one 1
virsh -q start one
[ -n "$(address_of one)" ]
virsh -q destroy one
cat /root/conf >$conf
systemctl restart mdserver
within 15 serves`,
  ],
  [
    'db_file, base_dir, logfile and run_dir inside the usual folders',
    String.raw`
set_value mdserver db_file /var/lib/mdserver/other/db.json
set_value dnsmasq base_dir /var/lib/mdserver/other/dnsmasq
set_value mdserver logfile /var/log/mdserver/other.log
set_value dnsmasq run_dir /run/mdserver/other
systemctl restart mdserver
within 15 serves
virsh -q start one
check_client one
virsh -q destroy one
test -s /var/lib/mdserver/other/db.json -a -s /var/log/mdserver/other.log
cat /root/conf >$conf
systemctl restart mdserver
within 15 serves
rm -r /var/lib/mdserver/other`,
    120,
  ],
  [
    'the same elsewhere: the error names mdserverctl integrate, which is all that is missing',
    String.raw`
set_value mdserver db_file /srv/mds/db.json
set_value dnsmasq base_dir /srv/mds/dnsmasq
set_value mdserver logfile /srv/log/mds.log
set_value dnsmasq run_dir /run/elsewhere
systemctl restart mdserver || :
named() { journalctl -q -u mdserver -o cat --since -1min | grep 'mdserverctl integrate'; }
within 15 named
mdserverctl check >/run/check || :
grep -q 'mdserverctl integrate' /run/check || fail "check does not name it: $(cat /run/check)"
mdserverctl integrate
systemctl restart mdserver
within 15 serves
virsh -q start one
check_client one
virsh -q destroy one
test -s /srv/mds/db.json
cat /root/conf >$conf
mdserverctl integrate
systemctl restart mdserver
within 15 serves
fails ls /etc/systemd/system/mdserver.service.d/integrate.conf || fail "the drop-in stays"`,
    120,
  ],
];

const apparmor: Step[] = [
  [
    'the hook runs under the profile with node in /usr/local/bin',
    String.raw`
cp -L "$(command -v node)" /usr/local/bin/node
for driver in qemu network; do
  hook=/etc/libvirt/hooks/$driver.d/mdserver
  cp -p $hook /root/hook-$driver
  sed -i '2s,/usr/bin/node,/usr/local/bin/node,' $hook
  grep -q /usr/local/bin/node $hook || fail "no node to replace in $(sed -n 2p $hook)"
done
journalctl -q -k -o cat -b >/run/kernel-before
define_domain local 3
virsh -q start local
address=$(address_of local 2>/dev/null || :)
virsh -q destroy local
virsh -q undefine local
mdserverctl check >/run/check || :
for driver in qemu network; do cp -p /root/hook-$driver /etc/libvirt/hooks/$driver.d/mdserver; done
rm /usr/local/bin/node
[ -n "$address" ] || fail "the hook did not upload: $(journalctl -q -k -o cat -b | grep DENIED | tail -3)"
grep '^failure.*hook' /run/check && fail "check: $(grep hook /run/check)" || :`,
  ],
  [
    'check finds a hook that the profile does not let run',
    String.raw`
hook=/etc/libvirt/hooks/qemu.d/mdserver
install -D -m 755 "$(command -v timeout)" /opt/bin/timeout
sed -i '2s,/usr/bin/timeout,/opt/bin/timeout,' $hook
mdserverctl check >/run/check || :
cp -p /root/hook-qemu $hook
rm -r /opt/bin
grep -qi apparmor /run/check || fail "check: $(grep hook /run/check)"`,
  ],
];

const beforeReboot: Step = [
  'two domains that start with the host',
  String.raw`
define_domain one 1
define_domain two 2
virsh -q autostart one
virsh -q autostart two
virsh -q start one
address_of one >/var/tmp/address-one`,
];

const afterReboot: Step[] = [
  [
    'mdserver ran before libvirt, and both domains are instances',
    String.raw`
within 60 systemctl is-active mdserver
both() { [ "$(virsh -q list --name | grep -c .)" = 2 ] && [ -n "$(address_of one)" ] && [ -n "$(address_of two)" ]; }
within 60 both
same "the address of one" "$(address_of one)" "$(cat /var/tmp/address-one)"
since() { systemctl show -P "ActiveEnterTimestampMonotonic" "$1"; }
[ "$(since mdserver)" -lt "$(since libvirtd)" ] || fail "libvirt was first"
same "restarts" "$(property NRestarts)" 0`,
    150,
  ],
  ['both get their address and name', 'lease_limit=40\ncheck_client one\ncheck_client two', 120],
  ['check: no failure', `mdserverctl check || fail "$(mdserverctl check | grep -v '^ok')"`],
];

/** Steps of the packages; NEW and OLD are their file names. */
const packaging: Step[] = [
  [
    'remove keeps what the operator has; purge leaves nothing else',
    String.raw`
virsh -q destroy one || :
virsh -q destroy two || :
echo '#cloud-config' >/etc/mdserver/userdata/mine
apt-get remove -y -qq mdserver >/dev/null
fails systemctl is-active mdserver
fails systemctl is-active mdserver-dnsmasq
fails pgrep -u mdserver
test -e $conf -a -e /var/lib/mdserver/db_file.json
virsh -q start one
virsh -q destroy one
apt-get purge -y -qq mdserver >/dev/null
left=$(find / -xdev -iname '*mdserver*' -not -path '/proc/*' -not -path '/root/*' -not -path '/var/cache/apt/*' \
  -not -path '/var/log/journal/*' -not -path '/tmp/*' | sort | paste -sd ' ')
same "what purge leaves" "$left" "/etc/mdserver"
same "what is in it" "$(find /etc/mdserver -type f)" /etc/mdserver/userdata/mine
systemctl list-units --all --no-legend 'mdserver*' >/run/units
[ ! -s /run/units ] || fail "$(cat /run/units)"
rm -r /etc/mdserver`,
    120,
  ],
  [
    'an upgrade with edited conffiles keeps them, and puts the new ones beside',
    String.raw`
apt-get install -y -qq OLD >/dev/null
systemctl enable -q --now mdserver
set_value dnsmasq domain mine.test
sed -i 's/weekly/daily/' /etc/logrotate.d/mdserver
pid=$(pid_of mdserver)
apt-get install -y -qq -o Dpkg::Options::=--force-confold NEW >/dev/null
grep -q 'domain = mine.test' $conf
grep -q daily /etc/logrotate.d/mdserver
test -e $conf.dpkg-dist -a -e /etc/logrotate.d/mdserver.dpkg-dist
! grep -q 'as in 0.9.0' $conf.dpkg-dist /etc/libvirt/hooks/qemu.d/mdserver || fail "a conffile is of the old version"
same "state" "$(state mdserver) $(systemctl is-enabled mdserver)" "active enabled"
within 15 serves
virsh -q start one
[ -n "$(address_of one)" ]
virsh -q destroy one
apt-get purge -y -qq mdserver >/dev/null
rm -rf /etc/mdserver`,
    120,
  ],
  [
    'over the Python md_server: its units, hook and configuration make way or stay in force',
    String.raw`
mkdir -p /etc/mdserver/userdata /etc/libvirt/hooks /var/lib/mdserver/dnsmasq
printf '[mdserver]\nuserdata_suffixes = :.yaml\n\n[dnsmasq]\nuser = nobody\nnet_name = mds\ngateway = 10.122.0.1\n' >$conf
printf '#!/usr/bin/python3\nimport mdserver.server\n' >/usr/local/bin/mdserver
chmod 755 /usr/local/bin/mdserver
printf '[Service]\nTimeoutSec=60\nExecStart=/usr/local/bin/mdserver /etc/mdserver/mdserver.conf\nRestart=on-failure\n' \
  >/etc/systemd/system/mdserver.service
printf '#!/bin/bash\nlogger -t qemu-hook "$1"\ncurl -s -d @- "http://169.254.169.254/instance-upload"\n' >/etc/libvirt/hooks/qemu
chmod 755 /etc/libvirt/hooks/qemu
apt-get install -y -qq -o Dpkg::Options::=--force-confold NEW >/run/apt 2>&1 || fail "$(tail -5 /run/apt)"
grep -q 'userdata_suffixes = :.yaml' $conf
grep -qi 'md_server\|python' /run/apt || fail "the installation does not speak of the Python md_server: $(tail -20 /run/apt)"`,
    120,
  ],
];

/** Runs all steps on a machine that has booted. */
export async function runSteps(
  machine: Machine,
  { built, earlier, readme, only }: StepOptions,
): Promise<void> {
  const runStep = ([name, script, limit = 60]: Step) =>
    step('host', name, () => machine.sh(script, limit * 1000).then(() => undefined));
  const wanted = (steps: readonly Step[]) =>
    steps.filter(([name]) => only === undefined || name.includes(only));
  async function group(name: string, steps: readonly Step[]): Promise<void> {
    if (wanted(steps).length === 0) return;
    heading(name);
    for (const one of wanted(steps)) await runStep(one);
  }

  heading("The README's installation");
  await machine.sh('mkdir -p /root/new/dist /root/old');
  await machine.copy([built], '/root/new/dist/');
  await machine.copy([earlier], '/root/old/');
  const commands = installationCommands(readme);
  await step('README', 'installs the package', () =>
    same('a command with apt', String(commands.some((one) => one.startsWith('apt'))), 'true'),
  );
  for (const command of commands.filter((one) => !doneBefore.test(one))) {
    await runStep([command.replace(/\n.*/s, ' …'), `cd /root/new\n${command}`, 120]);
  }

  await group('A running host', running);
  await group('Editing mdserver.conf and restarting', editing);
  await group('AppArmor', apparmor);
  if (only === undefined) {
    heading('A reboot');
    await runStep(beforeReboot);
    await step('host', 'reboots', () => machine.reboot());
    for (const one of afterReboot) await runStep(one);
  }
  const files = (text: string) =>
    text
      .replaceAll(/\bNEW\b/g, `/root/new/dist/${basename(built)}`)
      .replaceAll(/\bOLD\b/g, `/root/old/${basename(earlier)}`);
  await group(
    'Packages',
    packaging.map(([name, script, limit]) => [name, files(script), limit ?? 60]),
  );
}
