"""A guest with a root disk and a network card on two hosts, and a third one that is switch and client.

    host1, host2   run romulusd. Each has the guest's disk image on a disk of its own (/dev/vda, ext4, at
                   /run/disk), and a bridge br0 of the guest's tap and the cable to host3
    host3          a bridge br0 of both cables: 10.99.1.1, where clients run

The guest is what scripts/make-guest builds: 10.99.1.2. The cable between host1 and host2 is left to
romulusd. The lab needs hosts=3 and disk_mib.
"""

import pathlib
import subprocess
import time

import guest_disk
import images
from lab import LabError
from romulus_node import SOCKET, Address, Node, config_of, console_file

GUEST_IP, SWITCH_IP = "10.99.1.2", "10.99.1.1"
_MAC = "52:54:00:99:fe:01"
_MAKE_GUEST = images.HERE.parent.parent / "scripts/make-guest"
DISK = pathlib.PurePath("/run/disk/root.ext4")
LAB = {"hosts": 3, "disk_mib": 1024, "memory_mib": 1280}


def wait_until(condition, timeout, what, host, job=None):
    """For states that only asking reveals; each question takes its time, so it does not spin."""
    deadline = time.monotonic() + timeout * host.slowness
    while not condition():
        if job and not job.running():
            raise host.error(f"ended before: {what}", job)
        if time.monotonic() > deadline:
            raise host.error(f"not within {timeout} s: {what}", job)
        time.sleep(0.1)


def join_consoles(files):
    """(bytes, faults): what the nodes let out. Each wrote byte k of the guest's stream as byte k of its
    file, with holes where it was not the one; where two say a byte they must say the same."""
    contents = [file.read_bytes() if file.exists() else b"" for file in files]
    whole, faults = bytearray(max(map(len, contents))), []
    for content in contents:
        for at, byte in enumerate(content):
            if byte and whole[at] and byte != whole[at] and not faults:
                faults.append(f"the nodes let out different bytes at {at}")
            whole[at] |= byte
    if 0 in whole:
        faults.append(f"byte {whole.index(0)} was let out by nobody")
    return bytes(whole), faults


class ServerGuest:
    """The whole rig. `primary` and `secondary` are Nodes and change places at a failover; `secondary` is
    None while its host is off."""

    def __init__(self, lab, binaries, service):
        self.lab, self.binaries = lab, binaries
        self.hosts, self.switch = lab.hosts[:2], lab.hosts[2]
        self.folder = images.cache_folder() / "guest"
        subprocess.run([_MAKE_GUEST, "--output", self.folder], check=True, timeout=600,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["cp", "--sparse=always", self.folder / "root.ext4", lab.scratch], check=True)
        self._config = lab.scratch / "server.textproto"
        self._config.write_text(self.config(service))
        self.primary = self.secondary = None

    def config(self, service):
        devices = (f'disks {{ name: "root" path: "{DISK}" }} '
                   f'nics {{ tap: "tap0" mac: "{_MAC}" announce_ip: "{GUEST_IP}" }}')
        return config_of([Address(h.name, f"{h.address}:7100", SOCKET) for h in self.hosts],
                         f'file: "{self.lab.scratch}/{{node}}.guest"', self.folder / "vmlinuz",
                         self.folder / "initrd.img", self.command_line(service), 256,
                         devices=devices)

    @staticmethod
    def command_line(service):
        return f"console=ttyS0 panic=-1 romulus.ip={GUEST_IP}/24 romulus.service={service}"

    # Hosts.

    def set_up_switch(self):
        script = "ip link add br0 type bridge forward_delay 0\n"
        for host in self.hosts:
            script += self._enslave(self.switch, host)
        self.switch.run(script + f"ip addr add {SWITCH_IP}/24 dev br0\nip link set br0 up\n")

    def set_up_host(self, host):
        """After each boot: bridge and tap, and the disk, which has the guest's image from the first on."""
        host.run("ip link add br0 type bridge forward_delay 0\nip tuntap add tap0 mode tap\n"
                 "ip link set tap0 master br0\nip link set tap0 up\n"
                 + self._enslave(host, self.switch) + "ip link set br0 up\n")
        host.run("mkdir -p /run/disk /run/romulus\n"
                 "mount -t ext4 /dev/vda /run/disk 2>/dev/null || "
                 "{ mke2fs -q -t ext4 /dev/vda && mount -t ext4 /dev/vda /run/disk; }", timeout=120)

    @staticmethod
    def _enslave(host, peer):
        name = host.interface_to(peer)
        return f"ip addr flush dev {name}\nip link set {name} master br0\nip link set {name} up\n"

    def set_up(self):
        self.set_up_switch()
        for host in self.hosts:
            self.set_up_host(host)
        first, second = self.hosts
        first.run(f"cp --sparse=always {self.lab.scratch}/root.ext4 {DISK} && sync {DISK}", timeout=300)
        size = (self.lab.scratch / "root.ext4").stat().st_size
        second.run(f"truncate -s {size} {DISK}")

    # The guest.

    def node(self, host):
        return Node(host, self.binaries, self._config)

    def start(self, until):
        """The guest boots alone until its console says `until`; then it is protected. (failover_linux and
        virtio_linux boot one that is protected from the first.)"""
        first, second = self.hosts
        self.primary, self.secondary = self.node(first), self.node(second)
        self.primary.start("primary")
        self.await_line(until)
        self.secondary.start("secondary")
        self.await_protected()

    def await_line(self, text, timeout=400):
        wait_until(lambda: any(text in line for line in self.lines()), timeout,
                   f"{text!r} on the guest's console", self.primary.host, self.primary.daemon)

    def await_protected(self, timeout=600):
        wait_until(self.primary.is_protected, timeout, "state protected", self.primary.host,
                   self.primary.daemon)

    def state(self):
        """What both nodes say of themselves, and said last: for an error's text."""
        texts = []
        for node in filter(None, (self.primary, self.secondary)):
            if not node.host.alive():
                texts.append(f"{node.name} is off")
                continue
            lines = "\n".join(node.daemon.lines.all()[-30:]) if node.daemon else ""
            try:
                status = node.status()
            except LabError as error:
                status = error
            texts.append(f"{node.name}: {status}\n{lines}")
        return "\n".join(texts)

    def console(self):
        return join_consoles([console_file(self.lab.scratch, host) for host in self.hosts])

    def lines(self):
        """Whole lines only: an epoch may end within one."""
        return self.console()[0].decode("utf-8", "replace").replace("\r", "").split("\n")[:-1]

    def fail_over(self):
        """The primary's host loses power; the secondary's goes on."""
        self.primary.host.kill()
        wait_until(self.secondary.failover, 120, "failover", self.secondary.host,
                   self.secondary.daemon)
        self.primary, self.secondary = self.secondary, None

    def rejoin(self):
        """The host that is off comes back and is the secondary."""
        (host,) = (host for host in self.hosts if not host.alive())
        self.lab.boot(host)
        self.set_up_host(host)
        self.secondary = self.node(host)
        self.secondary.start("secondary")
        self.await_protected()

    # Afterwards.

    def image_of(self, host):
        """The guest's disk image out of the disk of a host that is off, as that host would find it when
        it boots: a file in the scratch folder."""
        if host.alive():
            raise LabError(f"{host.name} is on, its disk cannot be looked at")
        path = self.lab.scratch / f"{host.name}.root.ext4"
        with guest_disk.Image(host.disk, self.lab.scratch) as disk:
            disk.recover()
            disk.dump(f"/{DISK.name}", path)
        return path
