#!/usr/bin/env python3
"""Mutual TLS between two daemons and to romulusctl: who is let in, who is not, and what a change of the files does.

The certificates are made by scripts/certs and openssl at test time. Needs /dev/kvm.
"""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import unittest
import urllib.request

import pair as pairlib

BUILD = None
CERTS = pathlib.Path(__file__).resolve().parents[2] / "scripts/certs"
# Each node has its own copy of the CA's certificate.
TLS = 'tls { ca_file: "{node}.ca.pem" cert_file: "{node}.pem" key_file: "{node}.key"\n' \
      'admins: "ops" read_only: "monitor" }\n'


def openssl(*arguments, stdin="", check=True):
    # A server's HTTP/2 frames are no text.
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, text=True,
                          errors="replace", timeout=pairlib.PATIENCE_S)
    if check and done.returncode != 0:
        raise pairlib.PairError(f"openssl {arguments}: {done.stderr}")
    return done


def certs(folder, *names):
    subprocess.run([CERTS, folder, *names], check=True, timeout=pairlib.PATIENCE_S)


def replace(source, target):
    """As a careful administrator: at once."""
    part = target.with_suffix(".part")
    shutil.copy(source, part)
    os.replace(part, target)


class TlsPair(pairlib.Pair):
    """alpha and beta with TLS on both paths and remote control; ca/ has the CA and what it signed."""

    def __init__(self, **options):
        super().__init__(BUILD, **options)
        self.ca = self.folder / "ca"
        certs(self.ca, "alpha", "beta", "gamma", "ops", "monitor", "stranger")
        for node in pairlib.NODES:
            self.install(node)
        more = [port for port in pairlib.free_ports(8) if port not in self.ports]
        self.beats, self.remote = more[:2], more[2:4]
        self.text = self.with_tls(self.config.read_text())
        self.config.write_text(self.text)

    def with_tls(self, text):
        for port, beat, remote in zip(self.ports[:2], self.beats, self.remote):
            line = f'  replication_address: "127.0.0.1:{port}"\n'
            text = text.replace(line, f'{line}  heartbeat_address: "127.0.0.1:{beat}"\n'
                                      f'  remote_control_address: "127.0.0.1:{remote}"\n')
        return text + TLS

    def install(self, node, ca=None, name=None):
        """The files that `node` reads."""
        ca = ca or self.ca
        replace(ca / "ca.pem", self.folder / f"{node}.ca.pem")
        replace(ca / f"{name or node}.key", self.folder / f"{node}.key")
        replace(ca / f"{name or node}.pem", self.folder / f"{node}.pem")

    def start_on_both_paths(self):
        primary, secondary = self.start_protected()
        for node in primary, secondary:
            node.await_status("the second path",
                              lambda s: any(p["path"] == "second" and p.get("heard")
                                            for p in s.get("paths", [])))
        return primary, secondary

    def metric(self, node, name):
        """Of alpha or beta: the values of all lines of that name, by their labels."""
        port = self.ports[2 + pairlib.NODES.index(node)]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics",
                                    timeout=pairlib.PATIENCE_S) as page:
            lines = page.read().decode().splitlines()
        found = (re.fullmatch(rf"{name}{{(.*)}} (\S+)", line) for line in lines)
        return {match[1]: float(match[2]) for match in found if match}

    def refusals(self, node):
        """{reason: count}, without zeros."""
        counts = {}
        for labels, value in self.metric(node, "romulus_tls_refusals_total").items():
            if value:
                counts[re.search(r'reason="(\w+)"', labels)[1]] = int(value)
        return counts

    def await_refusal(self, daemon, reason, more_than=0):
        daemon.await_status(f"a refusal: {reason}",
                            lambda _: self.refusals(daemon.node).get(reason, 0) > more_than)
        said = daemon.log_path.read_text()
        assert "event=tls_refused" in said and f"reason={reason}" in said, said

    def remote_command(self, node, who, *arguments, ca=None, name=None):
        """romulusctl from elsewhere, as `who`."""
        ca = ca or self.ca
        command = [BUILD / "daemon/romulusctl", "--address",
                   f"127.0.0.1:{self.remote[pairlib.NODES.index(node)]}",
                   "--tls-ca", self.ca / "ca.pem", "--tls-cert", ca / f"{who}.pem",
                   "--tls-key", ca / f"{who}.key", "--tls-name", name or node, *arguments]
        return [str(part) for part in command]

    def remote_ctl(self, *arguments, **options):
        return subprocess.run(self.remote_command(*arguments, **options), capture_output=True, text=True,
                              timeout=pairlib.PATIENCE_S)


def says_tls(port, *arguments, ask="Q\n"):
    """openssl's client to that port of this host; what it said."""
    done = openssl("s_client", "-connect", f"127.0.0.1:{port}", "-alpn", "h2", *arguments, stdin=ask,
                   check=False)
    return done.stdout + done.stderr


def says_plainly(port, text):
    """What the port answers to that."""
    with socket.create_connection(("127.0.0.1", port), timeout=pairlib.PATIENCE_S) as plain:
        plain.sendall(text)
        with contextlib.suppress(ConnectionError):
            return plain.recv(1 << 10)
    return b""


class WithTls(unittest.TestCase):
    failover = "auto_failover: true heartbeat_interval_ms: 50 heartbeat_timeout_ms: 3000"

    def setUp(self):
        self.pair = TlsPair(failover=self.failover,
                            limits="reconnect_min_ms: 50 reconnect_max_ms: 300")
        self.pair.__enter__()
        self.addCleanup(lambda: self.pair.__exit__(*sys.exc_info()))

    def await_steps(self, daemon, more=3):
        said = len(daemon.console())
        daemon.await_console("more steps", lambda data: data[said:].count(b"\nstep ") >= more)


class Pairs(WithTls):
    def test_a_pair_protects_and_fails_over(self):
        primary, secondary = self.pair.start_on_both_paths()
        self.await_steps(primary)
        for port in (self.pair.ports[1], self.pair.beats[1], self.pair.remote[1]):
            for version in "-tls1_2", "-tls1_3":
                said = says_tls(port, version, "-CAfile", self.pair.ca / "ca.pem", "-verify_hostname",
                                "beta", "-cert", self.pair.ca / "alpha.pem", "-key",
                                self.pair.ca / "alpha.key")
                self.assertIn("Verify return code: 0 (ok)", said)
        for node in primary, secondary:
            self.assertIn("name=beta" if node is secondary else "name=alpha",
                          node.log_path.read_text())
            self.assertEqual(self.pair.refusals(node.node), {})
            expires = self.pair.metric(node.node,
                                       "romulus_tls_certificate_expiry_timestamp_seconds")
            self.assertGreater(list(expires.values())[0], time.time() + 800 * 86400)
            tls = node.status()["tls"]
            self.assertEqual((tls["name"], tls["insecure"]), (node.node, False))
            self.assertEqual(int(tls["expires_unix_s"]), int(list(expires.values())[0]))
            self.assertRegex(node.ctl("status", json_output=False),
                             rf"(?m)^certificate +{node.node}, expires in 8\d\d days, on 20")
        primary.kill()
        secondary.await_status("a promotion", lambda s: "last_failover" in s)
        self.await_steps(secondary)
        good, whole, why = pairlib.stream_continues(primary.console(), secondary.settled_console())
        self.assertTrue(good, why)
        self.assertTrue(pairlib.judge_console(whole)["good"])
        # And protected again, the other way round.
        self.pair.start_node("alpha", "secondary")
        secondary.await_mode("protected")


class Strangers(WithTls):
    def test_are_refused_named_and_counted_and_nothing_else_is_disturbed(self):
        primary, secondary = self.pair.start_on_both_paths()
        before = primary.status()
        ports = (self.pair.ports[1], self.pair.beats[1], self.pair.remote[1])
        ca = self.pair.ca

        for count, port in enumerate(ports):
            self.assertEqual(says_plainly(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), b"")
            self.pair.await_refusal(secondary, "plain_text", count)
        self.assertRegex(secondary.log_path.read_text(), r"reason=plain_text from=ipv4:127.0.0.1:\d+")

        for count, port in enumerate(ports):
            says_tls(port)
            self.pair.await_refusal(secondary, "no_certificate", count)

        other = self.pair.folder / "other"
        certs(other, "alpha")
        openssl("req", "-new", "-key", ca / "alpha.key", "-subj", "/CN=alpha", "-addext",
                "subjectAltName=DNS:alpha", "-out", ca / "request")
        openssl("x509", "-req", "-in", ca / "request", "-copy_extensions", "copyall", "-CA",
                ca / "ca.pem", "-CAkey", ca / "ca.key", "-days", "-1", "-set_serial", "9", "-out",
                ca / "expired.pem")
        count = 0
        for cert, key in ((other / "alpha.pem", other / "alpha.key"),
                          (ca / "expired.pem", ca / "alpha.key")):
            for port in ports:
                says_tls(port, "-cert", cert, "-key", key)
                self.pair.await_refusal(secondary, "untrusted", count)
                count += 1

        # What the two ends have in common is too old.
        says_tls(ports[0], "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        self.pair.await_refusal(secondary, "protocol")

        # A node with a good certificate that is not the other node: on the second path alone, on which the node that
        # is listed first connects, whatever it plays, and on the stream alone.
        self.pair.install("gamma")
        self.refuse_gamma(secondary, "secondary", self.gammas_text(), 0)
        counted = self.pair.refusals("beta")["wrong_name"]
        alone = re.sub(r"(?m)^ *heartbeat_address: .*\n", "", self.gammas_text())
        third = self.refuse_gamma(secondary, "primary", alone, counted)
        refused = third.await_status("a refusal", lambda s: "certificate" in
                                     s.get("peer", {}).get("detail", ""))
        self.assertIn("not of 'alpha'", refused["peer"]["detail"])
        self.assertRegex(secondary.log_path.read_text(),
                         r"reason=wrong_name from=ipv4:127.0.0.1:\d+ why=.*gamma.*not of.*alpha")
        third.kill()

        after = primary.await_status("what was", lambda s: s["mode"] == "MODE_PROTECTED")
        self.assertEqual(after["term"], before["term"])
        self.assertEqual(secondary.status()["mode"], "MODE_PROTECTED")
        for node in primary, secondary:
            self.assertNotIn("second_path_silent", node.log_path.read_text())
        self.assertEqual(self.pair.refusals("alpha"), {})
        self.await_steps(primary)

    def gammas_text(self):
        """gamma takes itself for beta's peer, at addresses of its own."""
        text = self.pair.text.replace('name: "alpha"', 'name: "gamma"').replace("alpha.sock", "gamma.sock")
        for old, new in zip((self.pair.ports[0], self.pair.ports[2], self.pair.beats[0],
                             self.pair.remote[0]), pairlib.free_ports(8)):
            text = text.replace(f'"127.0.0.1:{old}"', f'"127.0.0.1:{new}"')
        return text

    def refuse_gamma(self, secondary, role, text, counted):
        """It is refused once more; the daemon, which lives on if it is a primary."""
        (self.pair.folder / "gamma.textproto").write_text(text)
        own_config, self.pair.config = self.pair.config, self.pair.folder / "gamma.textproto"
        third = self.pair.start_node("gamma", role)
        self.pair.config = own_config
        self.pair.await_refusal(secondary, "wrong_name", counted)
        if role == "secondary":
            third.kill()
        return third

    def test_a_primary_does_not_take_another_for_its_secondary(self):
        # beta's address is gamma's, whose certificate is good.
        gamma = self.pair.folder / "gamma.textproto"
        gamma.write_text(self.pair.text.replace('name: "beta"', 'name: "gamma"')
                         .replace("beta.sock", "gamma.sock"))
        self.pair.install("gamma")
        own_config, self.pair.config = self.pair.config, gamma
        self.pair.start_node("gamma", "secondary")
        self.pair.config = own_config
        primary = self.pair.start_node("alpha", "primary")
        self.pair.await_refusal(primary, "wrong_name")
        detail = primary.status()["peer"]["detail"]
        self.assertIn("certificate", detail)
        self.assertEqual(primary.status()["mode"], "MODE_SOLO")
        self.await_steps(primary)


class Files(WithTls):
    failover = "auto_failover: false on_secondary_lost: ON_SECONDARY_LOST_SOLO " \
               "heartbeat_interval_ms: 50 heartbeat_timeout_ms: 3000"

    def served(self, port):
        """The serial number of the certificate that the port shows."""
        said = says_tls(port, "-cert", self.pair.ca / "alpha.pem", "-key", self.pair.ca / "alpha.key")
        return openssl("x509", "-noout", "-serial", stdin=said).stdout

    def test_a_renewed_certificate_is_used_and_the_streams_stand(self):
        primary, secondary = self.pair.start_on_both_paths()
        term = primary.status()["term"]
        ports = (self.pair.ports[1], self.pair.beats[1], self.pair.remote[1])
        old = {self.served(port) for port in ports}
        self.assertEqual(len(old), 1)
        certs(self.pair.ca, "alpha", "beta")
        new = openssl("x509", "-noout", "-serial", "-in", self.pair.ca / "beta.pem").stdout
        self.assertNotIn(new, old)
        for node in primary, secondary:
            self.pair.install(node.node)
            node.await_status("the new files",
                              lambda _: "tls_reloaded" in node.log_path.read_text())
        self.assertEqual({self.served(port) for port in ports}, {new})
        for node in primary, secondary:
            self.assertEqual(node.status()["mode"], "MODE_PROTECTED")
            self.assertEqual(node.status()["term"], term)
            self.assertEqual(self.pair.refusals(node.node), {})
        # New connections are made with it.
        secondary.kill()
        primary.await_mode("solo")
        self.pair.start_node("beta", "secondary")
        primary.await_mode("protected")

    def test_files_that_do_not_match_leave_what_was(self):
        primary, secondary = self.pair.start_on_both_paths()
        shown = self.served(self.pair.ports[1])
        replace(self.pair.ca / "gamma.key", self.pair.folder / "beta.key")
        secondary.await_status("a complaint",
                               lambda _: "tls_reload_failed" in secondary.log_path.read_text())
        self.assertRegex(secondary.log_path.read_text(), r"the key in \S*beta.key\S* is not that of")
        self.assertEqual(self.served(self.pair.ports[1]), shown)
        self.pair.install("beta")
        self.assertEqual(primary.status()["mode"], "MODE_PROTECTED")

    def revoke(self, where):
        """The other node's certificate ceases to be trusted at `where`, and is trusted again."""
        primary, secondary = self.pair.start_on_both_paths()
        other = self.pair.folder / "other"
        certs(other, "nobody")
        at = {"alpha": primary, "beta": secondary}[where]
        replace(other / "ca.pem", self.pair.folder / f"{where}.ca.pem")
        self.pair.await_refusal(at, "revoked")
        primary.await_mode("solo")
        self.assertIn("tls_reloaded", at.log_path.read_text())
        # It tries again, in vain.
        self.pair.await_refusal(at, "untrusted", 2)
        self.await_steps(primary)
        replace(self.pair.ca / "ca.pem", self.pair.folder / f"{where}.ca.pem")
        primary.await_mode("protected")
        secondary.await_mode("protected")

    def test_a_peer_that_is_revoked_at_the_secondary_is_out_at_once(self):
        self.revoke("beta")

    def test_a_peer_that_is_revoked_at_the_primary_is_out_at_once(self):
        self.revoke("alpha")

    def test_bad_files_are_refused_at_the_start(self):
        replace(self.pair.ca / "gamma.key", self.pair.folder / "beta.key")
        for command in "check", "run":
            done = subprocess.run([str(BUILD / "daemon/romulusd"), command, "--config",
                                   str(self.pair.config), "--node", "beta"], capture_output=True,
                                  text=True, timeout=pairlib.PATIENCE_S)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertRegex(done.stderr, r":\d+:\d+: tls.key_file: the key in '.*beta.key' is not")


class RemoteControl(WithTls):
    def test_a_name_has_a_role(self):
        primary, _ = self.pair.start_on_both_paths()
        ctl = self.pair.remote_ctl
        for who in "ops", "monitor":
            for command in ("status",), ("epochs",), ("events",), ("report", "--out", "-"):
                done = ctl("alpha", who, *command)
                self.assertEqual(done.returncode, 0, done.stderr)
        done = ctl("alpha", "monitor", "pause")
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("'monitor', is in read_only", done.stderr)
        self.assertFalse(primary.status().get("paused", False))
        for command in ("failover", "--force"), ("unprotect", "--force"), ("switchover",), \
                ("protect",), ("resume",), ("set", "--max-dirty-pages", "100"):
            self.assertEqual(ctl("alpha", "monitor", *command).returncode, 4, command)
        self.assertEqual(ctl("alpha", "ops", "pause").returncode, 0)
        self.assertEqual(ctl("alpha", "ops", "resume").returncode, 0)
        # The other node's certificate is good for its stream only.
        for who in "stranger", "beta":
            for command in ("status",), ("events", "--follow"), ("report", "--out", "-"):
                done = ctl("alpha", who, *command)
                self.assertEqual(done.returncode, 4, done.stderr)
                self.assertIn("neither admins nor read_only", done.stderr)
        self.assertEqual(primary.status()["mode"], "MODE_PROTECTED")
        primary.await_status("the count", lambda _: self.pair.refusals("alpha").get("role") == 13)

    def test_an_operator_who_is_revoked_is_out_at_once(self):
        """Of another CA, which alone ceases to be trusted: nobody else is disturbed."""
        other = self.pair.folder / "other"
        certs(other, "ops")
        own_ca, both = self.pair.ca / "ca.pem", self.pair.folder / "both.pem"
        both.write_text(own_ca.read_text() + (other / "ca.pem").read_text())
        replace(both, self.pair.folder / "alpha.ca.pem")
        primary, secondary = self.pair.start_on_both_paths()
        term = primary.status()["term"]
        follower = subprocess.Popen(self.pair.remote_command("alpha", "ops", "events", "--follow", ca=other), text=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=pairlib.die_with_parent)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        self.assertTrue(follower.stdout.readline())  # he is in
        replace(own_ca, self.pair.folder / "alpha.ca.pem")
        _, complaint = follower.communicate(timeout=pairlib.PATIENCE_S)
        self.assertEqual(follower.returncode, 4, complaint)
        self.assertIn("not trusted any more", complaint)
        self.pair.await_refusal(primary, "revoked")
        self.assertEqual(self.pair.remote_ctl("alpha", "ops", "status", ca=other).returncode, 3)
        self.pair.await_refusal(primary, "untrusted")
        self.assertEqual(self.pair.remote_ctl("alpha", "ops", "status").returncode, 0)
        for node in primary, secondary:
            status = node.status()
            self.assertEqual((status["mode"], status["term"]), ("MODE_PROTECTED", term))
            self.assertNotIn("second_path_silent", node.log_path.read_text())
        self.assertEqual(self.pair.refusals("beta"), {})

    def test_nobody_else_gets_in(self):
        primary, _ = self.pair.start_on_both_paths()
        port = self.pair.remote[0]
        romulusctl = str(BUILD / "daemon/romulusctl")
        done = subprocess.run([romulusctl, "--address", f"127.0.0.1:{port}", "status"],
                              capture_output=True, text=True, timeout=pairlib.PATIENCE_S)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.pair.await_refusal(primary, "plain_text")
        other = self.pair.folder / "other"
        certs(other, "ops")
        self.assertEqual(self.pair.remote_ctl("alpha", "ops", "status", ca=other).returncode, 3)
        self.pair.await_refusal(primary, "untrusted")
        done = self.pair.remote_ctl("alpha", "ops", "status", name="beta")
        self.assertEqual(done.returncode, 3)
        self.assertIn("not in peer certificate", done.stderr)
        # Plain text does not leave this host, nor do half of the files do.
        for arguments in (("--address", "192.0.2.1:7", "status"),
                          ("--address", f"127.0.0.1:{port}", "--tls-ca", "x", "status"),
                          ("--address", primary.address, "--tls-ca", "x", "--tls-cert", "x",
                           "--tls-key", "x", "status")):
            done = subprocess.run([romulusctl, *arguments], capture_output=True, text=True,
                                  timeout=pairlib.PATIENCE_S)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("--tls-ca", done.stderr)
        # The socket is for whoever may open it.
        self.assertEqual(primary.status()["role"], "ROLE_PRIMARY")


def listens_at(pid):
    """{(address, port)} of the TCP sockets on which the process listens; addresses in the kernel's hexadecimal."""
    inodes = set()
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry)):
                inodes.add(match[1])
    found = set()
    for table in "tcp", "tcp6":
        for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


class Addresses(unittest.TestCase):
    LOOPBACK = "0100007F"

    def test_nothing_listens_but_where_it_was_told_to(self):
        with pairlib.Pair(BUILD) as pair:
            primary, secondary = pair.start_protected()
            for index, node in enumerate((primary, secondary)):
                self.assertEqual(listens_at(node.pid), {(self.LOOPBACK, pair.ports[index]),
                                                        (self.LOOPBACK, pair.ports[2 + index])})
        with TlsPair() as pair:
            # The node that is listed first connects to the other's heartbeat_address, and has none itself.
            primary, secondary = pair.start_on_both_paths()
            self.assertEqual(listens_at(primary.pid), {(self.LOOPBACK, port) for port in (
                pair.ports[0], pair.ports[2], pair.remote[0])})
            self.assertEqual(listens_at(secondary.pid), {(self.LOOPBACK, port) for port in (
                pair.ports[1], pair.ports[3], pair.beats[1], pair.remote[1])})

    def test_who_wants_plain_text_is_told_so(self):
        with pairlib.Pair(BUILD) as pair:
            pair.config.write_text(pair.config.read_text() + "insecure: true\n")
            primary, _ = pair.start_protected()
            self.assertIn("insecure: true", primary.log_path.read_text())
            # On a network it is either that or TLS.
            bad = pair.folder / "bad.textproto"
            bad.write_text(pair.config.read_text().replace("insecure: true\n", "").replace(
                f'"127.0.0.1:{pair.ports[1]}"', f'"192.0.2.1:{pair.ports[1]}"'))
            done = subprocess.run([str(BUILD / "daemon/romulusd"), "run", "--config", str(bad), "--node",
                                   "alpha"], capture_output=True, text=True,
                                  timeout=pairlib.PATIENCE_S)
            self.assertEqual(done.returncode, 2)
            self.assertIn("needs `tls { }`, or `insecure: true`", done.stderr)


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
