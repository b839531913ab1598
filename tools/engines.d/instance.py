"""One broker or node: a folder with its settings, configuration, data and log, and at most one process.

No process id is written down. A process belongs to the instance whose folder its environment names, and it is signalled
through a descriptor of that very process: a stale folder can't mislead, and no other process can be hit."""

import json
import os
import random
import select
import shutil
import signal
import socket
import string
import subprocess
import time
from pathlib import Path

from packages import HERE, Failure

MARK = "CAIRN_ENGINE_INSTANCE"
START_SECONDS = 180
STOP_SECONDS = 10
# Below what the system hands out to clients and listeners of port 0, so that a stopped engine's port stays free;
# SeaweedFS takes each port + 10000 too.
PORTS = range(12000, 22000)


class Instance:
    def __init__(self, home, engine):
        self.home = Path(home)
        self.name = self.home.name
        self.engine = engine
        self.settings = {}
        self.child = None
        if (self.home / "settings.json").exists():
            self.settings = json.loads((self.home / "settings.json").read_text())

    @property
    def client(self):
        return f"127.0.0.1:{self.settings['client']}"

    def prepare(self, shared, may_move):
        """Settings for a new instance; new ports for one that was stopped, if others took its own meanwhile."""
        ports = {name: self.settings.get(name) for name in self.engine.PORTS}
        if all(ports.values()):
            taken = [port for port in ports.values() if not free(port)]
            if not taken:
                return
            if not may_move:
                raise Failure(f"{self.name}: port {taken[0]} is taken by another program")
        elif self.home.exists():
            shutil.rmtree(self.home)
        fresh = iter(random.sample(PORTS, len(PORTS)))
        ports = {name: next(port for port in fresh if held(port) and free(port + 10000)) for name in ports}
        self.settings = {**shared, **self.settings, **ports}
        self.home.mkdir(parents=True, exist_ok=True)
        self.write("settings.json", json.dumps(self.settings, indent=2))

    def write(self, name, text):
        """Whole or not at all, whenever this process ends."""
        fresh = self.home / (name + ".new")
        fresh.write_text(text)
        fresh.rename(self.home / name)

    def configure(self, *names, **values):
        """Writes the engine's configuration files with this instance's values."""
        values = {**self.settings, "data": self.home / "data", **values}
        for name in names:
            template = string.Template((HERE / self.engine.NAME / name).read_text())
            self.write(name, template.substitute(values))

    def processes(self):
        """Descriptors of the instance's processes, and their ids: one, or none."""
        wanted = f"{MARK}={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                descriptor = os.pidfd_open(int(entry.name))
            except OSError:
                continue
            try:
                ours = wanted in (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                ours = False
            if ours:
                found.append((descriptor, int(entry.name)))
            else:
                os.close(descriptor)
        return found

    def pid(self):
        found = self.processes()
        for descriptor, _ in found:
            os.close(descriptor)
        return found[0][1] if found else None

    def signal(self, *signals, wait=0):
        """Sends the signals to the instance's process; after `wait` seconds, if any, SIGKILL. True if there was one."""
        found = self.processes()
        for descriptor, _ in found:
            try:
                for each in signals:
                    signal.pidfd_send_signal(descriptor, each)
                if wait and not ended(descriptor, wait):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    ended(descriptor, STOP_SECONDS)
            except ProcessLookupError:
                pass
            os.close(descriptor)
        return bool(found)

    def launch(self, command):
        with open(self.home / "log", "ab") as log:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.home,
                env={**os.environ, MARK: str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def lives(self):
        """A child that was just launched has no environment to read yet: it is asked for itself."""
        return self.child.poll() is None if self.child else bool(self.pid())

    def answers(self):
        """Why it doesn't, or None."""
        try:
            return self.engine.probe(self)
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__

    def wait(self):
        limit = time.monotonic() + START_SECONDS
        while why := self.answers():
            if time.monotonic() > limit:
                raise Failure(f"{self.name} does not answer after {START_SECONDS} s: {why}\n{self.last_words()}")
            if not self.lives():
                raise Failure(f"{self.name} ended:\n{self.last_words()}")
            time.sleep(0.1)

    def last_words(self):
        return "\n".join((self.home / "log").read_text(errors="replace").splitlines()[-25:])


def ended(descriptor, seconds):
    return bool(select.select([descriptor], [], [], seconds)[0])


def free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# What this process has chosen, bound and not listened on: other sets that start now take other ports, and an engine, which
# may reuse an address as servers do, listens there nevertheless.
HELD = []


def held(port):
    """Whether it is free and now held for this process."""
    hold = socket.socket()
    try:
        hold.bind(("127.0.0.1", port))
    except OSError:
        hold.close()
        return False
    hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    HELD.append(hold)
    return True


def exchange(port, requests, head):
    """Sends requests over one connection, each after the answer to the one before, and gives the answers. Their length:
    `head` is the size of an answer's beginning, and what tells from it how much follows."""
    size, length = head
    answers = []
    with socket.create_connection(("127.0.0.1", port), timeout=5) as peer, peer.makefile("rb") as incoming:
        for request in requests:
            peer.sendall(request)
            first = incoming.read(size)
            if len(first) < size:
                raise ValueError("it closed the connection")
            answers.append(first + incoming.read(length(first)))
    return answers
