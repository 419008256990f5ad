#!/usr/bin/python3
"""Whatever dies, one side runs the guest, nothing that was heard is unsaid, and protection comes back by itself.

    failures.py --build FOLDER [--only NAME ...]

The echo guest on two hosts, whose arbiter is an etcd on the third; a client there records every answer of the
guest. Each scenario begins and ends protected, with one primary. Exit status 0 if all hold, 77 if there is
nothing to run.
"""

import sys
import time

import entry
import images
from romulus_node import SOCKET, Address, config_of
from switch_rig import GUEST_IP, GUEST_MAC, SWITCH_IP, SwitchRig, state_of, wait_until

ANSWERS = 20      # before and after each scenario
FROZEN_S = 30     # of the primary's host
ETCD_DOWN_S = 60
CUT_S = 20        # of all cables: well beyond the heartbeat timeout
LAB = {"hosts": 3, "memory_mib": 768}


class Rig(SwitchRig):
    """`nodes` by host name."""

    def __init__(self, lab, binaries):
        super().__init__(lab, binaries, lab.scratch / "echo.textproto")
        arbiter = f'arbiter {{ etcd {{ endpoints: "{SWITCH_IP}:2379" timeout_ms: 5000 }} }}'
        self._config.write_text(config_of(
            [Address(h.name, f"{h.address}:7100", SOCKET) for h in self.hosts],
            f'file: "{lab.scratch}/{{node}}.guest"', binaries.build / "guests/echo.elf", "",
            f"ip={GUEST_IP} port=7 count=1", 16, failover=f"auto_failover: true {arbiter}",
            devices=f'nics {{ tap: "tap0" mac: "{GUEST_MAC}" announce_ip: "{GUEST_IP}" }} rng: false'))
        self.nodes = {host.name: self.node(host) for host in self.hosts}
        self.etcd = self.client = self.record = None
        self._clients = 0

    def set_up(self):
        self.set_up_switch()
        self.etcd = self.switch.execute(
            f"exec etcd --data-dir /run/etcd --listen-client-urls http://{SWITCH_IP}:2379"
            f" --advertise-client-urls http://{SWITCH_IP}:2379", follow=True)
        self.etcd.wait_for("ready to serve client requests", 120)
        first, second = self.hosts
        self.start(first, "primary")  # there is no record yet
        self.start(second)

    def start(self, host, role=None):
        """A host that has just been booted: the record decides what its node is."""
        self.set_up_network(host)
        self.nodes[host.name].start(role)

    def power_on(self, host):
        self.lab.boot(host)
        self.start(host)

    def new_client(self):
        """The guest begins anew, and so does its count."""
        if self.client:
            self.client.kill()
        self._clients += 1
        self.record = self.lab.scratch / f"answers{self._clients}"
        self.client = self.switch.execute(["/usr/bin/python3", images.HERE / "echo_client.py", GUEST_IP,
                                           self.record], follow=True)

    def answers(self):
        return len(self.record.read_text().splitlines()) if self.record.exists() else 0

    def longest_wait_s(self, since):
        lines = self.record.read_text().splitlines()[since:]
        return max((float(line.split()[2]) for line in lines), default=0.0)

    def late(self):
        """Answers of acked epochs that came after newer ones."""
        return sum(line.startswith("late") for line in self.client.lines.all())

    def await_answers(self, more=ANSWERS, timeout=180):
        goal = self.answers() + more
        self.wait_until(lambda: self.answers() >= goal, timeout, f"{more} more answers")

    def roles(self):
        """{role: host} of the nodes that are in step; empty unless both are."""
        found = {}
        for host in self.hosts:
            if not host.alive() or host.frozen():
                return {}
            status = self.nodes[host.name].status()
            if status.get("mode") != "MODE_PROTECTED":
                return {}
            found[status["role"]] = host
        return found if len(found) == 2 else {}

    def await_protected(self, timeout=240):
        """(primary's host, secondary's)."""
        found = {}

        def protected():
            nonlocal found
            found = self.roles()
            return found

        self.wait_until(protected, timeout, "one primary and one secondary in step")
        return found["ROLE_PRIMARY"], found["ROLE_SECONDARY"]

    def await_primary(self, host, timeout=180):
        """Its output leaves there."""
        self.wait_until(lambda: self.nodes[host.name].status().get("role") == "ROLE_PRIMARY", timeout,
                        f"{host.name} to be the primary")

    def wait_until(self, condition, timeout, what):
        try:
            wait_until(condition, timeout, what, self.switch, self.client)
        except Exception as error:
            raise AssertionError(f"{error}\n{state_of(self.nodes.values())}") from error


# Each gets the rig and the hosts of primary and secondary, and returns a remark.

def primary_host_dies(rig, primary, secondary):
    primary.kill()
    rig.await_primary(secondary)
    rig.await_answers()
    rig.power_on(primary)
    return f"{secondary.name} went on"


def secondary_host_dies(rig, primary, secondary):
    secondary.kill()
    rig.await_answers()
    rig.power_on(secondary)
    return f"{primary.name} went on"


def _both_die(rig, order):
    for host in rig.hosts:
        host.kill()
    for host in order:
        rig.power_on(host)
    rig.new_client()  # there are no disks: the guest is booted
    return f"{order[0].name} came back first"


def both_die_primary_first(rig, primary, secondary):
    return _both_die(rig, (primary, secondary))


def both_die_secondary_first(rig, primary, secondary):
    return _both_die(rig, (secondary, primary))


def partition_etcd_with_primary(rig, primary, secondary):
    rig.lab.cut(primary, secondary)
    rig.lab.cut(secondary, rig.switch)
    rig.wait_until(lambda: rig.nodes[primary.name].status().get("mode") == "MODE_SOLO", 180,
                   f"{primary.name} to be solo")
    rig.await_answers()
    rig.lab.restore(primary, secondary)
    rig.lab.restore(secondary, rig.switch)
    return f"{primary.name} went on"


def partition_etcd_with_secondary(rig, primary, secondary):
    rig.lab.cut(primary, secondary)
    rig.lab.cut(primary, rig.switch)
    rig.await_primary(secondary)
    rig.await_answers()
    rig.lab.restore(primary, secondary)
    rig.lab.restore(primary, rig.switch)
    return f"{secondary.name} went on"


def partition_etcd_with_neither(rig, primary, secondary):
    pairs = (primary, secondary), (primary, rig.switch), (secondary, rig.switch)
    for a, b in pairs:
        rig.lab.cut(a, b)
    time.sleep(CUT_S)  # for what must not happen
    modes = [rig.nodes[host.name].status().get("mode") for host in (primary, secondary)]
    if "MODE_SOLO" in modes:
        raise AssertionError(f"somebody went on without the arbiter: {modes}")
    for a, b in pairs:
        rig.lab.restore(a, b)
    return f"both waited: {', '.join(modes)}"


def link_cut(rig, primary, secondary):
    rig.lab.cut(primary, secondary)
    time.sleep(CUT_S)
    rig.await_answers()
    rig.lab.restore(primary, secondary)
    return "one went on"


def primary_host_freezes(rig, primary, secondary):
    primary.freeze()
    try:
        rig.await_primary(secondary)
        rig.await_answers()
        time.sleep(FROZEN_S)
    finally:
        primary.thaw()
    return f"{secondary.name} went on"


def etcd_down_in_normal_work(rig, primary, secondary):
    term = rig.nodes[primary.name].status()["term"]
    rig.switch.run("kill -STOP $(pidof etcd)")
    began = time.monotonic()
    while time.monotonic() - began < ETCD_DOWN_S:
        rig.await_answers()
    rig.switch.run("kill -CONT $(pidof etcd)")
    found, _ = rig.await_protected()
    if found is not primary or rig.nodes[primary.name].status()["term"] != term:
        raise AssertionError(f"protection was disturbed\n{state_of(rig.nodes.values())}")
    return "nobody noticed"


SCENARIOS = (primary_host_dies, secondary_host_dies, partition_etcd_with_primary,
             partition_etcd_with_secondary, partition_etcd_with_neither, link_cut,
             primary_host_freezes, etcd_down_in_normal_work, both_die_primary_first,
             both_die_secondary_first)


def run(report, lab, binaries, only):
    rig = Rig(lab, binaries)
    with report.check("the guest is protected, a client hears it", required=True):
        rig.set_up()
        rig.await_protected()
        rig.new_client()
        rig.await_answers()
    for scenario in SCENARIOS:
        if only and scenario.__name__ not in only:
            continue
        with report.check(scenario.__name__.replace("_", " "), required=True) as remarks:
            primary, secondary = rig.await_protected()
            mark, began = rig.answers(), time.monotonic()
            client, late_before = rig.client, rig.late()
            remarks.append(scenario(rig, primary, secondary))
            rig.await_protected()
            rig.await_answers()
            if rig.client is client:
                remarks.append(f"longest wait for an answer {rig.longest_wait_s(mark):.1f} s")
                if late := rig.late() - late_before:
                    remarks.append(f"{late} late")
            remarks.append(f"protected again after {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:], __doc__, run, {
        "--only": {"nargs": "*", "help": "these scenarios, by the names of their functions"}}, **LAB))
