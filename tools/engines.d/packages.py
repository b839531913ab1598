"""Fetches what the engines are made of: pinned versions, each file checked against the digests beside this file.

Kept in a cache that all clones share; a folder there is whole or absent."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("CAIRN_ENGINES_CACHE") or Path.home() / ".cache/cairn-engines").resolve()
FETCH_SECONDS = 600


class Failure(Exception):
    """What a person should read; no trace of the stack helps."""


@contextlib.contextmanager
def locked(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(*command, cwd=None):
    try:
        done = subprocess.run(
            command, cwd=cwd, timeout=FETCH_SECONDS, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except FileNotFoundError:
        raise Failure(f"{command[0]} is missing: run tools/install-deps test") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"{command[0]} did not end within {FETCH_SECONDS} s") from None
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}")


def kept(list_of_digests, fetch):
    """The cache's folder for what `list_of_digests` names, filled by `fetch(folder)` if it is not there."""
    name = list_of_digests.parent.name + "-" + hashlib.sha256(list_of_digests.read_bytes()).hexdigest()[:12]
    folder = CACHE / name
    with locked(CACHE / f"{name}.lock"):
        if folder.exists():
            return folder
        print(f"fetching {list_of_digests.parent.name}", flush=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=name + ".") as room:
            for last in (False, True):
                fresh = Path(room) / "last" if last else Path(room) / "first"
                fresh.mkdir()
                try:
                    fetch(fresh)
                    break
                except Failure as failure:
                    if last:
                        raise
                    print(f"{failure}\ntrying once more", file=sys.stderr)
            fresh.rename(folder)
    return folder


def jars(engine):
    """The folder with an engine's jars, as its pom.xml names them."""
    digests = HERE / engine / "jars.sha256"

    def fetch(folder):
        shutil.copy(HERE / engine / "pom.xml", folder)
        goal = "dependency:copy-dependencies"
        run("mvn", "-B", "-q", goal, f"-DoutputDirectory={folder}/lib", "-DincludeScope=runtime", cwd=folder)
        wanted = {name: digest for digest, name in map(str.split, digests.read_text().splitlines())}
        found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in (folder / "lib").iterdir()}
        odd = sorted(name for name, _ in wanted.items() ^ found.items())
        if odd:
            raise Failure(f"not what {digests.name} of {engine} says: {', '.join(dict.fromkeys(odd))}")

    return kept(digests, fetch) / "lib"


def wheel(engine, program):
    """A program that comes in a wheel, which pip checks against the digest in requirements.txt."""
    requirements = HERE / engine / "requirements.txt"

    def fetch(folder):
        run(sys.executable, "-m", "venv", folder / "venv")
        pip = [folder / "venv/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run(*pip, "--require-hashes", "--only-binary=:all:", "-r", requirements)

    return kept(requirements, fetch) / "venv/bin" / program


def jit():
    """The quick compiler alone, for engines that live as long as a test; CAIRN_ENGINES_JIT=full also has the one that takes
    its time, for those that are measured."""
    return [] if os.environ.get("CAIRN_ENGINES_JIT") == "full" else ["-XX:TieredStopAtLevel=1"]


def java():
    """Java 17, which is what Cassandra 5.0 asks for; else 21, the last one that still has what it needs of the old
    security manager; else whatever there is."""
    installed = [sorted(Path("/usr/lib/jvm").glob(f"java-{version}-*/bin/java")) for version in (17, 21)]
    found = next((each[0] for each in installed if each), shutil.which("java"))
    if not found:
        raise Failure("java is missing: run tools/install-deps test")
    return str(found)
