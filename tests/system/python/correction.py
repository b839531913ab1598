"""What a workstation finds and gets of instances whose attributes were corrected.

Usage:
  correction.py find HOST PORT KEYWORD VALUE   C-FIND at study level; prints Study Instance UIDs
  correction.py get HOST PORT STUDY FOLDER     C-GET; writes each instance as a file
  correction.py tell FILE...                   prints as JSON, by SOP Instance UID, what files say
"""

import hashlib
import json
import logging
import sys
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as FIND,
    StudyRootQueryRetrieveInformationModelGet as GET,
)

from reactor import at_rest

logging.disable(logging.CRITICAL)

SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.50",
            "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"]


def query(level, **keys):
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def associated(host, port, contexts, **more):
    ae = AE("WORKSTATION")
    for context in contexts:
        ae.add_requested_context(*context)
    association = ae.associate(host, port, ae_title="CAIRN", **more)
    if not association.is_established:
        sys.exit("no association")
    return at_rest(association)


def find(host, port, level, **keys):
    association = associated(host, port, [(FIND,)])
    answers = list(association.send_c_find(query(level, **keys), FIND))
    association.release()
    return [answer for status, answer in answers if status.get("Status") in (0xFF00, 0xFF01)]


def get(host, port, study, folder):
    def keep(event):
        (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    series = [one.SeriesInstanceUID for one in find(host, port, "SERIES", StudyInstanceUID=study, SeriesInstanceUID="")]
    keys = [{"StudyInstanceUID": study, "SeriesInstanceUID": uid, "SOPClassUID": ""} for uid in series]
    classes = sorted({one.SOPClassUID for key in keys for one in find(host, port, "IMAGE", **key)})
    contexts = [(GET,)] + [(sop_class, syntax) for sop_class in classes for syntax in SYNTAXES]
    roles = [build_role(sop_class, scp_role=True) for sop_class in classes]
    getter = associated(host, port, contexts, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, keep)])
    for status, _ in getter.send_c_get(query("STUDY", StudyInstanceUID=study), GET):
        if status.get("Status") not in (0x0000, 0xFF00):
            sys.exit(f"C-GET: {status.get('Status', 0xFFFF):04X} {status.get('ErrorComment', '')}")
    getter.release()


def tell(files):
    told = {}
    for file in files:
        data_set = dcmread(file)
        told[data_set.SOPInstanceUID] = {
            "name": str(data_set.get("PatientName", "")),
            "id": data_set.get("PatientID", ""),
            "pixels": hashlib.sha256(data_set.get("PixelData", b"")).hexdigest(),
            "previous": [
                {
                    "name": str(item.ModifiedAttributesSequence[0].get("PatientName", "")),
                    "id": item.ModifiedAttributesSequence[0].get("PatientID", ""),
                    "reason": item.ReasonForTheAttributeModification,
                    "system": item.ModifyingSystem,
                }
                for item in data_set.get("OriginalAttributesSequence", [])
            ],
        }
    print(json.dumps(told))


if __name__ == "__main__":
    command, rest = sys.argv[1], sys.argv[2:]
    if command == "find":
        for answer in find(rest[0], int(rest[1]), "STUDY", StudyInstanceUID="", **{rest[2]: rest[3]}):
            print(answer.StudyInstanceUID)
    elif command == "get":
        get(rest[0], int(rest[1]), rest[2], Path(rest[3]))
    elif command == "tell":
        tell(rest)
    else:
        sys.exit(__doc__)
