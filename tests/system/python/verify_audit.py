#!/usr/bin/env python3
"""Verifies proofs and checkpoints of `cairn audit` with nothing but the standard library, from their description in
CONFORMANCE.md: SHA-256 (FIPS 180-4), Ed25519 (RFC 8032), Merkle proofs (RFC 9162), signed notes (C2SP).

    verify_audit.py PUBLIC_KEY.pem FILE...

Prints what each file shows, as one JSON object a line. Exit status 1 when one does not hold.
"""
import base64
import hashlib
import json
import struct
import sys

# --- Ed25519, RFC 8032 section 6, verification alone ---
P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def add(a, b):
    A, B = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    C, E = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = B - A, E - C, E + C, B + A
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def recover_x(y, sign):
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if x2 == 0:
        return None if sign else 0
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P:
        return None
    return P - x if (x & 1) != sign else x


def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = recover_x(BASE_Y, 0)
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


def is_signed(public, message, signature):
    if len(public) != 32 or len(signature) != 64:
        return False
    a, r, s = point(public), point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= Q:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % Q
    left, right = times(s, BASE), add(r, times(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# --- Merkle trees ---
def leaf_hash(data):
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def root_by_inclusion(leaf, index, size, path):
    """The root that a path leads to, from the shape of the tree: None if it has another length."""
    if index >= size:
        return None
    if size == 1:
        return leaf if not path else None
    if not path:
        return None
    middle = 1 << ((size - 1).bit_length() - 1)
    if index < middle:
        below = root_by_inclusion(leaf, index, middle, path[:-1])
        return None if below is None else node_hash(below, path[-1])
    below = root_by_inclusion(leaf, index - middle, size - middle, path[:-1])
    return None if below is None else node_hash(path[-1], below)


def roots_by_consistency(old, new, path, old_root, is_whole=True):
    """Both roots that a proof leads to, as SUBPROOF of RFC 9162 section 2.1.4.1 is read backwards."""
    if old == new:
        if is_whole:
            return (old_root, old_root) if not path else None
        return (path[0], path[0]) if len(path) == 1 else None
    if not path:
        return None
    middle = 1 << ((new - 1).bit_length() - 1)
    if old <= middle:
        below = roots_by_consistency(old, middle, path[:-1], old_root, is_whole)
        return None if below is None else (below[0], node_hash(below[1], path[-1]))
    below = roots_by_consistency(old - middle, new - middle, path[:-1], old_root, False)
    return None if below is None else (node_hash(path[-1], below[0]), node_hash(path[-1], below[1]))


# --- Documents ---
class Wrong(Exception):
    pass


def require(condition, what):
    if not condition:
        raise Wrong(what)


def unbase64(text):
    return base64.b64decode(text, validate=True)


def public_key(path):
    lines = open(path).read().strip().splitlines()
    require(lines[0] == "-----BEGIN PUBLIC KEY-----", "no public key")
    der = unbase64("".join(lines[1:-1]))
    require(der[:12] == bytes.fromhex("302a300506032b6570032100") and len(der) == 44, "no Ed25519 public key")
    return der[12:]


def checkpoint(text, key):
    body, _, signatures = text.rpartition("\n\n")
    body += "\n"
    fields = {"tree": {}, "break": [], "later-life": []}
    lines = body.split("\n")
    require(lines[0] == "cairn checkpoint 1" and lines[-1] == "", "no checkpoint")
    for line in lines[1:-1]:
        name, _, value = line.partition(" ")
        if name == "tree":
            partition, size, root = value.split(" ")
            fields["tree"][int(partition)] = (int(size), bytes.fromhex(root))
        elif name in ("break", "later-life"):
            fields[name].append(value)
        else:
            require(name not in fields, "a line twice")
            fields[name] = value
    require(sorted(fields["tree"]) == list(range(int(fields["partitions"]))), "a tree is missing")
    key_id = hashlib.sha256(fields["site"].encode() + b"\n\x01" + key).digest()[:4]
    for line in signatures.rstrip("\n").split("\n"):
        dash, name, what = line.split(" ")
        signature = unbase64(what)
        if dash == "\u2014" and name == fields["site"] and signature[:4] == key_id:
            require(is_signed(key, body.encode(), signature[4:]), "the signature does not hold")
            return fields
    raise Wrong("not signed by this key")


def leaf(data):
    title = b"cairn leaf 1\n"
    require(data.startswith(title), "no leaf")
    at = len(title)

    def take(count):
        nonlocal at
        require(at + count <= len(data), "a short leaf")
        at += count
        return data[at - count : at]

    def text():
        return take(struct.unpack(">I", take(4))[0]).decode()

    site = text()
    partition, offset, appended_at_ms, count = struct.unpack(">HQQH", take(20))
    headers = {}
    for _ in range(count):
        name = text()
        headers[name] = text()
    length, payload_hash = struct.unpack(">Q", take(8))[0], take(32)
    require(at == len(data), "a long leaf")
    return site, partition, offset, appended_at_ms, headers, length, payload_hash


def event_proof(lines, key):
    fields, path = {}, []
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "hash":
            path.append(bytes.fromhex(value))
        else:
            fields[name] = value
    signed = checkpoint(unbase64(fields["checkpoint"]).decode(), key)
    data = unbase64(fields["leaf"])
    site, partition, offset, appended_at_ms, headers, length, payload_hash = leaf(data)
    require(site == signed["site"], "the checkpoint is of another site")
    size, root = signed["tree"][partition]
    require(root_by_inclusion(leaf_hash(data), offset, size, path) == root, "the event is not in the tree")
    if "payload" in fields:
        payload = unbase64(fields["payload"])
        require(len(payload) == length and hashlib.sha256(payload).digest() == payload_hash, "another payload")
    return {
        "event": headers.get("ce_id"),
        "type": headers.get("ce_type"),
        "position": f"{site}/{partition}/{offset}",
        "appended_at_ms": appended_at_ms,
        "checkpoint": int(signed["number"]),
    }


def consistency_proof(lines, key):
    fields, paths = {}, []
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "partition":
            require(int(value) == len(paths), "partitions out of order")
            paths.append([])
        elif name == "hash":
            paths[-1].append(bytes.fromhex(value))
        else:
            fields[name] = value
    older, newer = (checkpoint(unbase64(fields[name]).decode(), key) for name in ("older", "newer"))
    require(older["site"] == newer["site"] and len(older["tree"]) == len(newer["tree"]) == len(paths), "another log")
    for partition, path in enumerate(paths):
        (old, old_root), (new, new_root) = older["tree"][partition], newer["tree"][partition]
        if old == 0:
            require(not path and old_root == hashlib.sha256(b"").digest(), f"partition {partition}")
            continue
        require(old <= new, f"partition {partition} shrank")
        require(roots_by_consistency(old, new, path, old_root) == (old_root, new_root), f"partition {partition}")
    return {"older": int(older["number"]), "newer": int(newer["number"])}


def document(path, key):
    text = open(path, encoding="utf-8", newline="").read()
    require(text.endswith("\n"), "cut short")
    title, *lines = text[:-1].split("\n")
    if title == "cairn event proof 1":
        return event_proof(lines, key)
    if title == "cairn consistency proof 1":
        return consistency_proof(lines, key)
    signed = checkpoint(text, key)
    events = sum(size for size, _ in signed["tree"].values())
    return {"checkpoint": int(signed["number"]), "previous": signed["previous"], "events": events}


def main():
    key, failed = public_key(sys.argv[1]), False
    for path in sys.argv[2:]:
        try:
            print(json.dumps({"file": path, **document(path, key)}))
        except (Wrong, ValueError, KeyError, IndexError) as error:
            failed = True
            print(json.dumps({"file": path, "wrong": f"{type(error).__name__}: {error}"}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
