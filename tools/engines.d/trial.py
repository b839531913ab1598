#!/usr/bin/env python3
"""Tries tools/engines on a set of its own: what is written survives kill -9 on the same ports; leftovers disturb nothing."""

import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
import cassandra
import kafka
import s3
from instance import free

COMMAND = Path(__file__).resolve().parent.parent / "engines"
CREATE = ["CREATE KEYSPACE trial WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"]
CREATE += ["CREATE TABLE trial.stones (id int PRIMARY KEY, name text)", "INSERT INTO trial.stones (id, name) VALUES (1, 'granite')"]


class Engines(unittest.TestCase):
    def setUp(self):
        self.room = tempfile.TemporaryDirectory()
        self.addCleanup(self.room.cleanup)
        self.folder = Path(self.room.name).resolve() / "set"
        self.addCleanup(self.tool, "wipe")

    def tool(self, *words, ok=True):
        done = subprocess.run(
            [COMMAND, *words], env={**os.environ, "CAIRN_ENGINES_DIR": str(self.folder)}, text=True, capture_output=True
        )
        self.assertEqual(done.returncode == 0, ok, f"tools/engines {' '.join(words)}\n{done.stdout}{done.stderr}")

    def one(self, engine):
        return engine.instances(self.folder, None)[0]

    def endpoints(self):
        return (self.folder / "endpoints.env").read_text()

    def test_what_is_written_survives_kill(self):
        self.tool("status", ok=False)
        # Left by something that died before it had settings.
        (self.folder / "s3/data").mkdir(parents=True)
        (self.folder / "s3/data/junk").write_text("junk")
        self.tool("start")
        endpoints = self.endpoints()
        self.assertEqual(len(endpoints.splitlines()), 5, endpoints)
        for statement in CREATE:
            query(self.one(cassandra), statement)
        self.assertEqual(s3.request(self.one(s3), "PUT", "/trial", b"")[0], 200)
        self.assertEqual(s3.request(self.one(s3), "PUT", "/trial/stone", b"granite")[0], 200)
        create_topic(self.one(kafka), b"trial")

        before = {self.one(engine).pid() for engine in (kafka, cassandra, s3)}
        self.tool("kill")
        self.tool("status", ok=False)
        self.assertEqual({self.one(engine).pid() for engine in (kafka, cassandra, s3)}, {None})
        self.assertTrue(all(free(self.one(engine).settings["client"]) for engine in (kafka, cassandra, s3)))
        self.tool("start")
        self.assertEqual(self.endpoints(), endpoints)
        after = {self.one(engine).pid() for engine in (kafka, cassandra, s3)}
        self.assertFalse(before & after)
        self.assertIn(b"granite", query(self.one(cassandra), "SELECT name FROM trial.stones"))
        self.assertEqual(s3.request(self.one(s3), "GET", "/trial/stone", b""), (200, b"granite"))
        self.assertIn(b"trial", all_topics(self.one(kafka)))

        self.tool("start")
        self.assertEqual({self.one(engine).pid() for engine in (kafka, cassandra, s3)}, after)
        self.tool("pause", "cassandra")
        self.tool("status", "cassandra", ok=False)
        self.tool("status", "kafka", "s3")
        self.tool("resume", "cassandra")
        self.tool("status")
        self.tool("wipe")
        self.assertEqual([left.name for left in self.folder.iterdir() if left.suffix != ".lock"], [])
        self.assertFalse(any(self.one(engine).pid() for engine in (kafka, cassandra, s3)))

    def test_one_of_three_brokers(self):
        self.tool("start", "kafka", "--brokers", "3")
        create_topic(self.one(kafka), b"trial", replicas=3)
        self.tool("start", "kafka", "--brokers", "2", ok=False)
        self.tool("kill", "kafka-1")
        self.tool("kill", "kafka-1", ok=False)
        self.tool("status", "kafka-2", "kafka-3")
        self.tool("start", "kafka-1")
        self.assertIn(b"trial", all_topics(self.one(kafka)))
        self.tool("stop", "kafka")
        self.tool("start", "kafka")
        self.assertIn(b"trial", all_topics(self.one(kafka)))

    def test_unknown_names(self):
        self.tool("start", "postgres", ok=False)
        self.tool("pause", "kafka", ok=False)


def query(instance, statement):
    """The result of a statement at consistency ONE."""
    body = struct.pack(">i", len(statement)) + statement.encode() + struct.pack(">hB", 1, 0)
    _, answer = cassandra.ask(instance, cassandra.startup(), (7, body))
    if answer[4] != 8:
        raise AssertionError(f"{statement}: {answer!r}")
    return answer


def create_topic(instance, name, replicas=1):
    topic = struct.pack(">h", len(name)) + name + struct.pack(">ihiiiB", 1, replicas, 0, 0, 20_000, 0)
    answer = kafka.ask(instance, 19, 2, struct.pack(">i", 1) + topic)
    error = struct.unpack_from(">h", answer, 14 + len(name))[0]
    if error:
        raise AssertionError(f"the topic was not created: error {error}")


def all_topics(instance):
    return kafka.ask(instance, 3, 1, struct.pack(">i", -1))


if __name__ == "__main__":
    unittest.main(verbosity=2)
