"""Sends files by C-STORE, one association each, and says what became of each.

Usage: sender.py pynetdicom|dcmtk

Reads a JSON object a line: {"path", "host", "port"}; answers a JSON object a line: {"sent": false, "why"} or
{"sent": true, "status", "comment"}. To {"wires": [[path, wire], ...]} it writes the data set bytes of each file, as this
client puts them on the wire, to the file `wire`, where it sends any; and answers {}.
"""

import json
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, _config, build_context, evt
from pynetdicom.dsutils import split_dataset

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


def not_sent(why):
    return {"sent": False, "why": re.sub(r"\s+", " ", str(why)).strip()[:120]}


def by_pynetdicom(job):
    """The data set bytes of the file, verbatim."""
    path = Path(job["path"])
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
        association = ae.associate(job["host"], job["port"], ae_title="CAIRN")
    except Exception as error:
        return not_sent(f"pynetdicom: {type(error).__name__}")
    if not association.is_established:
        rejected = association.rejected_contexts
        return not_sent("context refused: " + rejected[0].status if rejected else "no association")
    try:
        response = association.send_c_store(path)
    except Exception as error:
        return not_sent(f"pynetdicom: {type(error).__name__}: {error}")
    finally:
        association.release()
    if "Status" not in response:
        return {"sent": True, "status": None, "comment": "no answer"}
    return {"sent": True, "status": response.Status, "comment": response.get("ErrorComment", "")}


def wires_of_pynetdicom(wires):
    for path, wire in wires:
        try:
            _meta, offset = split_dataset(Path(path))
        except Exception:
            continue
        Path(wire).write_bytes(Path(path).read_bytes()[offset:])


class Dcmtk:
    """storescu, with a receiver that keeps what it puts on the wire."""

    def __init__(self):
        self.wires = {}
        ae = AE("CAPTURE")
        contexts = [build_context(c.abstract_syntax, AllTransferSyntaxes) for c in AllStoragePresentationContexts]
        ae.supported_contexts = contexts
        ae.maximum_pdu_size = 0
        ae.maximum_associations = 64
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self.keep)])
        self.port = server.server_address[1]

    def keep(self, event):
        """The calling AE title says which file it is."""
        Path(self.wires[event.assoc.requestor.ae_title.strip()]).write_bytes(event.request.DataSet.getvalue())
        return 0x0000

    @staticmethod
    def storescu(host, port, path, calling="DCMTK"):
        """What it says; none where it has no option for the transfer syntax."""
        try:
            meta, _offset = split_dataset(Path(path))
            syntax = str(getattr(meta, "TransferSyntaxUID", "1.2.840.10008.1.2.1"))
        except Exception:
            syntax = "1.2.840.10008.1.2.1"
        option = OPTIONS.get(syntax)
        if option is None:
            return None
        command = ["storescu", "-d", "-R", option, "-aec", "CAIRN", "-aet", calling, host, str(port), path]
        # dcmtk waits for delayed acknowledgements without TCP_NODELAY.
        environment = {**os.environ, "TCP_NODELAY": "1"}
        output = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment)
        return (output.stdout + output.stderr).decode("latin-1")

    def capture(self, wires):
        self.wires = {f"F{number}": wire for number, (_path, wire) in enumerate(wires)}
        with ThreadPoolExecutor(8) as pool:
            jobs = enumerate(path for path, _wire in wires)
            list(pool.map(lambda job: self.storescu("127.0.0.1", self.port, job[1], f"F{job[0]}"), jobs))

    def send(self, job):
        path = job["path"]
        text = self.storescu(job["host"], job["port"], path)
        if text is None:
            return not_sent("storescu can't propose the transfer syntax")
        status = re.search(r"DIMSE Status\s*: 0x([0-9a-f]{4})", text)
        if status is None:
            errors = [line[3:] for line in text.splitlines() if line[:3] in ("E: ", "F: ")]
            why = errors[0] if errors else "no answer"
            return not_sent("storescu: " + why.replace(path, "the file"))
        comment = re.search(r"\(0000,0902\) LO \[(.*?)\s*\]", text)
        return {"sent": True, "status": int(status.group(1), 16), "comment": comment.group(1) if comment else ""}


def main():
    if sys.argv[1] == "pynetdicom":
        send, write_wires = by_pynetdicom, wires_of_pynetdicom
    else:
        dcmtk = Dcmtk()
        send, write_wires = dcmtk.send, dcmtk.capture
    for line in sys.stdin:
        job = json.loads(line)
        answer = write_wires(job["wires"]) or {} if "wires" in job else send(job)
        print(json.dumps(answer), flush=True)
    # Threads of associations that went wrong must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
