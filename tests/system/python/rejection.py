"""Rejection notes as a modality or a workstation makes and sends them, and what others are then shown.

Usage:
  rejection.py make OUT TITLE FILE...        writes a note with this title (Code Value, DCM) about the files' instances
  rejection.py send HOST PORT FILE...        C-STORE; prints the status of each in hexadecimal
  rejection.py see HOST PORT AE STUDY        prints as JSON what an AE finds and gets of a study
"""

import json
import logging
import sys

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage, generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as FIND,
    StudyRootQueryRetrieveInformationModelGet as GET,
)

from reactor import at_rest

logging.disable(logging.CRITICAL)


def code(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def make(out, title, files):
    instances = [dcmread(path, stop_before_pixels=True) for path in files]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    note = FileDataset(out, {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
                    "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"):
        setattr(note, keyword, instances[0].get(keyword, ""))
    note.SOPClassUID, note.SOPInstanceUID = KeyObjectSelectionDocumentStorage, meta.MediaStorageSOPInstanceUID
    note.SeriesInstanceUID, note.Modality = generate_uid(), "KO"
    note.SeriesNumber, note.InstanceNumber = 999, 1
    note.ContentDate, note.ContentTime = "20260101", "120000"
    note.ReferencedPerformedProcedureStepSequence = []
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    note.ConceptNameCodeSequence = [code(title, "DCM", "title of a rejection note")]
    evidence, content = {}, []
    for instance in instances:
        reference = Dataset()
        reference.ReferencedSOPClassUID = instance.SOPClassUID
        reference.ReferencedSOPInstanceUID = instance.SOPInstanceUID
        of_study = evidence.setdefault(instance.StudyInstanceUID, {})
        of_study.setdefault(instance.SeriesInstanceUID, []).append(reference)
        item = Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
        item.ReferencedSOPSequence = [reference]
        content.append(item)
    studies = []
    for study, of_study in evidence.items():
        item = Dataset()
        item.StudyInstanceUID, item.ReferencedSeriesSequence = study, []
        for series, references in of_study.items():
            of_series = Dataset()
            of_series.SeriesInstanceUID, of_series.ReferencedSOPSequence = series, references
            item.ReferencedSeriesSequence.append(of_series)
        studies.append(item)
    note.CurrentRequestedProcedureEvidenceSequence = studies
    note.ContentSequence = content
    note.save_as(out, enforce_file_format=True)


def send(host, port, files):
    ae = AE("WORKSTATION")
    data_sets = [dcmread(path) for path in files]
    for data_set in data_sets:
        if data_set.SOPClassUID not in [context.abstract_syntax for context in ae.requested_contexts]:
            ae.add_requested_context(data_set.SOPClassUID, data_set.file_meta.TransferSyntaxUID)
    association = ae.associate(host, port, ae_title="CAIRN")
    if not association.is_established:
        sys.exit("no association for C-STORE")
    for data_set in data_sets:
        status = at_rest(association).send_c_store(data_set)
        print(f"{status.get('Status', 0xFFFF):04X} {status.get('ErrorComment', '')}".rstrip())
    association.release()


def query(level, **keys):
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def find(association, identifier):
    answers = at_rest(association).send_c_find(identifier, FIND)
    return [answer for status, answer in answers if status.get("Status") in (0xFF00, 0xFF01)]


def see(host, port, title, study):
    ae = AE(title)
    ae.add_requested_context(FIND)
    finder = ae.associate(host, port, ae_title="CAIRN")
    if not finder.is_established:
        sys.exit("no association for C-FIND")
    studies = find(finder, query("STUDY", StudyInstanceUID=study, PatientID="", NumberOfStudyRelatedInstances=""))
    everything = find(finder, query("STUDY", StudyInstanceUID="", PatientID=""))
    series = find(finder, query("SERIES", StudyInstanceUID=study, SeriesInstanceUID=""))
    found = []
    for one in series:
        of_series = query("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=one.SeriesInstanceUID,
                          SOPInstanceUID="", SOPClassUID="")
        found += find(finder, of_series)
    finder.release()
    print(json.dumps({
        "instances": [int(one.NumberOfStudyRelatedInstances) for one in studies],
        "listed": study in [one.StudyInstanceUID for one in everything],
        "series": len(series),
        "found": sorted(one.SOPInstanceUID for one in found),
        "got": get(host, port, title, study, sorted({one.SOPClassUID for one in found})),
    }))


def get(host, port, title, study, classes):
    got = []

    def store(event):
        got.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    ae = AE(title)
    ae.add_requested_context(GET)
    roles = []
    for sop_class in classes or [KeyObjectSelectionDocumentStorage]:
        ae.add_requested_context(sop_class)
        roles.append(build_role(sop_class, scp_role=True))
    getter = ae.associate(host, port, ae_title="CAIRN", ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, store)])
    if not getter.is_established:
        sys.exit("no association for C-GET")
    for status, _ in at_rest(getter).send_c_get(query("STUDY", StudyInstanceUID=study), GET):
        if status.get("Status") not in (0x0000, 0xFF00):
            sys.exit(f"C-GET: {status.get('Status', 0xFFFF):04X}")
    getter.release()
    return sorted(got)


if __name__ == "__main__":
    command, rest = sys.argv[1], sys.argv[2:]
    if command == "make":
        make(rest[0], rest[1], rest[2:])
    elif command == "send":
        send(rest[0], int(rest[1]), rest[2:])
    elif command == "see":
        see(rest[0], int(rest[1]), rest[2], rest[3])
    else:
        sys.exit(__doc__)
