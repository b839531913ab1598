"""A requester of storage commitment by stock pynetdicom.

Usage: commitment_scu.py JSON

JSON: {"title", "host", "port", "transaction", "references": [[SOP Class UID, SOP Instance UID], ...], "ask": whether to ask at
all, "listen": port to be called at or null, "stay": whether to wait for the report on the association that asks, "refuse": how
many reports are answered with a failure first}. Prints one JSON object: {"action": status of N-ACTION or null, "report": null or
{"on": "same" or "new", "transaction", "type", "committed": [UID, ...], "failed": {UID: reason}}}. Waits a minute for the report
when it listens or stays.
"""

import json
import logging
import os
import queue
import sys

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from reactor import at_rest

logging.disable(logging.CRITICAL)
_config.LOG_HANDLER_LEVEL = "none"


class Requester:
    def __init__(self, job):
        self.job = job
        self.reports = queue.Queue()
        self.refusals = job.get("refuse", 0)

    def taker(self, on):
        def take(event):
            if self.refusals > 0:
                self.refusals -= 1
                return 0x0110, None
            told = event.event_information
            failed = {str(i.ReferencedSOPInstanceUID): i.FailureReason for i in told.get("FailedSOPSequence", [])}
            committed = [str(item.ReferencedSOPInstanceUID) for item in told.get("ReferencedSOPSequence", [])]
            report = {"on": on, "transaction": str(told.TransactionUID), "type": event.event_type}
            self.reports.put({**report, "committed": committed, "failed": failed})
            return 0x0000, None

        return take

    def listen(self):
        ae = AE(self.job["title"])
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.taker("new"))]
        return ae.start_server(("127.0.0.1", self.job["listen"]), block=False, evt_handlers=handlers)

    def ask(self):
        job = self.job
        ae = AE(job["title"])
        ae.add_requested_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.taker("same"))]
        association = ae.associate(job["host"], job["port"], ae_title="CAIRN", evt_handlers=handlers)
        if not association.is_established:
            return None, association
        action = Dataset()
        action.TransactionUID = job["transaction"]
        action.ReferencedSOPSequence = []
        for sop_class, instance in job["references"]:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
            action.ReferencedSOPSequence.append(item)
        answer, _reply = at_rest(association).send_n_action(
            action, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        return answer.get("Status"), association

    def run(self):
        job, status, report, association = self.job, None, None, None
        server = self.listen() if job.get("listen") else None
        if job.get("ask", True):
            status, association = self.ask()
            if not job.get("stay"):
                association.release()
        if (server or job.get("stay")) and status in (0, None):
            try:
                report = self.reports.get(timeout=60)
            except queue.Empty:
                pass
        if association and association.is_established:
            association.release()
        if server:
            server.shutdown()
        print(json.dumps({"action": status, "report": report}), flush=True)
        # Threads of associations that went wrong must not keep the process.
        os._exit(0)


if __name__ == "__main__":
    Requester(json.loads(sys.argv[1])).run()
