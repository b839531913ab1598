"""Sends files by C-STORE, one association each, and says what became of each.

Usage: sender.py pynetdicom|dcmtk

Reads a JSON object a line: {"path", "host", "port", "wire"}; answers a JSON object a line: {"sent": false, "why"} or
{"sent": true, "status", "comment"}. The data set bytes that went over the wire are then in the file `wire`: they are
taken from the connection itself, since what storescu sends depends on what was negotiated.
"""

import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

from pynetdicom import AE, _config
from pynetdicom.dsutils import split_dataset

from reactor import at_rest

_config.STORE_SEND_CHUNKED_DATASET = True
_config.UNRESTRICTED_STORAGE_SERVICE = True
_config.LOG_HANDLER_LEVEL = "none"
_config.USE_SHORT_DIMSE_AET = True
logging.disable(logging.CRITICAL)

# What storescu wants to hear to send a file as it is.
OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}

P_DATA_TF = 0x04


class Relay:
    """Stands between a client and the archive, and keeps the data set fragments that the client sends (PS3.8 section
    9.3.5, annex E.2). What it keeps is kept before it is passed on."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self.listener.getsockname()
        self.there = None
        self.data_set = bytearray()
        threading.Thread(target=self.accept, daemon=True).start()

    def to(self, host, port):
        """For the next association: where it goes."""
        self.there = (host, port)
        self.data_set = bytearray()

    def accept(self):
        while True:
            client, _address = self.listener.accept()
            archive = socket.create_connection(self.there)
            for end in (client, archive):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep = self.keeper(self.data_set)
            threading.Thread(target=self.pass_on, args=(client, archive, keep), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(archive, client, lambda _bytes: None), daemon=True).start()

    @staticmethod
    def pass_on(source, target, keep):
        try:
            while received := source.recv(1 << 20):
                keep(received)
                target.sendall(received)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            # One end is gone: so is the other.
            for end in (source, target):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    @staticmethod
    def keeper(data_set):
        unread = bytearray()

        def keep(received):
            unread.extend(received)
            while len(unread) >= 6:
                kind, length = struct.unpack(">BxL", unread[:6])
                if len(unread) < 6 + length:
                    return
                at = 6
                while kind == P_DATA_TF and at < 6 + length:
                    item, _context, header = struct.unpack_from(">LBB", unread, at)
                    if not header & 1:
                        data_set.extend(unread[at + 6 : at + 4 + item])
                    at += 4 + item
                del unread[: 6 + length]

        return keep


def not_sent(why):
    return {"sent": False, "why": re.sub(r"\s+", " ", str(why)).strip()[:120]}


def by_pynetdicom(path, host, port):
    """The data set bytes of the file, verbatim."""
    path = Path(path)
    try:
        meta, _offset = split_dataset(path)
        missing = [
            keyword
            for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
            if not getattr(meta, keyword, None)
        ]
    except Exception as error:
        return not_sent(f"pydicom: {type(error).__name__}")
    if missing:
        return not_sent(f"no {missing[0]} in the file meta information")
    try:
        ae = AE("PYNETDICOM")
        ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
        association = ae.associate(host, port, ae_title="CAIRN")
    except Exception as error:
        return not_sent(f"pynetdicom: {type(error).__name__}")
    if not association.is_established:
        rejected = association.rejected_contexts
        return not_sent("context refused: " + rejected[0].status if rejected else "no association")
    try:
        response = at_rest(association).send_c_store(path)
    except Exception as error:
        return not_sent(f"pynetdicom: {type(error).__name__}: {error}")
    finally:
        association.release()
    if "Status" not in response:
        return {"sent": True, "status": None, "comment": "no answer"}
    return {"sent": True, "status": response.Status, "comment": response.get("ErrorComment", "")}


def by_dcmtk(path, host, port):
    """What storescu makes of the file."""
    try:
        meta, _offset = split_dataset(Path(path))
        syntax = str(getattr(meta, "TransferSyntaxUID", "1.2.840.10008.1.2.1"))
    except Exception:
        syntax = "1.2.840.10008.1.2.1"
    option = OPTIONS.get(syntax)
    if option is None:
        return not_sent("storescu can't propose the transfer syntax")
    command = ["storescu", "-d", "-R", option, "-aec", "CAIRN", "-aet", "DCMTK", host, str(port), path]
    # dcmtk waits for delayed acknowledgements without TCP_NODELAY.
    environment = {**os.environ, "TCP_NODELAY": "1"}
    output = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment)
    text = (output.stdout + output.stderr).decode("latin-1")
    status = re.search(r"DIMSE Status\s*: 0x([0-9a-f]{4})", text)
    if status is None:
        errors = [line[3:] for line in text.splitlines() if line[:3] in ("E: ", "F: ")]
        why = errors[0] if errors else "no answer"
        return not_sent("storescu: " + why.replace(path, "the file"))
    comment = re.search(r"\(0000,0902\) LO \[(.*?)\s*\]", text)
    return {"sent": True, "status": int(status.group(1), 16), "comment": comment.group(1) if comment else ""}


def main():
    send = {"pynetdicom": by_pynetdicom, "dcmtk": by_dcmtk}[sys.argv[1]]
    relay = Relay()
    for line in sys.stdin:
        job = json.loads(line)
        relay.to(job["host"], job["port"])
        answer = send(job["path"], relay.host, relay.port)
        Path(job["wire"]).write_bytes(relay.data_set)
        print(json.dumps(answer), flush=True)
    # Threads of associations that went wrong must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
