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
  /** Leaves out the groups that take longest. */
  readonly isShort: boolean;
}

/**
 * A step: its name, a script for the machine with the functions of prelude.sh or something that is done to
 * the machine, and the script's limit in seconds if not 60.
 */
type Step = readonly [
  name: string,
  action: string | ((machine: Machine) => Promise<void>),
  limit?: number,
];

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
    `
systemctl status mdserver mdserver-dnsmasq >/dev/null
systemctl is-enabled -q mdserver
for unit in mdserver mdserver-dnsmasq; do
  same "the user of $unit" "$(ps -o user= -p "$(pid_of $unit)")" mdserver
done
same "restarts of mdserver" "$(property NRestarts)" 0
health -f | grep -q '"ok"'`,
  ],
  [
    'AppArmor enforces the profile of libvirtd',
    `
grep -q '^libvirtd (enforce)$' /sys/kernel/security/apparmor/profiles
for unit in libvirtd virtqemud; do
  pid=$(pid_of $unit)
  [ "$pid" = 0 ] || grep -q '(enforce)' "/proc/$pid/attr/current"
done`,
  ],
  [
    'virsh start: the hook uploads, and the guest is told its address and name',
    `
define_domain one 1
virsh -q start one
[ -n "$(address_of one)" ] || fail "no instance: $(mdserverctl list)"
check_client one
same "what journal and kernel say of denials" "$(journalctl -b -k -o cat | grep -c 'apparmor="DENIED".*hooks' || :)" 0`,
    120,
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
    `
for unit in mdserver mdserver-dnsmasq; do
  systemd-analyze security --threshold=16 $unit.service >/run/security || fail "$(tail -1 /run/security)"
done`,
  ],
];

const failing: Step[] = [
  [
    'stop ends both, start brings both, restart keeps dnsmasq',
    `
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
    `
pid=$(pid_of mdserver)
fresh_conf
set_value service location first
systemctl reload mdserver
taken() { logged | grep 'read the configuration again'; }
within 15 taken
set_value mdserver port nonsense
fails systemctl reload mdserver || fail "a bad configuration was taken"
serves
same "the state" "$(state mdserver) $(pid_of mdserver)" "active $pid"
fresh_conf
systemctl reload mdserver`,
  ],
  [
    'restart with a bad configuration: the last good one serves, and check says so',
    `
fresh_conf
set_value mdserver port nonsense
systemctl restart mdserver
serves
mdserverctl check >/run/check || :
grep -q 'port' /run/check
logged -p err | grep -q port || fail "no line of priority 3"
fresh_conf
systemctl restart mdserver`,
  ],
  [
    'kill -9 of mdserver: it starts again, dnsmasq runs on',
    `
pid=$(pid_of mdserver-dnsmasq) before=$(pid_of mdserver)
kill -9 "$before"
within 20 runs_anew mdserver "$before"
within 20 serves
same "dnsmasq's process" "$(pid_of mdserver-dnsmasq)" "$pid"`,
  ],
  [
    'mdserver feeds the watchdog; if it hangs, the watchdog ends it, and it starts again',
    String.raw`
mkdir -p /run/systemd/system/mdserver.service.d
printf '[Service]\nWatchdogSec=20\n' >/run/systemd/system/mdserver.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart mdserver
before=$(pid_of mdserver) first=$(property WatchdogTimestampMonotonic)
fed() { [ "$(property WatchdogTimestampMonotonic)" -gt "$first" ]; }
within 30 fed
kill -STOP "$before"
rm /run/systemd/system/mdserver.service.d/watchdog.conf
within 40 runs_anew mdserver "$before"
systemctl daemon-reload
within 20 serves`,
    120,
  ],
  [
    'kill -9 of dnsmasq: it starts again, mdserver runs on',
    `
pid=$(pid_of mdserver) before=$(pid_of mdserver-dnsmasq)
kill -9 "$before"
within 15 runs_anew mdserver-dnsmasq "$before"
same "mdserver's process" "$(pid_of mdserver)" "$pid"
within 10 dns_address one`,
  ],
  [
    'dnsmasq stopped from outside: mdserver says so, and runs; a start brings it back',
    `
pid=$(pid_of mdserver)
systemctl stop mdserver-dnsmasq
says_dnsmasq() { health | grep -q 'dnsmasq'; }
within 10 says_dnsmasq
same "mdserver's process" "$(pid_of mdserver)" "$pid"
systemctl start mdserver-dnsmasq
within 10 systemctl is-active mdserver-dnsmasq
sleep 1
systemctl is-active -q mdserver-dnsmasq`,
  ],
  [
    'the network is destroyed and started: guests are served again',
    `
virsh -q destroy one
virsh -q net-destroy mds
virsh -q net-start mds
within 15 serves
check_client one`,
  ],
  [
    'logrotate by its timer: new files, which are written to',
    String.raw`
sed -i 's/^    weekly/    size 1/' /etc/logrotate.d/mdserver
mkdir -p /run/systemd/system/logrotate.timer.d
printf '[Timer]\nOnActiveSec=1\nAccuracySec=1\nRandomizedDelaySec=0\n' >/run/systemd/system/logrotate.timer.d/now.conf
systemctl daemon-reload
systemctl restart logrotate.timer
rotated() { ls /var/log/mdserver/mdserver.log.1 /var/log/mdserver/mdserver-dnsmasq.log.1; }
within 20 rotated
within 20 fails systemctl is-active logrotate
same "logrotate's result" "$(systemctl show -P Result logrotate)" success
rm -r /run/systemd/system/logrotate.timer.d
written() { systemctl reload mdserver; [ -s /var/log/mdserver/mdserver.log ]; }
within 15 written
sed -i 's/^    size 1/    weekly/' /etc/logrotate.d/mdserver`,
  ],
  [
    'the log file is removed: a reload makes it again',
    `
rm /var/log/mdserver/mdserver.log
serves
systemctl reload mdserver
within 10 test -s /var/log/mdserver/mdserver.log
serves`,
  ],
  [
    'a full /var: a guest starts, the others are served; mdserverctl sync makes up for what was missed',
    `
systemctl stop mdserver
mkdir -p /run/kept
cp -a /var/lib/mdserver/. /run/kept/
mount -t tmpfs -o size=24M small /var/lib/mdserver
cp -a /run/kept/. /var/lib/mdserver/
chown mdserver: /var/lib/mdserver
systemctl start mdserver
dd if=/dev/zero of=/var/lib/mdserver/fill bs=4k 2>/dev/null || :
define_domain full 7
virsh -q start full
check_client one
health >/run/health
grep -q degraded /run/health || fail "healthy without space: $(cat /run/health)"
rm /var/lib/mdserver/fill
mdserverctl sync
grep -q '"full"' /var/lib/mdserver/db_file.json
check_client full
virsh -q destroy full
systemctl stop mdserver
umount /var/lib/mdserver
systemctl start mdserver`,
    120,
  ],
  [
    'port 53 is taken: dnsmasq cannot start, mdserver does not flap, and check and /health have the reason',
    `
systemctl stop mdserver
dnsmasq -C /dev/null --no-daemon --port=53 --listen-address=10.122.0.1 --bind-interfaces --no-resolv >/dev/null 2>&1 &
other=$!
within 10 dig +time=1 +tries=1 @10.122.0.1 one
systemctl start mdserver
serves
failed() { [ "$(systemctl show -P NRestarts mdserver-dnsmasq)" -gt 1 ]; }
within 15 failed
same "mdserver's state" "$(state mdserver) $(property NRestarts)" "active 0"
health >/run/health
mdserverctl check >/run/check || :
kill $other
wait || :
within 15 systemctl is-active mdserver-dnsmasq
grep -q 'port 53' /run/health || fail "/health: $(cat /run/health)"
grep -q '^failure.*port 53' /run/check || fail "check: $(grep -v '^ok' /run/check)"`,
  ],
];

const editing: Step[] = [
  [
    'without its program, as after npm uninstall, mdserver is not started again and again',
    `
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
    'every value that a restart takes: network, address and port, and files in the usual folders',
    `
fresh_conf
virsh -q destroy one >/dev/null 2>&1 || :
sed "s/br-mds/br-lab/; s,<name>mds,<name>lab," /usr/share/mdserver/mds-network.xml >/run/lab.xml
virsh -q net-destroy mds
virsh -q net-define /run/lab.xml
virsh -q net-start lab
set_value dnsmasq net_name lab
set_value dnsmasq interface br-lab
set_value mdserver listen_address 10.122.0.1
set_value mdserver port 8099
set_value mdserver db_file /var/lib/mdserver/other/db.json
install -d -o mdserver -g mdserver /var/lib/mdserver/other
mv /var/lib/mdserver/db_file.json /var/lib/mdserver/other/db.json
set_value dnsmasq base_dir /var/lib/mdserver/dnsmasq/other
set_value mdserver logfile /var/log/mdserver/other.log
set_value dnsmasq run_dir /run/mdserver/other
systemctl restart mdserver
url=http://10.122.0.1:8099
within 15 serves
fails curl -m 5 http://169.254.169.254/ || fail "the old address is served"
define_domain labguest 2 lab
virsh -q start labguest
check_client labguest br-lab
test -s /var/lib/mdserver/other/db.json -a -s /var/log/mdserver/other.log
virsh -q destroy labguest
virsh -q undefine labguest
virsh -q net-destroy lab
virsh -q net-undefine lab
virsh -q net-start mds
mv /var/lib/mdserver/other/db.json /var/lib/mdserver/db_file.json
fresh_conf
systemctl restart mdserver
url=http://169.254.169.254
within 15 serves
rm -r /var/lib/mdserver/other /var/lib/mdserver/dnsmasq/other`,
    150,
  ],
  [
    'files elsewhere: the error names mdserverctl integrate, which is all that is missing',
    `
fresh_conf
set_value mdserver db_file /srv/mds/db.json
set_value dnsmasq base_dir /srv/mds/dnsmasq
set_value mdserver logfile /srv/log/mds.log
set_value dnsmasq run_dir /run/elsewhere
install -d -o mdserver -g mdserver /srv/mds
mv /var/lib/mdserver/db_file.json /srv/mds/db.json
fails systemctl restart mdserver || fail "mdserver started without its database"
named() { logged | grep 'mdserverctl integrate'; }
within 5 named
mdserverctl check >/run/check || :
grep -q 'mdserverctl integrate' /run/check || fail "check does not name it: $(cat /run/check)"
mdserverctl integrate
systemctl restart mdserver
within 15 serves
define_domain one 1
virsh -q start one
check_client one
grep -q '"one"' /srv/mds/db.json
test -s /srv/log/mds.log
mv /srv/mds/db.json /var/lib/mdserver/db_file.json
fresh_conf
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
    `
fresh_conf
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
for driver in qemu network; do cp -p /root/hook-$driver /etc/libvirt/hooks/$driver.d/mdserver; done
rm /usr/local/bin/node
[ -n "$address" ] || fail "the hook did not upload: $(journalctl -q -k -o cat -b | grep DENIED | tail -3)"`,
  ],
  [
    'check finds a hook that the profile does not let run',
    `
hook=/etc/libvirt/hooks/qemu.d/mdserver
install -D -m 755 "$(command -v timeout)" /opt/bin/timeout
sed -i '2s,/usr/bin/timeout,/opt/bin/timeout,' $hook
mdserverctl check >/run/check || :
cp -p /root/hook-qemu $hook
rm -r /opt/bin
grep -qi apparmor /run/check || fail "check: $(grep hook /run/check)"`,
  ],
];

const rebooting: Step[] = [
  [
    'two domains that start with the host',
    `
virsh -q dominfo one >/dev/null 2>&1 || define_domain one 1
define_domain two 2
virsh -q autostart one
virsh -q autostart two
[ -n "$(address_of one)" ] || virsh -q start one
address_of one >/var/tmp/address-one`,
  ],
  ['the host reboots', (machine) => machine.reboot()],
  [
    'mdserver ran before libvirt, and both domains are instances',
    `
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
  ['check: no failure', 'mdserverctl check >/run/check || fail "$(grep -v ^ok /run/check)"'],
];

/** Steps of the packages; NEW and OLD are their file names. */
const packaging: Step[] = [
  [
    'remove keeps what the operator has; purge leaves nothing else',
    String.raw`
virsh -q destroy one || :
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
same "what is in it" "$(find /etc/mdserver -type f | sort | paste -sd ' ')" \
  "/etc/mdserver/conf.d/keys.conf /etc/mdserver/userdata/mine"
systemctl list-units --all --no-legend 'mdserver*' >/run/units
[ ! -s /run/units ] || fail "$(cat /run/units)"
rm -r /etc/mdserver`,
    120,
  ],
  [
    'over the Python md_server: its unit and hook make way, its configuration stays in force',
    String.raw`
mkdir -p /etc/mdserver/userdata /etc/libvirt/hooks
printf '[mdserver]\nuserdata_suffixes = :.yaml\n\n[dnsmasq]\nuser = nobody\nnet_name = mds\ngateway = 10.122.0.1\n' >$conf
printf '#!/usr/bin/python3\nimport mdserver.server\n' >/usr/local/bin/mdserver
chmod 755 /usr/local/bin/mdserver
printf '[Service]\nExecStart=/usr/local/bin/mdserver %s\n[Install]\nWantedBy=multi-user.target\n' $conf \
  >/etc/systemd/system/mdserver.service
systemctl enable -q mdserver
printf '#!/bin/bash\nlogger -t qemu-hook "$1"\ncurl -s -d @- "http://169.254.169.254/instance-upload"\n' >/etc/libvirt/hooks/qemu
chmod 755 /etc/libvirt/hooks/qemu
apt-get install -y -qq -o Dpkg::Options::=--force-confold OLD >/run/apt 2>&1 || fail "$(tail -5 /run/apt)"
cp -p $conf /root/python-conf
grep -q 'userdata_suffixes = :.yaml' $conf
for file in /etc/systemd/system/mdserver.service /etc/libvirt/hooks/qemu; do
  test -e $file.md_server
  grep -q "kept the Python md_server's $file" /run/apt || fail "no word of $file: $(tail -20 /run/apt)"
done
systemctl enable -q --now mdserver
within 15 serves
within 15 pgrep -u nobody dnsmasq`,
    120,
  ],
  [
    'an upgrade with edited conffiles keeps them, puts the new ones beside, and restarts what ran',
    `
set_value dnsmasq domain mine.test
sed -i 's/weekly/daily/' /etc/logrotate.d/mdserver
before=$(pid_of mdserver)
apt-get install -y -qq -o Dpkg::Options::=--force-confold NEW >/run/apt 2>&1 || fail "$(tail -5 /run/apt)"
grep -q 'domain = mine.test' $conf
grep -q daily /etc/logrotate.d/mdserver
test -e /etc/logrotate.d/mdserver.dpkg-dist
! grep -q 'as in 0.9.0' /etc/logrotate.d/mdserver.dpkg-dist /etc/libvirt/hooks/qemu.d/mdserver ||
  fail "a conffile is of the old version"
within 15 runs_anew mdserver "$before"
same "the unit is" "$(systemctl is-enabled mdserver)" enabled
within 15 serves`,
    120,
  ],
];

const groups: readonly { name: string; steps: readonly Step[]; isInShort: boolean }[] = [
  { name: 'A running host', steps: running, isInShort: true },
  { name: 'What can happen to it', steps: failing, isInShort: false },
  { name: 'Editing mdserver.conf and restarting', steps: editing, isInShort: false },
  { name: 'AppArmor', steps: apparmor, isInShort: true },
  { name: 'A reboot', steps: rebooting, isInShort: true },
  { name: 'Packages', steps: packaging, isInShort: true },
];

/** Runs the README's installation and then the steps on a machine that has booted. */
export async function runSteps(
  machine: Machine,
  { built, earlier, readme, only = '', isShort }: StepOptions,
): Promise<void> {
  const files = (text: string) =>
    text
      .replaceAll(/\bNEW\b/g, `/root/new/dist/${basename(built)}`)
      .replaceAll(/\bOLD\b/g, `/root/old/${basename(earlier)}`);
  const runStep = (who: string, [name, action, limit = 60]: Step) =>
    step(who, name, async () => {
      if (typeof action === 'string') await machine.sh(files(action), limit * 1000);
      else await action(machine);
    });

  heading("The README's installation");
  await machine.sh('mkdir -p /root/new/dist /root/old');
  await machine.copy([built], '/root/new/dist/');
  await machine.copy([earlier], '/root/old/');
  const commands = installationCommands(readme);
  await step('README', 'has a command that installs the package', () =>
    same('a command with apt', String(commands.some((one) => one.startsWith('apt'))), 'true'),
  );
  for (const command of commands.filter((one) => !doneBefore.test(one))) {
    await runStep('README', [command.replace(/\n.*/s, ' …'), `cd /root/new\n${command}`, 120]);
  }
  for (const { name, steps, isInShort } of groups) {
    if (isShort && !isInShort) continue;
    const wanted = steps.filter(([what]) => what.includes(only));
    if (wanted.length > 0) heading(name);
    for (const one of wanted) await runStep('host', one);
  }
}
