"""A Storage and Query/Retrieve SCP that refuses some instances, and loses some that it says are stored.

Usage: faithless_scp.py PORT REFUSE LOSE NOTES

Of the instances in the order in which they first come, every REFUSE-th is answered A900, and every LOSE-th is answered 0000 and
forgotten (0: none). NOTES gets a line for each: refused UID, lost UID.
"""

import logging
import sys
import threading

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as STUDY_FIND

logging.disable(logging.CRITICAL)
port, refuse, lose, notes = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
seen, kept, lock = {}, {}, threading.Lock()


def store(event):
    request = event.request
    uid = str(request.AffectedSOPInstanceUID)
    with lock:
        number = seen.setdefault(uid, len(seen) + 1)
        what = None
        if refuse and number % refuse == 0:
            what = "refused"
        elif lose and number % lose == 0:
            what = "lost"
        if what:
            with open(notes, "a", encoding="ascii") as file:
                file.write(f"{what} {uid}\n")
        if what == "refused":
            return 0xA900
        if what != "lost":
            data_set = event.dataset
            kept[uid] = (str(data_set.StudyInstanceUID), str(data_set.SeriesInstanceUID), str(request.AffectedSOPClassUID))
        return 0x0000


def find(event):
    keys = event.identifier
    with lock:
        there = [(uid, *rest) for uid, rest in kept.items() if rest[0] == keys.StudyInstanceUID]
    answers = {}
    for uid, study, series, sop_class in there:
        answer = Dataset()
        answer.QueryRetrieveLevel = keys.QueryRetrieveLevel
        answer.StudyInstanceUID, answer.SeriesInstanceUID = study, series
        if keys.QueryRetrieveLevel == "SERIES":
            answers[series] = answer
        elif keys.QueryRetrieveLevel == "IMAGE" and keys.SeriesInstanceUID == series:
            answer.SOPInstanceUID, answer.SOPClassUID = uid, sop_class
            answers[uid] = answer
    for answer in answers.values():
        yield 0xFF00, answer


ae = AE(ae_title="FAITHLESS")
for context in AllStoragePresentationContexts:
    ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
ae.add_supported_context(STUDY_FIND)
ae.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find)])
