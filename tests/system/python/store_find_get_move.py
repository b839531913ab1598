"""Stock pynetdicom against a running archive: store, find, get, move, cancel, and a rejection.

Usage: store_find_get_move.py HOST PORT MOVE_PORT FOLDER

FOLDER holds Part 10 files that no other sender sent. Any failure is named and ends the script with status 1.
"""

import logging
import os
import sys
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import AllTransferSyntaxes, CTImageStorage
from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind as PATIENT_FIND,
    PatientRootQueryRetrieveInformationModelGet as PATIENT_GET,
    StudyRootQueryRetrieveInformationModelFind as STUDY_FIND,
    StudyRootQueryRetrieveInformationModelGet as STUDY_GET,
    StudyRootQueryRetrieveInformationModelMove as STUDY_MOVE,
    Verification,
)

from reactor import at_rest

_config.STORE_SEND_CHUNKED_DATASET = True
logging.disable(logging.CRITICAL)
PENDING = (0xFF00, 0xFF01)


def fail(what):
    """Ends at once: an association that is left open would keep the interpreter for a minute."""
    print(f"FAILED: {what}", flush=True)
    os._exit(1)


def check(truth, what):
    if not truth:
        fail(f"{what}")
    print(f"ok: {what}")


class Instance:
    """A file that was sent."""

    def __init__(self, path):
        self.path = path
        self.meta, offset = split_dataset(path)
        self.bytes = path.read_bytes()[offset:]
        self.header = dcmread(path, stop_before_pixels=True)
        self.uid = str(self.header.SOPInstanceUID)
        self.context = (str(self.header.SOPClassUID), str(self.meta.TransferSyntaxUID))


class Archive:
    """Associations with the archive."""

    def __init__(self, host, port):
        self.host, self.port = host, port

    def associate(self, contexts, roles=(), handlers=(), called="CAIRN"):
        ae = AE("PYNETDICOM")
        for context in contexts:
            ae.add_requested_context(*context)
        return ae.associate(self.host, self.port, ae_title=called, ext_neg=list(roles), evt_handlers=list(handlers))

    def established(self, *arguments, **named):
        association = self.associate(*arguments, **named)
        if not association.is_established:
            fail("no association")
        return association


def query(level, **keys):
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def found(association, model, identifier):
    answers = []
    for status, answer in at_rest(association).send_c_find(identifier, model):
        if status.Status in PENDING:
            answers.append(answer)
        else:
            if status.Status != 0x0000:
                fail(f"C-FIND ended with {status.Status:04X} {status.get('ErrorComment', '')}")
    return answers


def verify(archive):
    association = archive.established([(Verification,)])
    check(at_rest(association).send_c_echo().Status == 0x0000, "C-ECHO")
    association.release()
    # pynetdicom 3.0.4 looks whether it is connected after its other thread may have read the rejection and closed the
    # socket (acse._negotiate_as_requestor, fsm.AE_4): it then tells of an abort. Never may an association be accepted.
    for _ in range(3):
        other = archive.associate([(Verification,)], called="SOMEONE-ELSE")
        if other.is_established:
            fail("another called AE title is accepted")
        if other.is_rejected:
            break
    check(other.is_rejected, "another called AE title is rejected")
    said = other.acceptor.primitive
    check((said.result, said.result_source, said.diagnostic) == (1, 1, 7), "as called-AE-title-not-recognized")


def store(archive, instances):
    association = archive.established(sorted({instance.context for instance in instances}))
    for instance in instances:
        status = at_rest(association).send_c_store(instance.path)
        if status.get("Status") != 0x0000:
            fail(f"C-STORE of {instance.path.name}: {status}")
    association.release()
    check(True, f"C-STORE of {len(instances)} instances in {len({i.context[1] for i in instances})} transfer syntaxes")


def values(answers, keyword):
    return sorted(str(answer.get(keyword, "")) for answer in answers)


def unique(instances, keyword):
    return sorted({str(instance.header.get(keyword, "")) for instance in instances})


def find(archive, instances):
    association = archive.established([(STUDY_FIND,), (PATIENT_FIND,)])
    studies = unique(instances, "StudyInstanceUID")

    def ask(what, keyword, expected, level, model=STUDY_FIND, **keys):
        answers = found(association, model, query(level, **keys))
        if values(answers, keyword) != sorted(expected):
            fail(f"C-FIND {what}: {len(answers)} answers, expected {len(expected)}")
        check(True, f"C-FIND {what}: {len(answers)}")
        return answers

    ask("of all studies", "StudyInstanceUID", studies, "STUDY", StudyInstanceUID="")
    ask("of a list of UIDs", "StudyInstanceUID", studies[:2], "STUDY", StudyInstanceUID=studies[:2])
    one = next(i.header for i in instances if i.header.get("PatientName") and i.header.get("StudyDate"))
    same = lambda keyword: unique([i for i in instances if i.header.get(keyword) == one.get(keyword)], "StudyInstanceUID")
    ask("by Patient ID", "StudyInstanceUID", same("PatientID"), "STUDY", StudyInstanceUID="", PatientID=one.PatientID)
    ask("by date", "StudyInstanceUID", same("StudyDate"), "STUDY", StudyInstanceUID="", StudyDate=one.StudyDate)
    span = "19000101-21001231"
    dated = unique([i for i in instances if i.header.get("StudyDate")], "StudyInstanceUID")
    ask("by a range of dates", "StudyInstanceUID", dated, "STUDY", StudyInstanceUID="", StudyDate=span)
    modalities = unique([i for i in instances if i.header.Modality == one.Modality], "StudyInstanceUID")
    ask("by modality", "StudyInstanceUID", modalities, "STUDY", StudyInstanceUID="", ModalitiesInStudy=one.Modality)
    of_study = [i for i in instances if i.header.StudyInstanceUID == one.StudyInstanceUID]
    of_series = [i for i in of_study if i.header.SeriesInstanceUID == one.SeriesInstanceUID]
    up = {"StudyInstanceUID": one.StudyInstanceUID}
    answers = ask(
        "of series", "SeriesInstanceUID", unique(of_study, "SeriesInstanceUID"), "SERIES", **up,
        SeriesInstanceUID="", NumberOfSeriesRelatedInstances="", Modality="",
    )
    count = next(a for a in answers if a.SeriesInstanceUID == one.SeriesInstanceUID).NumberOfSeriesRelatedInstances
    check(int(count) == len(of_series), "and their numbers of instances")
    up["SeriesInstanceUID"] = one.SeriesInstanceUID
    ask("of images", "SOPInstanceUID", unique(of_series, "SOPInstanceUID"), "IMAGE", **up, SOPInstanceUID="")
    patients = unique([i for i in instances if i.header.PatientID == one.PatientID], "PatientID")
    ask("of a patient", "PatientID", patients, "PATIENT", PATIENT_FIND, PatientID=one.PatientID, PatientName="")
    ask("of nobody", "PatientID", [], "PATIENT", PATIENT_FIND, PatientID="nobody has this", PatientName="")
    up = {"PatientID": one.PatientID, "StudyInstanceUID": ""}
    ask("of a patient's studies", "StudyInstanceUID", same("PatientID"), "STUDY", PATIENT_FIND, **up)
    association.release()


def cancel(archive):
    association = archive.established([(STUDY_FIND,)])
    statuses = []
    for status, _answer in at_rest(association).send_c_find(query("STUDY", StudyInstanceUID=""), STUDY_FIND, msg_id=7):
        if not statuses:
            association.send_c_cancel(7, query_model=STUDY_FIND)
        statuses.append(status.get("Status"))
    check(statuses[-1] in (0xFE00, 0x0000), f"C-CANCEL of C-FIND ends it: {statuses[-1]:04X} after {len(statuses)}")
    # A cancel may come too late; it must not harm what follows.
    check(len(found(association, STUDY_FIND, query("STUDY", StudyInstanceUID=""))) > 0, "and the next C-FIND is whole")
    association.release()


def keeper(received):
    def keep(event):
        received.append((str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()))
        return 0x0000

    return (evt.EVT_C_STORE, keep)


def same_bytes(received, instances, what):
    sent = sorted((instance.uid, instance.bytes) for instance in instances)
    check([uid for uid, _ in sorted(received)] == [uid for uid, _ in sent], f"{what}: the instances asked for")
    check(sorted(received) == sent, f"{what}: byte for byte as sent")


def get(archive, instances):
    contexts = sorted({instance.context for instance in instances})
    roles = [build_role(sop_class, scp_role=True) for sop_class in sorted({c for c, _ in contexts})]
    one = instances[0].header
    asked = [
        (STUDY_GET, "STUDY", {"StudyInstanceUID": one.StudyInstanceUID}),
        (
            STUDY_GET,
            "IMAGE",
            {k: one.get(k) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")},
        ),
        (PATIENT_GET, "PATIENT", {"PatientID": one.PatientID}),
    ]
    for model, level, keys in asked:
        received = []
        association = archive.established([(model,), *contexts], roles, [keeper(received)])
        last = [status for status, _ in at_rest(association).send_c_get(query(level, **keys), model)][-1]
        association.release()
        wanted = [i for i in instances if all(i.header.get(k) == v for k, v in keys.items())]
        check(last.Status == 0x0000, f"C-GET of a {level.lower()}")
        check(last.NumberOfCompletedSuboperations == len(wanted), f"C-GET of a {level.lower()}: it counts {len(wanted)}")
        same_bytes(received, wanted, f"C-GET of a {level.lower()}")


def move(archive, instances, port):
    received = []
    receiver = AE("MOVED")
    contexts = {}
    for sop_class, syntax in sorted({instance.context for instance in instances}):
        contexts.setdefault(sop_class, []).append(syntax)
    receiver.supported_contexts = [build_context(sop_class, syntaxes) for sop_class, syntaxes in contexts.items()]
    server = receiver.start_server(("127.0.0.1", port), block=False, evt_handlers=[keeper(received)])
    association = archive.established([(STUDY_MOVE,)])
    for study in unique(instances, "StudyInstanceUID"):
        asked = query("STUDY", StudyInstanceUID=study)
        last = [status for status, _ in at_rest(association).send_c_move(asked, "MOVED", STUDY_MOVE)][-1]
        if last.Status != 0x0000:
            fail(f"C-MOVE ended with {last.Status:04X} {last.get('ErrorComment', '')}")
    same_bytes(received, instances, "C-MOVE of every study")
    unknown = [status for status, _ in at_rest(association).send_c_move(asked, "NOWHERE", STUDY_MOVE)][-1]
    check(unknown.Status == 0xA801, "C-MOVE to an unknown destination: A801")
    association.release()
    server.shutdown()


def write_every_syntax(folder):
    """One small instance in each transfer syntax; an archive that stores as it is decodes none of them."""
    syntaxes = [s for s in AllTransferSyntaxes if not s.name.startswith(("SMPTE", "JPIP"))]
    for number, syntax in enumerate(syntaxes, 1):
        made = Dataset()
        made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, f"2.25.77001.{number}"
        made.StudyInstanceUID, made.SeriesInstanceUID = "2.25.77000", f"2.25.77000.{number % 3}"
        made.PatientID, made.PatientName, made.Modality = "SYNTAXES", "Every^Syntax", "CT"
        made.StudyDate, made.StudyTime, made.AccessionNumber, made.StudyID = "20250102", "030405", "77", "77"
        made.Rows = made.Columns = 8
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated = made.BitsStored = 8
        made.HighBit, made.PixelRepresentation = 7, 0
        pixels = bytes(range(64))
        made.PixelData = encapsulate([pixels]) if syntax.is_encapsulated else pixels
        made["PixelData"].VR = "OB"
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = syntax
        made.save_as(folder / f"syntax-{number:02}.dcm", enforce_file_format=True)


def main():
    write_every_syntax(Path(sys.argv[4]))
    archive = Archive(sys.argv[1], int(sys.argv[2]))
    instances = [Instance(path) for path in sorted(Path(sys.argv[4]).iterdir())]
    verify(archive)
    store(archive, instances)
    find(archive, instances)
    cancel(archive)
    get(archive, instances)
    move(archive, instances, int(sys.argv[3]))


if __name__ == "__main__":
    main()
