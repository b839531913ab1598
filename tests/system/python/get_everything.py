"""C-GET of every series; writes the data set bytes as received.

Usage: get_everything.py HOST PORT FOLDER

Prints a line for each instance: `got`, study/series/instance, and the file in the folder.
"""

import logging
import sys
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as FIND,
    StudyRootQueryRetrieveInformationModelGet as GET,
)

from reactor import at_rest

_config.UNRESTRICTED_STORAGE_SERVICE = True
logging.disable(logging.CRITICAL)

# Of the files that the test sends.
SYNTAXES = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    *(f"1.2.840.10008.1.2.4.{last}" for last in (50, 51, 55, 57, 70, 80, 81, 90, 91, 201, 202, 203)),
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.8.1",
]


def query(level, **keys):
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def find(association, identifier):
    found = []
    for status, answer in at_rest(association).send_c_find(identifier, FIND):
        if status.get("Status") in (0xFF00, 0xFF01):
            found.append(answer)
        elif status.get("Status") != 0x0000:
            sys.exit(f"C-FIND ended with {status.get('Status', 0xFFFF):04X} {status.get('ErrorComment', '')}")
    return found


def main():
    host, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    ae = AE("PYNETDICOM")
    ae.add_requested_context(FIND)
    finder = ae.associate(host, port, ae_title="CAIRN")
    if not finder.is_established:
        sys.exit("no association for C-FIND")
    number = 0
    for study in find(finder, query("STUDY", StudyInstanceUID="")):
        for series in find(finder, query("SERIES", StudyInstanceUID=study.StudyInstanceUID, SeriesInstanceUID="")):
            keys = {"StudyInstanceUID": study.StudyInstanceUID, "SeriesInstanceUID": series.SeriesInstanceUID}
            wanted = query("IMAGE", **keys, SOPInstanceUID="", SOPClassUID="")
            images = find(finder, wanted)
            number = get(host, port, folder, keys, images, number)
    finder.release()


def get(host, port, folder, keys, images, number):
    received = []

    def keep(event):
        nonlocal number
        number += 1
        (folder / str(number)).write_bytes(event.request.DataSet.getvalue())
        received.append((str(event.request.AffectedSOPInstanceUID), number))
        return 0x0000

    # A context for each transfer syntax: the archive never transcodes, and can accept one a context.
    classes = sorted({str(image.SOPClassUID) for image in images})
    contexts = [(sop_class, syntax) for sop_class in classes for syntax in SYNTAXES]
    ae = AE("PYNETDICOM")
    ae.add_requested_context(GET)
    for sop_class, syntax in contexts:
        ae.add_requested_context(sop_class, syntax)
    roles = [build_role(sop_class, scp_role=True) for sop_class in classes]
    association = ae.associate(
        host, port, ae_title="CAIRN", ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    if not association.is_established:
        sys.exit("no association for C-GET")
    for status, failed in at_rest(association).send_c_get(query("SERIES", **keys), GET):
        if status.get("Status") not in (0xFF00, 0x0000):
            print(f"C-GET ended with {status.get('Status', 0xFFFF):04X} {status.get('ErrorComment', '')}: {failed}",
                  file=sys.stderr)
    association.release()
    for instance, file in received:
        print(f"got {keys['StudyInstanceUID']}/{keys['SeriesInstanceUID']}/{instance} {file}")
    return number


if __name__ == "__main__":
    main()
