"""The parts of benches/lab that compute: run by tests/house/benches.rs with `python3 tests/python/lab.py`."""

import hashlib
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "benches"))
sys.dont_write_bytecode = True

from lab import clients, materials, processes, report  # noqa: E402

WRK = """Running 1s test @ https://127.0.0.1:1/deals/7
  1 threads and 64 connections
  26339 requests in 1.01s, 3.72MB read
{}Requests/sec:  26077.22
"""
H2LOAD = """requests: {0} total, {0} started, {0} done, {1} succeeded, 0 failed, {2} errored, {3} timeout
status codes: {1} 2xx, 0 3xx, {4} 4xx, {5} 5xx
"""


class Figures(unittest.TestCase):
    def test_the_median_and_the_best_leave_out_failed_rounds(self):
        self.assertEqual(report.median([3.0, None, 1.0, 8.0]), 3.0)
        self.assertEqual(report.median([1.0, 2.0]), 1.5)
        self.assertEqual(report.best([3.0, None, 1.0, 8.0]), 1.0)
        for values in ([], [None]):
            self.assertIsNone(report.median(values))
            self.assertIsNone(report.best(values))

    def test_a_ratio_is_taken_within_each_round(self):
        # The ratio of the medians is 0.5: the clock halved between the rounds.
        self.assertEqual(report.ratio([10.0, 5.0, 4.0], [10.0, 10.0, 4.0]), 1.0)
        self.assertEqual(report.ratio([10.0, None, 4.0], [5.0, 1.0, 2.0]), 2.0)
        for values, to in (([], []), ([1.0], [None]), ([1.0], [0.0])):
            self.assertIsNone(report.ratio(values, to))

    def test_the_best_peer_is_chosen_in_each_round(self):
        figures = {"gate": [1.0, 1.0, 1.0], "a": [5.0, 9.0, None], "b": [7.0, 8.0]}
        self.assertEqual(report.best_of_each_round(figures, ["a", "b", "never measured"]), [5.0, 8.0, None])

    def test_figures_have_one_decimal_below_a_hundred(self):
        for value, text in ((None, ""), (4.04, "4.0"), (99.94, "99.9"), (100.0, "100"), (254.6, "255")):
            self.assertEqual(report.figure(value), text)
        self.assertEqual(report.cell([20.0, 18.0, 19.0]), "19.0 (18.0)")
        self.assertEqual(report.cell([20.0]), "20.0")


class Tables(unittest.TestCase):
    def rows(self):
        figures = {"w": {"old": [20.0, 40.0], "new": [10.0, 30.0], "peer": [20.0, 20.0]}, "bad": {"old": [9.0], "new": [3.0]}}
        states = {"old": "", "new": "", "peer": "", "h2o": "missing"}
        return report.table({"w": "A workload", "bad": "Bad"}, figures, states, ["old", "new"], {("bad", "peer"): "checks nothing"})

    def test_every_target_has_a_column_and_a_missing_one_says_so(self):
        self.assertEqual(self.rows(), [
            ["", "old", "new", "peer", "h2o", "old / best peer", "new / best peer", "new / old"],
            ["A workload", "30.0 (20.0)", "20.0 (10.0)", "20.0 (20.0)", "missing", "1.50", "1.00", "0.62"],
            ["Bad", "9.0", "3.0", "checks nothing", "missing", "", "", "0.33"],
        ])

    def test_without_peers_there_is_no_column_for_the_best_of_them(self):
        rows = report.table({"w": "A workload"}, {"w": {"gate": [1.0]}}, {"gate": ""}, ["gate"], {})
        self.assertEqual(rows, [["", "gate"], ["A workload", "1.0"]])

    def test_tables_are_rendered_as_text_and_markdown(self):
        rows = [["", "a"], ["long name", "12.0"]]
        self.assertEqual(report.as_text(rows), "              a\nlong name  12.0")
        self.assertEqual(report.as_markdown(rows), "|  | a |\n|---|---:|\n| long name | 12.0 |")


class Load(unittest.TestCase):
    def test_what_wrk_says_is_read(self):
        self.assertEqual(report.requests_of_wrk(WRK.format("")), (26339, 0))
        self.assertEqual(report.requests_of_wrk(WRK.format("  Non-2xx or 3xx responses: 17\n")), (26339, 17))
        for said in ("", WRK.format("  Socket errors: connect 0, read 3, write 0, timeout 0\n")):
            self.assertRaises(ValueError, report.requests_of_wrk, said)

    def test_what_h2load_says_is_read(self):
        self.assertEqual(report.requests_of_h2load(H2LOAD.format(7, 7, 0, 0, 0, 0)), (7, 0))
        self.assertEqual(report.requests_of_h2load(H2LOAD.format(9, 4, 0, 0, 3, 2)), (9, 5))
        for said in ("", H2LOAD.format(7, 6, 1, 0, 0, 0), H2LOAD.format(7, 6, 0, 1, 0, 0)):
            self.assertRaises(ValueError, report.requests_of_h2load, said)

    def test_lengths_are_coded_as_hpack_has_them(self):
        for value, coded in ((0, b"\x00"), (126, b"\x7e"), (127, b"\x7f\x00"), (254, b"\x7f\x7f"), (255, b"\x7f\x80\x01")):
            self.assertEqual(clients.hpack_length(value), coded)


class Tokens(unittest.TestCase):
    def is_signed_by(self, signer, message, signature):
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        digest, inverse = int.from_bytes(hashlib.sha256(message).digest(), "big"), pow(s, -1, materials.N)
        left = materials.multiply(digest * inverse % materials.N, materials.G)
        right = materials.multiply(r * inverse % materials.N, signer.public)
        return materials.add(left, right)[0] % materials.N == r

    def test_signatures_are_good_and_differ(self):
        signer, other = materials.Es256(), materials.Es256()
        found = [signer.sign(message) for message in (b"a", b"b", b"b")]
        self.assertEqual(len({signature[:32] for signature in found}), 3)
        for message, signature in zip((b"a", b"b", b"b"), found):
            self.assertTrue(self.is_signed_by(signer, message, signature))
        self.assertFalse(self.is_signed_by(signer, b"a", found[1]))
        self.assertFalse(self.is_signed_by(other, b"a", found[0]))

    def test_points_are_added_as_the_curve_has_it(self):
        self.assertIsNone(materials.multiply(materials.N, materials.G))
        double = materials.multiply(2, materials.G)
        self.assertEqual(materials.add(double, materials.G), materials.multiply(3, materials.G))
        self.assertEqual((double[1] ** 2 - double[0] ** 3 + 3 * double[0]) % materials.P,
                         (materials.G[1] ** 2 - materials.G[0] ** 3 + 3 * materials.G[0]) % materials.P)


class Children(unittest.TestCase):
    def test_a_process_that_ends_shows_its_last_lines_and_nothing_is_left(self):
        with tempfile.TemporaryDirectory() as name, processes.Processes(pathlib.Path(name)) as started:
            with self.assertRaises(processes.TargetFailed) as failed:
                started.start("a proxy", ["sh", "-c", "echo no such key; exit 3"], 0, processes.free_port())
            self.assertEqual(str(failed.exception), "a proxy: ended with 3\n    no such key")
            listen = "import socket,sys,time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
            port = processes.free_port()
            running = started.start("another", [sys.executable, "-c", listen, str(port)], 0, port)
            self.assertGreater(sum(processes.cpu_seconds(running.pid)), 0)
            self.assertGreater(processes.anonymous_kib(running.pid), 0)
        self.assertFalse(running.is_alive())
        self.assertEqual(started.running, [])


if __name__ == "__main__":
    unittest.main()
