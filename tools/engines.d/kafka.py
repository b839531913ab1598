"""Apache Kafka in KRaft mode: each process is broker and controller."""

import base64
import struct
import subprocess
import uuid

from instance import Instance, exchange
from packages import HERE, Failure, jars, java, jit

NAME = "kafka"
PORTS = ("client", "controller")


def install():
    jars(NAME)


def instances(folder, brokers):
    """All that the folder has, or as many new ones as are asked for."""
    there = sorted(folder.glob("kafka-[1-9]"))
    if brokers and there and len(there) != brokers:
        raise Failure(f"{folder} has {len(there)} brokers: run tools/engines wipe kafka first")
    homes = there or [folder / f"kafka-{node + 1}" for node in range(brokers or 1)]
    return [Instance(home, __import__(__name__)) for home in homes]


def shared():
    return {"cluster": base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")}


def command(instance, all_instances):
    count = len(all_instances)
    instance.configure(
        "server.properties",
        node=node(instance),
        voters=",".join(f"{node(each)}@127.0.0.1:{each.settings['controller']}" for each in all_instances),
        replicas=count,
        in_sync=count // 2 + 1,
    )
    program = [java(), *jit(), f"@{HERE}/kafka/jvm.options", "-cp", f"{jars(NAME)}/*"]
    properties = instance.home / "server.properties"
    if not (instance.home / "data/meta.properties").exists():
        tool = [*program, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        done = subprocess.run([*tool, "-t", instance.settings["cluster"], "-c", properties], capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"{instance.name} can't be formatted:\n{done.stdout}{done.stderr}")
    return [*program, "kafka.Kafka", properties]


def node(instance):
    return int(instance.name.rpartition("-")[2])


def probe(instance):
    """Asks for metadata (version 1, of no topic): the broker must be among those that the cluster counts as alive."""
    answer = ask(instance, 3, 1, struct.pack(">i", 0))
    count, at, alive = *struct.unpack_from(">i", answer, 4), 8, set()
    for _ in range(count):
        broker, host = struct.unpack_from(">ih", answer, at)
        rack = struct.unpack_from(">h", answer, at + 10 + host)[0]
        at += 12 + host + max(rack, 0)
        alive.add(broker)
    return None if node(instance) in alive else "its session is not open yet"


def ask(instance, api, version, body):
    """One request of Kafka's protocol, with the first version of its header; the answer without its length."""
    request = struct.pack(">hhih", api, version, 1, -1) + body
    head = (4, lambda head: struct.unpack(">i", head)[0])
    [answer] = exchange(instance.settings["client"], [struct.pack(">i", len(request)) + request], head)
    return answer[4:]


def endpoints(all_instances):
    return {"CAIRN_TEST_KAFKA": ",".join(each.client for each in all_instances)}
