"""A guest with a root disk and a network card on two hosts of a SwitchRig.

Each host has the guest's disk image on a disk of its own (/dev/vda, ext4, at /run/disk). The guest is what
scripts/make-guest builds: 10.99.1.2. The lab needs hosts=3 and disk_mib.
"""

import pathlib
import subprocess

import guest_disk
import images
from lab import LabError
from romulus_node import SOCKET, Address, config_of, console_file
from switch_rig import GUEST_IP, GUEST_MAC, SwitchRig, join_consoles, state_of, wait_until

_MAKE_GUEST = images.HERE.parent.parent / "scripts/make-guest"
DISK = pathlib.PurePath("/run/disk/root.ext4")
LAB = {"hosts": 3, "disk_mib": 1024, "memory_mib": 1280}


class ServerGuest(SwitchRig):
    """The whole rig. `primary` and `secondary` are Nodes and change places at a failover; `secondary` is
    None while its host is off. checkpoint: that field of the configuration."""

    def __init__(self, lab, binaries, service, checkpoint=""):
        super().__init__(lab, binaries, lab.scratch / "server.textproto")
        self.folder = images.cache_folder() / "guest"
        subprocess.run([_MAKE_GUEST, "--output", self.folder], check=True, timeout=600,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["cp", "--sparse=always", self.folder / "root.ext4", lab.scratch], check=True)
        self._config.write_text(self.config(service, checkpoint))
        self.primary = self.secondary = None

    def config(self, service, checkpoint):
        devices = (f'disks {{ name: "root" path: "{DISK}" }} '
                   f'nics {{ tap: "tap0" mac: "{GUEST_MAC}" announce_ip: "{GUEST_IP}" }}')
        return config_of([Address(h.name, f"{h.address}:7100", SOCKET) for h in self.hosts],
                         f'file: "{self.lab.scratch}/{{node}}.guest"', self.folder / "vmlinuz",
                         self.folder / "initrd.img", self.command_line(service), 256,
                         devices=devices, checkpoint=checkpoint)

    @staticmethod
    def command_line(service):
        return f"console=ttyS0 panic=-1 romulus.ip={GUEST_IP}/24 romulus.service={service}"

    # Hosts.

    def set_up_host(self, host):
        """After each boot: network, and the disk, which has the guest's image from the first on."""
        self.set_up_network(host)
        host.run("mkdir -p /run/disk\n"
                 "mount -t ext4 /dev/vda /run/disk 2>/dev/null || "
                 "{ mke2fs -q -t ext4 /dev/vda && mount -t ext4 /dev/vda /run/disk; }", timeout=120)

    def set_up(self):
        self.set_up_switch()
        for host in self.hosts:
            self.set_up_host(host)
        first, second = self.hosts
        first.run(f"cp --sparse=always {self.lab.scratch}/root.ext4 {DISK} && sync {DISK}", timeout=300)
        size = (self.lab.scratch / "root.ext4").stat().st_size
        second.run(f"truncate -s {size} {DISK}")

    # The guest.

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
        return state_of(filter(None, (self.primary, self.secondary)))

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
