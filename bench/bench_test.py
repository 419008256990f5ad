#!/usr/bin/env python3
"""What the benches' tools decide, on figures that are given: no guest, no peer."""

import argparse
import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
import socket
import sys
import tempfile
import threading
import unittest
import unittest.mock

import common
import comparison
import migration
import page_codec
import peers
import plan
import plots
import qemu
import record_linux
import results
import results_peers
import run_all
import tables
import two_vcpus


def event(name, seconds, microseconds=0):
    return {"event": name, "timestamp": {"seconds": seconds, "microseconds": microseconds}}


class PausesTest(unittest.TestCase):
    def test_from_stop_to_resume(self):
        events = [event("RESUME", 1), event("STOP", 2), event("RESUME", 2, 1500), event("OTHER", 3),
                  event("STOP", 3, 999000), event("RESUME", 4, 1000), event("STOP", 5)]
        found = qemu.pauses_of(events)
        self.assertEqual([1.5, 2.0], [round(pause, 3) for pause in found])

    def test_none(self):
        self.assertEqual([], qemu.pauses_of([event("RESUME", 1)]))
        self.assertIsNone(common.quantile([], 0.5))


class MonitorTest(unittest.TestCase):
    """Of a QEMU that says what it is told to."""

    def monitor(self, *lines):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name) / "qmp"
        listener = socket.create_server(str(path), family=socket.AF_UNIX)
        self.addCleanup(listener.close)

        def say():
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"".join(line.encode() + b"\r\n" for line in lines))
                while peer.recv(4096):  # whatever is asked was answered above
                    pass

        thread = threading.Thread(target=say)
        thread.start()
        self.addCleanup(thread.join)
        monitor = qemu.Monitor(path)
        self.addCleanup(monitor.close)
        return monitor

    def test_what_is_not_json_ends_this_session_alone(self):
        monitor = self.monitor('{"QMP": {}}', '{"return": {}}', '5}}', '{"event": "STOP"}')
        with self.assertRaisesRegex(qemu.QemuError, "not JSON: '5}}"):
            monitor.await_event("STOP")

    def test_events_are_kept_on_both_sides_of_an_answer(self):
        monitor = self.monitor('{"QMP": {}}', '{"event": "STOP"}', '{"return": {}}', '{"event": "RESUME"}', '{"return": 5}')
        self.assertEqual(5, monitor.command("query-status"))
        self.assertEqual(["STOP", "RESUME"], [event["event"] for event in monitor.events])


class StepsTest(unittest.TestCase):
    def test_rate_by_the_guests_own_clock(self):
        before = peers.last_words(b"step 000001 ms 1000 sum 00 writes 10 vcpus 1 ok\r\nstep 00")
        after = peers.last_words(b"step 000001 ms 1000 sum 00 writes 10 vcpus 1 ok\n"
                                 b"step 000002 ms 1500 sum ab writes 510 vcpus 1 ok\n")
        self.assertEqual((1000, 10), before)
        self.assertEqual(1000, peers.writes_per_s(before, after))

    def test_no_step_in_the_window(self):
        self.assertIsNone(peers.writes_per_s(None, (1, 1)))
        self.assertIsNone(peers.writes_per_s((5, 7), (5, 7)))


class CompareTest(unittest.TestCase):
    def test_range_of_the_median(self):
        # 2 * (1 + 9) / 512 = 3.9 %: one value at each end can be left out, a second cannot.
        self.assertEqual((2, 8), comparison.median_range(range(1, 10)))
        self.assertEqual((1, 5), comparison.median_range(range(1, 6)))

    def test_verdicts(self):
        worse = [0.9, 0.91, 0.92, 0.9, 0.93, 0.9, 0.91, 0.9, 0.95]
        self.assertEqual("WORSE", comparison.judge(worse, True, 0.03)["verdict"])
        self.assertEqual("better", comparison.judge(worse, False, 0.03)["verdict"])
        noisy = [0.5, 1.6, 0.9, 1.2, 0.8, 1.1, 0.7, 1.3, 0.9]
        self.assertEqual("same", comparison.judge(noisy, True, 0.03)["verdict"])
        within = [0.98] * 9
        self.assertEqual("same", comparison.judge(within, True, 0.03)["verdict"])

    def test_nothing_in_common(self):
        with self.assertRaises(common.ResultError):
            comparison.report({"a": {"old": [1.0], "new": [], "more_is_better": True}}, 0.03)

    @staticmethod
    def compared(rounds_of_new):
        """compare()'s answer, and what it wrote, of a build whose figure is worse in some of the rounds."""
        news = iter(rounds_of_new)
        with tempfile.NamedTemporaryFile(suffix=".json") as file, contextlib.redirect_stdout(io.StringIO()), \
                unittest.mock.patch.object(comparison, "measure",
                                           lambda build, _: {"a": (next(news) if build == "new" else 1.0, True)}):
            options = argparse.Namespace(rounds=9, old="old", new="new", tolerance=0.03, json=pathlib.Path(file.name))
            return comparison.compare(options), common.load_json(file.name)

    def test_worse_once_is_chance_and_twice_is_not(self):
        answer, found = self.compared([1.0] * 9)
        self.assertEqual(([], 1), (answer, len(found)))
        answer, found = self.compared([0.8] * 9 + [1.0] * 9)
        self.assertEqual(([], ["WORSE", "same"]), (answer, [each["a"]["verdict"] for each in found]))
        self.assertEqual(["a"], self.compared([0.8] * 18)[0])

    def test_what_breaks_off_leaves_its_rounds(self):
        with tempfile.NamedTemporaryFile(suffix=".json") as file, contextlib.redirect_stdout(io.StringIO()), \
                unittest.mock.patch.object(comparison, "measure", side_effect=[{"a": (1.0, True)}] * 4 + [OSError()]):
            options = argparse.Namespace(rounds=9, old="old", new="new", tolerance=0.03, json=pathlib.Path(file.name))
            with self.assertRaises(OSError):
                comparison.compare(options)
            self.assertEqual([1.0, 1.0], common.load_json(file.name)[0]["a"]["old"])

    def test_worse_and_then_not_there_is_no_answer(self):
        measured = [{"a": (value, True)} for value in (1.0, 0.8, 0.8, 1.0) * 4 + (1.0, 0.8)]
        again = [{"b": (1.0, True)}] * 18
        options = argparse.Namespace(rounds=9, old="old", new="new", tolerance=0.03, json=None)
        with contextlib.redirect_stdout(io.StringIO()), self.assertRaisesRegex(common.ResultError, "not there again: a"), \
                unittest.mock.patch.object(comparison, "measure", side_effect=measured + again):
            comparison.compare(options)

    def test_what_cannot_be_compared_is_named(self):
        figures = {"a": {"old": [1.0], "new": [1.0], "more_is_better": True},
                   "b": {"old": [0.0], "new": [1.0], "more_is_better": True},
                   "c": {"old": [1.0], "new": [], "more_is_better": True}}
        lines, _ = comparison.report(figures, 0.03)
        self.assertEqual("not compared: b (0 in OLD), c (not in both)", lines[-1])


class RecordingTest(unittest.TestCase):
    """Which pages of a guest's memory get into a corpus."""

    @staticmethod
    def page(value):
        return bytes([value]) * record_linux.PAGE

    def test_each_look_has_what_changed_since_the_last(self):
        memory = bytearray(3 * record_linux.CHUNK)
        looks = record_linux.Looks(memory, len(memory))
        self.assertEqual([], list(looks.look()))
        last = len(memory) - record_linux.PAGE
        memory[5 * record_linux.PAGE:6 * record_linux.PAGE] = self.page(1)
        memory[last:] = self.page(2)
        self.assertEqual([(self.page(0), self.page(1)), (self.page(0), self.page(2))], list(looks.look()))
        self.assertEqual([], list(looks.look()))
        memory[last + 7] = 3
        (before, now), = looks.look()
        self.assertEqual((self.page(2), 3, 2), (before, now[7], now[8]))

    def test_a_sample_is_of_the_whole_time(self):
        file = io.BytesIO()
        sample = record_linux.Sample(file, 20, seed=1)
        for number in range(10):
            sample.offer(self.page(0), self.page(number))
        self.assertEqual((10, 10 * 2 * record_linux.PAGE), (sample.kept, len(file.getvalue())))
        for number in range(10, 200):
            sample.offer(self.page(number), self.page(number))
        self.assertEqual((20, 200), (sample.kept, sample.seen))
        found = file.getvalue()[record_linux.PAGE::2 * record_linux.PAGE]  # a byte of each "now"
        self.assertEqual((20, 20), (len(found), len(set(found))))
        self.assertLess(min(found), 100)
        self.assertGreater(max(found), 150)

    def test_what_is_not_there_is_named(self):
        with tempfile.TemporaryDirectory() as empty, unittest.mock.patch.dict(os.environ, ROMULUS_CACHE=empty):
            self.assertIn("scripts/lab-setup", record_linux.why_not("boot"))
            self.assertIn(empty, record_linux.why_not("redis"))

    def test_words_for_linux(self):
        self.assertEqual([[], ["redis"], list(record_linux.CORPORA)],
                         [page_codec.corpora(text) for text in ("", "redis", "boot,redis")])
        with self.assertRaises(argparse.ArgumentTypeError):
            page_codec.corpora("boot,windows")


class XbzrleTest(unittest.TestCase):
    """What makes QEMU go round again, and what its counters say then."""

    def test_bandwidth_of_each_round(self):
        found = [migration.bandwidth(ram) for ram in (
            {}, {"dirty-sync-count": 1, "remaining": 1}, {"dirty-sync-count": 2, "remaining": 16 << 20},
            {"dirty-sync-count": 2, "remaining": 1 << 20}, {"dirty-sync-count": 3, "remaining": 16 << 20},
            {"dirty-sync-count": 4, "remaining": 16 << 20}, {"dirty-sync-count": 40, "remaining": 0})]
        self.assertEqual([migration.FILL_BYTES_PER_S] * 3, found[:3])
        self.assertEqual([8, 2, 1, 1], [each / migration.SUSTAINED_BYTES_PER_S for each in found[3:]])

    def test_of_hits_only_what_was_sent_counts(self):
        def state(rounds, transferred, hits, small, missed):
            return {"ram": {"dirty-sync-count": rounds, "transferred": transferred},
                    "xbzrle-cache": {"pages": hits, "bytes": small, "cache-miss": missed, "overflow": 0}}
        before = state(7, 50000, 100, 1000, 3)
        after = state(9, 50000 + 20 * 8 + 500 + 2 * 4104, 125, 1500, 5)
        found = migration.xbzrle_figures(before, after, 30)
        self.assertEqual((25, 20, 2, 33.0, 1.5), tuple(found[name] for name in (
            "hits", "sent", "rounds", "bytes_per_page", "writes_per_page")))
        self.assertIsNone(migration.xbzrle_figures(before, before, None)["bytes_per_page"])

    def test_row(self):
        self.assertEqual("31.9 bytes (1.8 writes)", results_peers.redirtied(
            {"bytes_per_page": 31.92, "writes_per_page": 1.82}))
        copied = {"mib_per_s": 1000.4}
        lines = results_peers.migration_section({
            "fill_mib": 768, "first_copy": {"qemu": copied, "romulus": copied},
            "redirtied": {"qemu": {"failed": "it ended"}, "romulus": {"bytes_per_page": 35.3}}}, {})
        self.assertIn("failed: it ended | 35.3 bytes |", lines[-1])
        self.assertIn("| 1,000 MiB/s | 1,000 MiB/s |", lines[-2])


class FormTest(unittest.TestCase):
    BENCH = plan.Bench("x", 1, 1, [], [], [], ("rows.*.value",))

    def test_numbers_are_there(self):
        plan.check(self.BENCH, {"rows": [{"value": 1.5}, {"value": "17"}]})  # protobuf's 64-bit integers

    def test_missing_empty_or_no_number(self):
        for bad in ({}, {"rows": []}, {"rows": [{}]}, {"rows": [{"value": None}]}, {"rows": [{"value": "NaN"}]},
                    {"rows": [{"value": True}]}, {"rows": [{"value": [1]}]}, []):
            with self.subTest(bad=bad), self.assertRaises(common.ResultError):
                plan.check(self.BENCH, bad)

    def test_a_damaged_file(self):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            file.write(b'{"rows": [')
            file.flush()
            with self.assertRaises(common.ResultError):
                common.load_json(file.name)


class FactsTest(unittest.TestCase):
    """What a page says of benches of different runs."""

    HOST = {"processor": "One", "cores": 2, "memory_mib": 1024, "kernel": "6", "kvm": ["kvm_pvm"], "load_before": 0.1}

    def run_of(self, **benches):
        return {"host": self.HOST, "commit": "abc", "qemu": None, "quick": False, "benches": benches}

    def test_those_that_ran_on_a_busy_machine_are_named(self):
        run = self.run_of(a={"load_before": 0.9}, b={"load_before": 0.1}, c={"load_before": 0.9}, d={},
                          e={"busy_before": 0.3, "load_before": 0.1}, f={"busy_before": 0.02, "load_before": 0.9})
        self.assertEqual(["e (30.0 % of the processors)", "a, c (load 0.9)"], results.busy_before(run))
        run["host"] = {**self.HOST, "load_before": 2.5}  # of what says nothing of its own
        self.assertIn("d (load 2.5)", results.busy_before(run))

    def test_figures_of_another_machine_are_said_to_be(self):
        page = "\n".join(results.introduction(self.run_of(a={}, b={})))
        self.assertIn("| processor | One, 2 cores |", page)
        self.assertNotIn("differ", page)
        page = "\n".join(results.introduction(self.run_of(
            a={}, b={"host": {**self.HOST, "processor": "Other", "cores": 64}, "commit": "def"})))
        self.assertIn("| processor | One, 2 cores: a; Other, 64 cores: b |", page)
        self.assertIn("| commit | abc: a; def: b |", page)
        self.assertIn("**Measured on machines that differ", page)

    def test_of_a_quick_run(self):
        self.assertIn("Its figures mean nothing", "\n".join(results.introduction({**self.run_of(a={}), "quick": True})))
        page = "\n".join(results.introduction(self.run_of(a={"quick": True}, b={})))
        self.assertIn("**Of a quick run, so that their figures mean nothing: a.**", page)

    def test_what_stays_from_an_earlier_run_keeps_its_facts(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            self.assertEqual({}, run_all.known_before(folder))
            common.write_json(folder / "run.json", {**self.run_of(a={"state": "ok"}, b={"state": "ok", "commit": "def"})})
            found = run_all.known_before(folder)
            self.assertEqual((self.HOST, "abc", False), tuple(found["a"][fact] for fact in ("host", "commit", "quick")))
            self.assertEqual("def", found["b"]["commit"])

    def test_the_commit_is_that_of_the_tree_that_was_built(self):
        with tempfile.TemporaryDirectory() as name:
            build = pathlib.Path(name)
            (build / "CMakeCache.txt").write_text(f"X:STRING=1\nCMAKE_HOME_DIRECTORY:INTERNAL={name}\n")
            self.assertEqual("unknown", run_all.commit(build))

    def test_a_share_of_the_processors(self):
        with unittest.mock.patch.object(run_all, "cpu_ticks", side_effect=[(10, 100), (35, 200)]):
            self.assertEqual(0.25, run_all.busy_share(0))


class AttemptTest(unittest.TestCase):
    """One bench as a program of its own, which does this and that."""

    OPTIONS = argparse.Namespace(build=pathlib.Path("/nowhere"), quick=True, patience=1)
    WRITES = "import sys; open(sys.argv[1], 'w').write('{\"a\": 2}')"

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    @staticmethod
    def bench(code, limit_s=60):
        return plan.Bench("x", limit_s, limit_s, [sys.executable, "-c", code, "JSON"], [], [], ("a",))

    def attempt(self, code, limit_s=60):
        with contextlib.redirect_stdout(io.StringIO()):
            return run_all.attempt(self.bench(code, limit_s), self.OPTIONS, self.folder)

    def test_outcomes(self):
        def writes(text):
            return f"import sys; open(sys.argv[1], 'w').write({text!r})"
        for code, state, why in ((writes('{"a": 1}'), "ok", ""), ("", "failed", "x.json: [Errno 2] No such file"),
                                 (writes("{"), "failed", "Expecting"), (writes('{"b": 1}'), "failed", "no a"),
                                 ("raise SystemExit(3)", "failed", "exit code 3"),
                                 ("print('skipped: no tun'); raise SystemExit(77)", "skipped", "no tun")):
            with self.subTest(code=code):
                found = self.attempt(code)
                self.assertEqual(state, found["state"])
                self.assertIn(why, found["why"])

    def left(self):
        return {path.name: path.read_text() for path in self.folder.iterdir()}

    def test_what_was_there_is_lost_to_new_figures_only(self):
        self.assertEqual("ok", self.attempt(self.WRITES.replace("2", "1"))["state"])
        before = self.left()
        self.attempt("raise SystemExit(77)")
        self.assertEqual(before, self.left())
        self.attempt("import sys; print('why'); open(sys.argv[1], 'w').write('{'); raise SystemExit(1)")
        self.assertEqual({**before, "x.failed.txt": "why\n"}, self.left())
        (self.folder / "x.tsv").write_text("of a kind that it makes no more")
        self.attempt(self.WRITES)
        self.assertEqual({"x.json", "x.txt"}, set(self.left()))
        self.assertEqual({"a": 2}, common.load_json(self.folder / "x.json"))

    def test_an_interrupt_ends_it_at_once_and_leaves_what_was_there(self):
        self.attempt(self.WRITES)
        before = self.left()
        pid_path = self.folder.parent / f"{self.folder.name}.pid"
        self.addCleanup(pid_path.unlink)
        code = f"import os, time; open({str(pid_path)!r}, 'w').write(str(os.getpid())); print('x', flush=True); time.sleep(1000)"

        def interrupted(process, text_path, build):
            process.stdout.readline()
            raise KeyboardInterrupt
        with unittest.mock.patch.object(run_all, "stream", interrupted), self.assertRaises(KeyboardInterrupt):
            self.attempt(code, 500)
        self.assertEqual(before, self.left())
        with self.assertRaises(ProcessLookupError):
            os.kill(int(pid_path.read_text()), 0)

    def test_what_does_not_end_is_ended_with_its_children(self):
        found = self.attempt("import subprocess; subprocess.run(['sleep', '1000'])", 0.5)
        self.assertEqual(("failed", "no end within 0.5 s"), (found["state"], found["why"]))

    def main(self, benches, *words):
        """bench/run's exit code; of a machine where nothing else runs."""
        out = self.folder / "out"
        with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as patches:
            for of, name, value in ((sys, "argv", ["run", "--quick", "--build", "/", "--out", str(out), *words]),
                                    (plan, "BENCHES", benches), (run_all, "busy_share", lambda _: 0),
                                    (run_all.results, "write", lambda *_: "page"), (run_all.signal, "signal", None)):
                patches.enter_context(unittest.mock.patch.object(of, name, value or unittest.mock.Mock()))
            code = run_all.main()
        return code, common.load_json(out / "results/run.json")["benches"]

    def test_what_cannot_run_here_leaves_what_ran_before(self):
        skips = "raise SystemExit(77)"
        self.assertEqual("skipped", self.main([self.bench(skips)])[1]["x"]["state"])
        code, states = self.main([self.bench(self.WRITES)])
        self.assertEqual((0, "ok"), (code, states["x"]["state"]))
        self.assertEqual(states, self.main([self.bench(skips)])[1])
        code, states = self.main([self.bench("raise SystemExit(1)")])
        self.assertEqual((1, "failed"), (code, states["x"]["state"]))

    def test_what_an_interrupt_left_out_stays(self):
        def named(name, code):
            return dataclasses.replace(self.bench(code), name=name)
        _, before = self.main([named("a", self.WRITES), named("b", self.WRITES)])
        with unittest.mock.patch.object(run_all, "attempt", side_effect=KeyboardInterrupt):
            code, states = self.main([named("a", ""), named("b", "")])
        self.assertEqual((130, before), (code, states))


class CostsTest(unittest.TestCase):
    COSTS = {"first_write_us": {"ring": 20.0, "bitmap": 22.0}, "kick_us": 60, "copy_page_us": 0.5,
             "vcpu_items_us": {"regs": 10.0}, "host": "one"}

    def test_the_mean_of_before_and_after(self):
        after = {"first_write_us": {"ring": 30.0, "bitmap": 22.0}, "kick_us": 80, "copy_page_us": 0.5,
                 "vcpu_items_us": {"regs": 20.0}, "host": "one"}
        found = run_all.middle(self.COSTS, after)
        self.assertEqual(found, {"first_write_us": {"ring": 25.0, "bitmap": 22.0}, "kick_us": 70, "copy_page_us": 0.5,
                                 "vcpu_items_us": {"regs": 15.0}, "host": "one"})

    def between(self, measured):
        """What a bench's JSON says of costs, where kvm_costs gives or raises these, one after the other."""
        bench = plan.Bench("x", 60, 60, [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write('{\"a\": 1}')",
                                         "JSON"], [], [], ("a",))
        options = argparse.Namespace(build="/", quick=True, patience=1)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), \
                unittest.mock.patch.object(run_all, "costs", side_effect=measured):
            state = run_all.attempt_between_costs(bench, options, pathlib.Path(folder))
            path = pathlib.Path(folder, "x.json")
            return state["state"], common.load_json(path).get("costs") if path.exists() else None

    def test_beside_a_bench(self):
        later = {**self.COSTS, "kick_us": 80}
        gone = common.ResultError("no KVM")
        self.assertEqual(("ok", {**self.COSTS, "kick_us": 70}), self.between([self.COSTS, later]))
        self.assertEqual(("ok", self.COSTS), self.between([self.COSTS, gone]))
        self.assertEqual(("failed", None), self.between([gone]))

    def test_a_bench_is_held_to_its_own(self):
        row = {"tracking": "ring", "pages_per_epoch": 2, "dirty_pages_mean": 2.0, "epochs_per_s": 5000.0,
               "pause": {"p50_us": 50.0, "p99_us": 60.0}, "ack": {"p50_us": 1.0}, "progress_share": 0.5,
               "bytes_per_epoch": 100}
        of_the_run = {"kvm_costs": {**self.COSTS, "kick_us": 1000}}
        # 1e6 / (2 * 20 + 60 + 10 + 2 * 0.5)
        self.assertIn("| 9009 |", "\n".join(results.rate_section({"rows": [row], "costs": self.COSTS}, of_the_run)))
        # 1e6 / (2 * 20 + 1000 + 10 + 2 * 0.5)
        self.assertIn("| 951 |", "\n".join(results.rate_section({"rows": [row]}, of_the_run)))
        # What the guest did beside its writes is not in the bound: where it did nothing, the page says so.
        for only in (False, True):
            text = "\n".join(results.rate_section({"rows": [row], "only_writes": only}, of_the_run))
            self.assertEqual("nothing but write" in text, only)
        row["unprotected_writes_per_s"] = 250000.0
        self.assertIn("4.000 us of work", "\n".join(results.rate_section({"rows": [row], "costs": self.COSTS}, of_the_run)))


class TablesTest(unittest.TestCase):
    def test_what_misses_its_goal_is_bold(self):
        self.assertEqual("80.0 %", tables.verdict(0.8, 0.8, tables.share))
        self.assertEqual("**79.0 %**", tables.verdict(0.79, 0.8, tables.share))
        self.assertEqual("**0.600 ms**", tables.verdict(0.6, 0.5, lambda v: f"{v:.3f} ms", most=True))
        self.assertEqual("-", tables.verdict(None, 1, tables.share))

    def test_cells_fit_heads(self):
        with self.assertRaises(ValueError):
            tables.table(["a", "b"], [["1"]])

    def test_factors(self):
        self.assertEqual(["15.0x", "1/8.0", "0"], [results_peers.factor(v) for v in (15, 1 / 8, 0)])


def session(rate, pause_ms, over_tcp=None):
    row = {"delay_ms": 1, "checkpoints_per_s": rate, "checkpoints": 100, "pause_p50_ms": pause_ms,
           "pause_p99_ms": pause_ms, "bytes_per_checkpoint": 1000, "cpu_share": 1.0, "writes_per_s": 50}
    result = {"alone_writes_per_s": 100, "modest": dict(row), "fastest": dict(row), "failover_ms": 4.0}
    if over_tcp is not None:
        result["modest"]["tcp"] = {**row, "writes_per_s": over_tcp}
    peers.add_progress(result)
    return result


class PageTest(unittest.TestCase):
    """A page of what is there, and words for what is not."""

    def page(self, states, files):
        with tempfile.TemporaryDirectory() as name:
            out = pathlib.Path(name)
            folder = out / "results"
            folder.mkdir()
            common.write_json(folder / "run.json", {"host": common.host(), "commit": "abc", "qemu": None,
                                                    "quick": False, "benches": states})
            for bench, data in files.items():
                common.write_json(folder / f"{bench}.json", data)
            page = results.write(out, folder).read_text()
            pictures = sorted(path.name for path in folder.glob("*.svg"))
        return page, pictures

    def test_figures_that_are_gone(self):
        page, _ = self.page({"codec": {"state": "ok"}}, {})
        self.assertIn("Not measured in this run: its figures are gone.", page)

    def test_peers(self):
        load = {"pages_per_s": 200, "failed": [{"vmm": "colo", "why": "it hung"}],
                "sessions": [{"colo": session(200, 1.0), "romulus": session(3000, 0.2)},
                             {"romulus": session(3000, 0.2)}]}
        peers.judge(load)
        self.assertEqual(15, load["ratios"]["fastest"]["checkpoints_per_s"]["median"])
        self.assertEqual(1, load["ratios"]["fastest"]["checkpoints_per_s"]["count"])
        page, pictures = self.page({"peers": {"state": "ok"}, "codec": {"state": "failed", "why": "no end"}}, {
            "peers": {"qemu": "7.2", "colos_cpus_divided": False, "memory_mib": 256, "working_set_mib": 64, "cache_mib": 128, "modest_ms": 20,
                      "loads": [load]}})
        self.assertIn("| 200 | checkpoints/s (goal 15.0x) | 200 | 3,000 | 15.0x |", page)
        self.assertIn("**1/5.0**", page)  # of the pause, which was to be 1/8
        self.assertIn("it hung", page)
        self.assertIn("Not measured in this run: no end.", page)
        self.assertEqual(["peers.svg"] if shutil.which("gnuplot") else [], pictures)

    def test_a_goal_is_not_reached_with_less_work(self):
        def ratings(colo_writes, romulus_writes):
            both = {"colo": session(200, 1.0), "romulus": session(3000, 0.2)}
            for vmm, writes in (("colo", colo_writes), ("romulus", romulus_writes)):
                both[vmm]["fastest"]["writes_per_s"] = writes
            load = {"pages_per_s": 0, "failed": [], "sessions": [both]}
            peers.judge(load)
            return tuple(results_peers.rated(load, "fastest", measure)
                         for measure in ("checkpoints_per_s", "pause_p50_ms", "bytes_per_checkpoint"))
        missed = ("**1/5.0**", "**1.0x**")
        self.assertEqual(("15.0x", *missed), ratings(50, 50))
        self.assertEqual(("15.0x", *missed), ratings(50, 46))
        self.assertEqual(("15.0x", *missed), ratings(30, 50), "of more work")
        self.assertEqual(("15.0x, of less work", *missed), ratings(50, 30), "what is missed stays so")

    def test_bytes_are_held_to_the_work_of_the_session_where_they_were_counted(self):
        def rated(over_tcp):
            load = {"pages_per_s": 0, "failed": [],
                    "sessions": [{"colo": session(200, 1.0, over_tcp), "romulus": session(200, 1.0)}]}
            for each in load["sessions"]:
                each["romulus"]["modest"]["bytes_per_checkpoint"] = 100
            peers.judge(load)
            return load, results_peers.rated(load, "modest", "bytes_per_checkpoint")
        load, text = rated(over_tcp=5)
        self.assertEqual("1/10.0", text)
        self.assertEqual((40_000, 4_000), tuple(load["medians"]["colo"][mode]["bytes_per_write"]["median"]
                                                for mode in ("modest", "fastest")))
        self.assertEqual("1/10.0, of less work", rated(over_tcp=100)[1])

    def test_who_is_behind_in_a_migration(self):
        def row(qemu, romulus):
            return "\n".join(results_peers.migration_section(
                {"fill_mib": 1, "first_copy": {"qemu": {"mib_per_s": qemu}, "romulus": {"mib_per_s": romulus}},
                 "redirtied": {"qemu": {"bytes_per_page": 30.0}, "romulus": {"bytes_per_page": 27.0}}}, {}))
        self.assertIn("| 100 MiB/s | **90 MiB/s** |", row(100, 90))
        self.assertIn("| 100 MiB/s | 110 MiB/s |", row(100, 110))
        self.assertIn("| 30.0 bytes | 27.0 bytes |", row(100, 90))

    def test_two_vcpus(self):
        def rows(count, *pauses):
            return [{"pause": {"p50_us": each, "p99_us": 4 * each}, "epochs_per_s": 1000, "progress_share": 0.1 * count}
                    for each in pauses]
        line, = two_vcpus.lines({("ring", 10): {1: rows(1, 50, 100, 60), 2: rows(2, 150, 200, 120)}})
        self.assertEqual((2.0, 2.0, 3.0), tuple(line["pause_ratio"][of] for of in ("median", "low", "high")))
        page = "\n".join(results.two_vcpus_section({"lines": [line]}, {}))
        self.assertIn("| **4.00x** | 2.00x (2.00x to 3.00x) |", page)

    def test_goals_are_those_of_the_chosen_encoder(self):
        def section(**cached):
            rows = [{"corpus": "a", "encoder": name, "pairs": "5", "bytes_per_page": size, "gb_per_s": speed,
                     "cached_gb_per_s": cached[name]}
                    for name, size, speed in (("portable", 130.0, 3.0), ("avx2", 130.0, 4.0), ("xbzrle", 100.0, 1.0))]
            return "\n".join(results.page_codec_section({"rows": rows}, {}))
        page = section(portable=3.3, avx2=4.5, xbzrle=1.0)
        self.assertIn("| 1.30x | 3.00 | 3.00x | 3.30 | 3.30x |", page)
        self.assertIn("| **1.30x** | 4.00 | **4.00x** | 4.50 | **4.50x** |", page)
        # Of memory and cache one is enough.
        page = section(portable=3.3, avx2=5.5, xbzrle=1.0)
        self.assertIn("| **1.30x** | 4.00 | 4.00x | 5.50 | 5.50x |", page)

    def test_how_pages_of_linux_came_about_is_said_where_there_are_any(self):
        def page(corpus):
            rows = [{"corpus": corpus, "encoder": name, "pairs": "5", "zero_before": "2", "bytes_per_page": 9.0,
                     "gb_per_s": 3.0, "cached_gb_per_s": 3.0} for name in ("portable", "xbzrle")]
            return results.page_codec_section({"rows": rows}, {})
        self.assertIn(results.LINUX_PAGES, page("linux boot"))
        self.assertIn("| linux boot | portable | 5 | 2 | 9.0 |", "\n".join(page("linux boot")))
        self.assertNotIn(results.LINUX_PAGES, page("uniform"))

    def test_a_plot_is_shown_if_it_was_drawn(self):
        rows = [{"pages_per_epoch": "10", "interval_us": "2000", "epochs_per_s": 500.0, "dirty_pages_mean": 9.0,
                 "progress_share": share, "tracking": "ring", "pause": {"p50_us": 50.0}, "bytes_per_epoch": 400.0} for share in (0.9, 0.8)]
        states = {"progress": {"state": "ok"}}
        page, pictures = self.page(states, {"progress": {"rows": rows}})
        self.assertEqual(pictures, ["progress.svg"] if "(results/progress.svg)" in page else [])

    def test_results_of_another_form(self):
        with self.assertRaises(common.ResultError):
            self.page({"codec": {"state": "ok"}}, {"codec": {}})

    def test_each_bench_has_a_section(self):
        self.assertEqual({bench.name for bench in plan.BENCHES}, {name for name, _, _ in results.SECTIONS})

    def test_blocks_of_a_plot(self):
        rows = [{"pages_per_epoch": "10", "epochs_per_s": 5, "progress_share": 0.5}]
        self.assertEqual([("10 pages", [(5, 50.0)])], plots.progress_blocks({"rows": rows}))


if __name__ == "__main__":
    unittest.main()
