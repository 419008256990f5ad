"""All that the lab knows about the command lines and the configuration of romulusd and romulusctl.

When these change, this is the file to change. Its counterpart is proto/romulus/v1/config.proto.
"""

import dataclasses
import json
import os
import pathlib
import shlex

SOCKET = "unix:///run/romulus/vm.sock"  # each lab host has a /run of its own
HEARTBEAT_TIMEOUT_MS = 5000
_UUID = "5c3f9a52-7a0e-4f0b-9d0c-2f6b1c7f1e11"


class Binaries:
    """Where romulusd and romulusctl were built: a CMake build folder."""

    def __init__(self, build):
        self.build = pathlib.Path(build).resolve()
        self.romulusd = self.build / "daemon" / "romulusd"
        self.romulusctl = self.romulusd.with_name("romulusctl")

    def present(self):
        return all(os.access(path, os.X_OK) for path in (self.romulusd, self.romulusctl))


def console_file(folder, host):
    """Where the node on a host writes the guest's console, byte k of the stream as byte k."""
    return folder / f"{host.name}.guest"


def config(hosts, folder, kernel, initrd, command_line, memory_mib, **more):
    """The textproto that both nodes read, with timeouts that suit an emulated host."""
    return config_of([Address(host.name, f"{host.address}:7100", SOCKET) for host in hosts],
                     f'file: "{folder}/{{node}}.guest"', kernel, initrd, command_line, memory_mib,
                     **more)


@dataclasses.dataclass
class Address:
    """One of the nodes that a configuration names."""
    name: str
    replication: str
    control: str


def config_of(nodes, console, kernel, initrd, command_line, memory_mib, vcpus=1, devices="",
              failover="", checkpoint=""):
    """A textproto for any one or two nodes; console and checkpoint are the contents of the fields of
    these names, devices more fields of guest, failover more of that."""
    names = "".join(f"""\
nodes {{
  name: "{node.name}"
  replication_address: "{node.replication}"
  control_address: "{node.control}"
}}
""" for node in nodes)
    ramdisk = f'  initrd: "{initrd}"\n' if initrd else ""
    return f"""\
name: "linux"
uuid: "{_UUID}"
{names}guest {{
  kernel: "{kernel}"
{ramdisk}  command_line: "{command_line}"
  memory_mib: {memory_mib}
  vcpus: {vcpus}
  {devices}
}}
console {{ {console} }}
checkpoint {{ {checkpoint} }}
insecure: true
failover {{ heartbeat_interval_ms: 500 heartbeat_timeout_ms: {HEARTBEAT_TIMEOUT_MS} {failover} }}
"""


class Node:
    """romulusd on one lab host: by default its only one, which has the host's name."""

    def __init__(self, host, binaries, config_file, name=None, control=SOCKET):
        self.host = host
        self.name = name or host.name
        self._control = control
        self._binaries = binaries
        self._config_file = config_file
        self.daemon = None  # the Job

    def start(self, role=None):
        """role: None leaves it to the arbiter's record."""
        self.host.run("mkdir -p /run/romulus")
        self.daemon = self.host.execute(self.command(role), follow=True)

    def command(self, role=None):
        return shlex.join(map(str, (self._binaries.romulusd, "run", "--config", self._config_file,
                                    "--node", self.name, *(["--role", role] if role else []))))

    def status(self):
        """GetStatusResponse of proto/romulus/v1/control.proto; empty while nobody answers yet."""
        result = self._ask("status", "--json")
        return json.loads(result.out) if result.status == 0 else {}

    def is_protected(self):
        return self.status().get("mode") == "MODE_PROTECTED"

    def failover(self):
        """Whether the node promoted itself: it refuses as long as it may still hear the primary."""
        return self._ask("failover").status == 0

    def unprotect_by_force(self):
        self.host.run([self._binaries.romulusctl, "--address", self._control, "unprotect", "--force"])

    def disks(self, report, compare=None):
        """What `romulusd disks` says as JSON, which also goes to the file `report`; compare: the
        other node's."""
        words = [self._binaries.romulusd, "disks", "--config", self._config_file, "--node", self.name,
                 "--json", *(["--compare", compare] if compare else [])]
        said = self.host.run(words).out
        report.write_text(said)
        return said

    def _ask(self, *words):
        return self.host.run([self._binaries.romulusctl, "--address", self._control, *words],
                             check=False)
