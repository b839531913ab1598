"""Apache Cassandra, one node."""

import struct

from instance import Instance, exchange
from packages import HERE, jars, java

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
        f"@{HERE}/cassandra/jvm.options",
        f"-Dcassandra.config=file://{instance.home}/cassandra.yaml",
        f"-Dcassandra.storagedir={instance.home}/data",
        f"-Dcassandra.jmx.local.port={instance.settings['jmx']}",
        "-cp",
        f"{instance.home}:{jars(NAME)}/*",
        "org.apache.cassandra.service.CassandraDaemon",
    ]


def probe(instance):
    """Native protocol 4: OPTIONS is answered by SUPPORTED, STARTUP by READY."""
    startup = b"".join([struct.pack(">h", 1), text("CQL_VERSION"), text("3.0.0")])
    for asked, body, wanted in ((0x05, b"", 0x06), (0x01, startup, 0x02)):
        frame = struct.pack(">BBhBi", 4, 0, 0, asked, len(body)) + body
        head = (9, lambda head: struct.unpack_from(">i", head, 5)[0])
        got = exchange(instance.settings["client"], frame, head)[4]
        if got != wanted:
            return f"it answered opcode {got:#x} to {asked:#x}"
    return None


def text(word):
    return struct.pack(">h", len(word)) + word.encode()


def endpoints(all_instances):
    return {"CAIRN_TEST_CQL": all_instances[0].client}
