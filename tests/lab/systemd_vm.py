#!/usr/bin/python3
"""A VM under systemd, as an administrator has it: installed, enabled, upgraded, and back after a loss of power.

    systemd_vm.py --build FOLDER [--deb FILE] [--only NAME ...]

Two hosts whose first process is systemd and whose root lasts, and a third one with an etcd. The ledger guest is
romulus@vm there, from the package FILE, or the one of FOLDER (target deb). It is booted once: all that it says, on
whichever host, is one stream at the end. Exit status 0 if all holds, 77 if there is nothing to run.
"""

import json
import re
import subprocess
import sys
import time

import entry
import images
import package
from romulus_node import Address, config_of
from switch_rig import join_consoles, wait_until

sys.path.insert(0, str(images.HERE.parent / "e2e"))
from cluster_stub import Cluster  # noqa: E402

AGENT = images.HERE.parents[1] / "deploy/pacemaker/romulus"

UNIT = "romulus@vm.service"
SOCKET = "unix:///run/romulus/vm.sock"
MAX_BOOT = 2        # times the slowest first boot: beside a guest, and with a unit that must not keep it
WATCHDOG_S = 20  # the unit's own is longer
STEPS = 10       # of the guest, before and after each check
LAB = {"hosts": 3, "memory_mib": 768, "disk_mib": 1024, "systemd": True}

# What a boot with devices has from udev; and the consoles, in a folder that outlives the hosts.
FURNITURE = """\
printf 'z /dev/kvm 0660 root kvm -\\nz /dev/net/tun 0666 root root -\\n' >/etc/tmpfiles.d/lab.conf
systemd-tmpfiles --create lab.conf
mkdir -p /etc/systemd/system/romulus@.service.d /var/lib/romulus/consoles
printf '[Service]\\nBindPaths={consoles}:/var/lib/romulus/consoles\\nWatchdogSec={watchdog}\\n' \
  >/etc/systemd/system/romulus@.service.d/lab.conf
cp {kernel} /var/lib/romulus/vm.elf
cp {config} /etc/romulus/vm.textproto
echo 'ROMULUS_ARGS=--node {node}' >/etc/romulus/vm.env
chown root:romulus /etc/romulus/vm.*
chmod 0640 /etc/romulus/vm.*
chown -R romulus:romulus /var/lib/romulus
systemctl daemon-reload
sync
"""


class Rig:
    def __init__(self, lab, binaries):
        self.lab, self.binaries = lab, binaries
        self.hosts, self.third = lab.hosts[:2], lab.hosts[2]
        self.consoles = lab.scratch / "consoles"
        self.consoles.mkdir()
        self.consoles.chmod(0o777)
        for host in self.hosts:
            self.console(host).touch()
            self.console(host).chmod(0o666)
        self.packages = lab.scratch / "packages"
        self.packages.mkdir()
        self.etcd = None

    def console(self, host):
        return self.consoles / f"{host.name}.console"

    def start_etcd(self):
        url = f"http://{self.third.address}:2379"
        self.etcd = self.third.execute(f"exec etcd --data-dir /run/etcd --listen-client-urls {url}"
                                       f" --advertise-client-urls {url}", follow=True)
        self.etcd.wait_for("ready to serve client requests", 120)

    def install(self, deb):
        # Without the index of all manual pages, which man-db's trigger makes anew: minutes on an emulated host.
        jobs = [host.execute(f"rm -f /var/lib/man-db/auto-update; dpkg --force-unsafe-io -i {deb} && sync")
                for host in self.hosts]
        for job in jobs:
            result = job.wait(300)
            if result.status != 0:
                raise AssertionError(f"dpkg -i: {result.out}{result.err}")

    def configure(self):
        arbiter = f'arbiter {{ etcd {{ endpoints: "{self.third.address}:2379" timeout_ms: 5000 }} }}'
        config = self.lab.scratch / "vm.textproto"
        config.write_text(config_of(
            [Address(h.name, f"{h.address}:7100", SOCKET) for h in self.hosts],
            'file: "/var/lib/romulus/consoles/{node}.console"', "/var/lib/romulus/vm.elf", "",
            "vcpus=1 workload=uniform pages=64 rate=2000 report_ms=100", 32, failover=f"auto_failover: true {arbiter}"))
        for host in self.hosts:
            host.run(FURNITURE.format(consoles=self.consoles, watchdog=WATCHDOG_S, config=config, node=host.name,
                                      kernel=self.binaries.build / "guests/ledger.elf"), 120)

    def status(self, host):
        """Empty while nobody answers."""
        said = host.run(["romulusctl", "--address", SOCKET, "status", "--json"], check=False)
        return json.loads(said.out) if said.status == 0 else {}

    def last_step(self):
        whole, _ = join_consoles([self.console(host) for host in self.hosts])
        steps = re.findall(rb"(?m)^step (\d+) .*\n", whole)
        return int(steps[-1]) if steps else 0

    def await_steps(self, timeout=180):
        goal = self.last_step() + STEPS
        self.wait_until(lambda: self.last_step() >= goal, timeout, f"step {goal} of the guest")

    def await_protected(self, timeout=300):
        """(primary's host, secondary's)."""
        found = {}

        def protected():
            found.clear()
            for host in self.hosts:
                status = self.status(host) if host.alive() else {}
                if status.get("mode") == "MODE_PROTECTED":
                    found[status["role"]] = host
            return len(found) == 2

        self.wait_until(protected, timeout, "one primary and one secondary in step")
        return found["ROLE_PRIMARY"], found["ROLE_SECONDARY"]

    def await_primary(self, host, timeout=240):
        self.wait_until(lambda: self.status(host).get("role") == "ROLE_PRIMARY", timeout,
                        f"{host.name} to be the primary")

    def show(self, host, name):
        return host.run(f"systemctl show --value --property {name} {UNIT}").out.strip()

    def wait_until(self, condition, timeout, what):
        try:
            wait_until(condition, timeout, what, self.third, self.etcd)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.state()}") from error

    def state(self):
        texts = []
        for host in self.hosts:
            if host.alive():
                said = host.run(f"systemctl status --no-pager --lines=30 {UNIT}; romulusctl --address {SOCKET} status;"
                                " romulusctl version; dpkg-query -W romulus", check=False)
                texts.append(f"--- {host.name}\n{said.out}{said.err}")
        return "\n".join(texts)


def boot_seconds(said):
    """Of what `systemd-analyze time` says: "Startup finished in 5.1s (kernel) + 1min 2.003s (userspace) = 1min 7.1s"."""
    found = re.search(r"= (?:(\d+)min )?([\d.]+)(m?)s\s", said + "\n")
    if not found:
        raise AssertionError(f"systemd-analyze time: {said!r}")
    minutes, seconds, milli = found.groups()
    return 60 * int(minutes or 0) + float(seconds) / (1000 if milli else 1)


# Each gets the rig and the hosts of primary and secondary, and returns a remark.

def power_loss(rig, primary, secondary):
    primary.kill()
    rig.await_primary(secondary)
    rig.await_steps()
    began = time.monotonic()
    rig.lab.boot(primary)  # and nobody tells it anything
    booted = time.monotonic() - began
    rig.await_protected()
    if booted > MAX_BOOT * max(rig.first_boots_s):
        raise AssertionError(f"systemd took {booted:.0f} s to boot, the first times {rig.first_boots_s}")
    return f"{primary.name} booted in {booted:.0f} s"


def upgrade_in_place(rig, primary, secondary):
    before = {host: (rig.show(host, "MainPID"), rig.status(host)["term"]) for host in rig.hosts}
    deb = package.next_version(rig.packages)
    rig.install(deb)
    rig.await_steps()
    after = {host: (rig.show(host, "MainPID"), rig.status(host)["term"]) for host in rig.hosts}
    if before != after:
        raise AssertionError(f"something was disturbed: {before}, {after}")
    versions = {host.run("dpkg-query -W -f '${Version}' romulus").out for host in rig.hosts}
    secondary.run(f"systemctl restart {UNIT}", 180)
    if rig.await_protected()[0] is not primary:
        raise AssertionError("the restart of the secondary moved the guest")
    return f"now {', '.join(versions)}"


def stop_of_the_primary_hands_over(rig, primary, secondary):
    primary.run(f"systemctl stop {UNIT}", 180)
    status = rig.status(secondary)
    seen = status.get("last_switchover") or {}
    if (status.get("role"), seen.get("result")) != ("ROLE_PRIMARY", "taken_over"):
        raise AssertionError(f"not handed over: {status}\n{rig.state()}")
    if (result := rig.show(primary, "Result")) != "success":
        raise AssertionError(f"the unit's result is {result}")
    rig.await_steps()
    primary.run(f"systemctl start {UNIT}", 180)
    return f"pause {int(seen['pause_ns']) / 1e6:.0f} ms (emulated)"


def watchdog_ends_a_frozen_daemon(rig, primary, secondary):
    began = time.monotonic()
    primary.run(f"systemctl kill --kill-whom=main --signal=STOP {UNIT}")
    rig.await_primary(secondary)
    rig.wait_until(lambda: rig.show(primary, "NRestarts") != "0", 4 * WATCHDOG_S + 60, "systemd to start it again")
    said = primary.run(f"journalctl --no-pager --unit {UNIT}").out
    if "Watchdog timeout" not in said:
        raise AssertionError(f"it was not the watchdog:\n{said[-4000:]}")
    return f"started again after {time.monotonic() - began:.0f} s"


def restart_of_the_target(rig, primary, secondary):
    """All VMs of a host, as before its maintenance."""
    primary.run("systemctl stop romulus.target", 180)
    rig.await_primary(secondary)
    rig.await_steps()
    primary.run("systemctl start romulus.target", 180)
    return "stopped and started as a whole"


def agent_runs_the_unit(rig, primary, secondary):
    """A second VM, whose daemons the agent for Pacemaker starts as units."""
    cluster = Cluster(rig.lab.scratch / "cluster", [host.name for host in rig.hosts])
    socket = SOCKET.replace("vm.", "other.")
    config = rig.lab.scratch / "other.textproto"
    config.write_text(config_of(
        [Address(h.name, f"{h.address}:7200", socket) for h in rig.hosts], 'file: "/var/lib/romulus/{node}.other"',
        "/var/lib/romulus/vm.elf", "", "vcpus=1 workload=uniform pages=64 rate=2000 report_ms=100", 32,
        failover="auto_failover: false on_secondary_lost: ON_SECONDARY_LOST_HOLD").replace("5c3f9a52", "5c3f9a53"))

    def act(host, action, wanted, **more):
        environment = {"OCF_ROOT": "/usr/lib/ocf", "OCF_RESOURCE_INSTANCE": "other", "HA_SBIN_DIR": cluster.folder,
                       "ROMULUS_STUB_CLUSTER": cluster.folder, "ROMULUS_STUB_NODE": host.name, "OCF_RESKEY_vm": "other",
                       "OCF_RESKEY_first": primary.name, "OCF_RESKEY_CRM_meta_clone_max": 2,
                       "OCF_RESKEY_CRM_meta_notify": "true", "OCF_RESKEY_crm_feature_set": "3.16.2", **more}
        said = host.run(["env", *(f"{name}={value}" for name, value in environment.items()), AGENT, action], 240,
                        check=False)
        if said.status != wanted:
            journal = host.run("journalctl --no-pager --lines=30 --unit romulus@other.service").out
            raise AssertionError(f"{host.name}: {action} gave {said.status}, not {wanted}: {said.out}{said.err}\n{journal}")

    def in_step():
        for host in rig.hosts:
            act(host, "notify", 0)
        return cluster.get("scores") == {here.name: 10000, there.name: 1000}

    here, there = primary, secondary
    for host in rig.hosts:
        host.run(f"cp {config} /etc/romulus/other.textproto && chgrp romulus /etc/romulus/other.textproto")
        act(host, "monitor", 7, OCF_RESKEY_CRM_meta_interval=0)
        act(host, "start", 0)
    act(there, "promote", 1)
    act(here, "promote", 0)
    rig.wait_until(in_step, 240, "two nodes in step, as the cluster is told")
    act(here, "demote", 0, OCF_RESKEY_CRM_meta_notify_promote_uname=there.name)
    act(there, "promote", 0)
    act(there, "monitor", 8)
    here, there = there, here
    rig.wait_until(in_step, 240, "two nodes in step after the move")
    act(here, "demote", 0)
    for host in rig.hosts:
        act(host, "stop", 0)
        act(host, "monitor", 7)
        left = host.run("ls /run/romulus-cluster /run/systemd/system/romulus@other.service.d", check=False).out.split("\n")
        if any(".conf" in name or ".env" in name for name in left):
            raise AssertionError(f"left on {host.name}: {left}")
    return "moved once"


SCENARIOS = (power_loss, upgrade_in_place, stop_of_the_primary_hands_over, watchdog_ends_a_frozen_daemon,
             restart_of_the_target, agent_runs_the_unit)


def run(report, lab, binaries, deb, only):
    rig = Rig(lab, binaries)
    with report.check("systemd is the first process of each host", required=True) as remarks:
        for host in lab.hosts:
            if (first := host.run("cat /proc/1/comm").out.strip()) != "systemd":
                raise AssertionError(f"{host.name}: it is {first}")
        rig.first_boots_s = [boot_seconds(host.run("systemd-analyze time").out) for host in lab.hosts]
        remarks.append(", ".join(f"{seconds:.0f} s" for seconds in rig.first_boots_s))
    with report.check("dpkg -i", required=True) as remarks:
        rig.install(package.copy_of(deb, rig.packages) if deb else package.of_build(binaries.build, rig.packages))
        remarks.append(rig.hosts[0].run("dpkg-query -W romulus").out.split()[-1])
    with report.check("enable --now; the guest is protected", required=True):
        rig.start_etcd()
        rig.configure()
        first, second = rig.hosts
        # The first start of all is an operator's.
        first.run("install -o romulus -g romulus -m 0600 /dev/null /run/romulus/vm.once\n"
                  "echo ROMULUS_ONCE=--role primary >/run/romulus/vm.once")
        for host in first, second:
            host.run(f"systemctl enable --now romulus.target {UNIT}", 240)
            host.run("sync")
        rig.await_protected()
        rig.await_steps()
    for scenario in SCENARIOS:
        if only and scenario.__name__ not in only:
            continue
        with report.check(scenario.__name__.replace("_", " "), required=True) as remarks:
            primary, secondary = rig.await_protected()
            remarks.append(scenario(rig, primary, secondary))
            rig.await_protected()
            rig.await_steps()
    with report.check("one stream, whoever said it") as remarks:
        whole, faults = join_consoles([rig.console(host) for host in rig.hosts])
        joined = lab.scratch / "joined"
        joined.write_bytes(whole[:whole.rindex(b"\n") + 1])
        judged = subprocess.run([sys.executable, images.HERE.parent / "guests/common/check_console.py", joined, "--json"],
                                capture_output=True, text=True, timeout=120)
        if faults or judged.returncode != 0:
            raise AssertionError(f"{faults} {judged.stdout[-1000:]}{judged.stderr}")
        remarks.append(f"{json.loads(judged.stdout).get('last')} steps")


if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:], __doc__, run, {
        "--deb": {"help": "the package to begin with"},
        "--only": {"nargs": "*", "help": "these scenarios, by the names of their functions"}}, **LAB))
