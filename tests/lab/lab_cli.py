"""The lab by hand: what `lab.py` does on a command line."""

import argparse
import cmd
import sys

import images
import selftest
from lab import Lab, LabError


class Shell(cmd.Cmd):
    """One command a line; errors are shown and leave the lab as it is."""

    intro = ("The lab is up. A host's number and a command runs it there (1 uname -a), all runs\n"
             "it everywhere; help lists the rest; quit ends the lab.")
    prompt = "lab> "

    def __init__(self, lab):
        super().__init__()
        self._lab = lab

    def onecmd(self, line):
        try:
            return super().onecmd(line)
        except (LabError, KeyError, ValueError) as error:
            print(error.args[0] if isinstance(error, KeyError) else error)
        except KeyboardInterrupt:
            print()
        return False

    def emptyline(self):
        return False

    def default(self, line):
        word, _, command = line.partition(" ")
        if not command or not (word == "all" or word.isdigit()):
            print("a host's number and a command, or: help")
            return False
        for host in self._lab.hosts if word == "all" else [self._host(word)]:
            job = host.execute(command, follow=True)
            shown = 0
            try:
                while not job.lines.wait_for_end(0.2):  # a person looks on, a test waits for lines
                    shown += self._show(job, shown)
                self._show(job, shown)
                print(f"[{host.name}: {job.wait().status}]")
            except KeyboardInterrupt:
                job.kill()
                print(f"[{host.name}: killed]")
        return False

    @staticmethod
    def _show(job, since):
        lines = job.lines.all(since)
        for line in lines:
            print(line, flush=True)
        return len(lines)

    def _host(self, word):
        for host in self._lab.hosts:
            if word in (host.name, host.name[len("host"):]):
                return host
        raise KeyError(f"no host {word!r}, there are: " + " ".join(h.name for h in self._lab.hosts))

    def _pair(self, words):
        names = words.split() or ["1", "2"]
        if len(names) != 2:
            raise ValueError("two hosts, please")
        return self._host(names[0]), self._host(names[1])

    def do_status(self, _):
        """status: the hosts, their addresses and the pids of their QEMUs; the scratch folder."""
        for host in self._lab.hosts:
            print(f"{host.name} {host.address} {f'pid {host.pid}' if host.alive() else 'off'}")
        print(f"scratch {self._lab.scratch}")

    def do_console(self, words):
        """console HOST: what its kernel has said."""
        print("\n".join(self._host(words).console.all()))

    def do_cut(self, words):
        """cut [A B]: no frame passes any more between the hosts (1 and 2), and nobody is told."""
        self._lab.cut(*self._pair(words))

    def do_cut_one_way(self, words):
        """cut_one_way [A B]: no frame passes any more from A to B."""
        self._lab.cut(*self._pair(words), one_way=True)

    def do_unplug(self, words):
        """unplug [A B]: pulls the cable out at both hosts, whose kernels see it."""
        self._lab.unplug(*self._pair(words))

    def do_lose(self, words):
        """lose PERCENT [A B]: loses that part of the frames between the hosts."""
        percent, _, pair = words.partition(" ")
        self._lab.lose(*self._pair(pair), float(percent) / 100)

    def do_restore(self, words):
        """restore [A B]: the cable is whole again."""
        self._lab.restore(*self._pair(words))

    def do_kill(self, words):
        """kill HOST: it loses power."""
        self._host(words).kill()

    def do_boot(self, words):
        """boot HOST: powers a killed host on again."""
        self._lab.boot(self._host(words))

    def do_freeze(self, words):
        """freeze HOST: it stands still."""
        self._host(words).freeze()

    def do_thaw(self, words):
        """thaw HOST: it goes on."""
        self._host(words).thaw()

    def do_quit(self, _):
        """quit: ends all hosts."""
        return True

    def do_EOF(self, _):
        """End of input: as quit."""
        print()
        return True


def main(words):
    parser = argparse.ArgumentParser(prog="lab.py", description="A rig of emulated hosts with KVM.")
    commands = parser.add_subparsers(dest="command", required=True)
    shell = commands.add_parser("shell", help="boots hosts and takes commands for them")
    shell.add_argument("--hosts", type=int, default=2)
    shell.add_argument("--memory-mib", type=int, default=1024, help="of each host")
    shell.add_argument("--systemd", action="store_true", help="as their first process, each with a disk")
    commands.add_parser("selftest", help="shows that the lab works", add_help=False)
    options, rest = parser.parse_known_args(words)
    if options.command == "selftest":
        return selftest.main(rest)
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    try:
        with Lab(hosts=options.hosts, memory_mib=options.memory_mib, systemd=options.systemd,
                 disk_mib=1024 * options.systemd) as lab:
            Shell(lab).cmdloop()
    except (LabError, images.ImageError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
