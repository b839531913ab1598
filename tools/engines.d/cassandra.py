"""Apache Cassandra, one node."""

import struct

from instance import Instance, exchange
from packages import HERE, jars, java, jit

NAME = "cassandra"
PORTS = ("client", "storage", "jmx")


def install():
    jars(NAME)


def instances(folder, _brokers):
    return [Instance(folder / "cassandra", __import__(__name__))]


def shared():
    return {}


def command(instance, _all):
    instance.configure("cassandra.yaml", "logback.xml")
    return [
        java(),
        *jit(),
        f"@{HERE}/cassandra/jvm.options",
        f"-Dcassandra.config=file://{instance.home}/cassandra.yaml",
        f"-Dcassandra.storagedir={instance.home}/data",
        f"-Dcassandra.jmx.local.port={instance.settings['jmx']}",
        "-cp",
        f"{instance.home}:{jars(NAME)}/*",
        "org.apache.cassandra.service.CassandraDaemon",
    ]


OPTIONS, SUPPORTED, STARTUP, READY = 0x05, 0x06, 0x01, 0x02


def probe(instance):
    """OPTIONS must be answered by SUPPORTED, STARTUP by READY."""
    got = [answer[4] for answer in ask(instance, (OPTIONS, b""), startup())]
    return None if got == [SUPPORTED, READY] else f"it answered with opcodes {got}"


def ask(instance, *requests):
    """Opcodes and bodies of native protocol 4, over one connection; the answers, each with its head of nine bytes."""
    frames = [struct.pack(">BBhBi", 4, 0, 0, opcode, len(body)) + body for opcode, body in requests]
    return exchange(instance.settings["client"], frames, (9, lambda head: struct.unpack_from(">i", head, 5)[0]))


def startup():
    words = (b"CQL_VERSION", b"3.0.0")
    return STARTUP, struct.pack(">h", 1) + b"".join(struct.pack(">h", len(word)) + word for word in words)


def endpoints(all_instances):
    return {"CAIRN_TEST_CQL": all_instances[0].client}
