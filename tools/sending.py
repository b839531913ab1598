"""Synthetic studies: stored by C-STORE, and found by QIDO-RS. For the tools that show an archive at work."""
import json
import random
import threading
import time
import urllib.request

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

INSTANCES = 10
RETRY_SECONDS = 0.1


def study_of(number):
    return generate_uid(entropy_srcs=["demonstration", str(number)])


def sop_instance(study, number):
    return generate_uid(entropy_srcs=["demonstration", str(study), str(number)])


def pixels(study, number, side):
    return random.Random(study * 1000 + number).randbytes(side * side * 2)


def instance(study, number, side=0):
    """One SOP Instance, with noise for a picture of `side` by `side` pixels, if any."""
    made = Dataset()
    made.SOPClassUID = CTImageStorage
    made.StudyInstanceUID = study_of(study)
    made.SeriesInstanceUID = f"{made.StudyInstanceUID[:58]}.1"
    made.SOPInstanceUID = sop_instance(study, number)
    made.PatientID = f"DEMO{study:06}"
    made.PatientName = f"Demonstration^{study:06}"
    made.StudyDate, made.StudyTime = "20260131", "120000"
    made.AccessionNumber = f"A{study:06}"
    made.Modality = "CT"
    made.SeriesNumber, made.InstanceNumber = 1, number
    if side:
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.Rows = made.Columns = side
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
        made.add_new("PixelData", "OW", pixels(study, number, side))
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def keep_answers(association):
    """Now and then pynetdicom's thread that looks for requests takes an answer, for which send_c_store then waits in vain: nobody
    sends requests here, so it is shown nothing."""
    get_msg = association.dimse.get_msg
    association.dimse.get_msg = lambda block=False: get_msg(block) if block else (None, None)


class Sender(threading.Thread):
    """Stores one study after the other, each instance until it is acknowledged; tells what was and what was not.

    `rate`: instances a second at most."""

    def __init__(self, archive, first, step, studies=None, rate=None, side=0):
        super().__init__(daemon=True)
        self.archive, self.first, self.step, self.studies, self.side = archive, first, step, studies, side
        self.pause = 1 / rate if rate else 0
        self.acknowledged, self.times, self.refused, self.ended = {}, [], 0, threading.Event()

    def run(self):
        self.entity = AE(ae_title="DEMONSTRATION")
        self.entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        self.association, study, done, due = None, self.first, 0, time.monotonic()
        while not self.ended.is_set() and (self.studies is None or done < self.studies):
            for number in range(1, INSTANCES + 1):
                made = instance(study, number, self.side)
                while not self.ended.is_set():
                    if self.stored(made):
                        self.acknowledged[study] = number
                        self.times.append((time.time(), study, number))
                        break
                    self.refused += 1
                    self.ended.wait(RETRY_SECONDS)
                due = max(due + self.pause, time.monotonic() - 1)
                self.ended.wait(due - time.monotonic())
            study, done = study + self.step, done + 1
        if self.association is not None and self.association.is_established:
            self.association.release()

    def stored(self, made):
        if self.association is None or not self.association.is_established:
            self.association = self.entity.associate(*self.archive, ae_title="CAIRN")
            keep_answers(self.association)
        try:
            return getattr(self.association.send_c_store(made), "Status", None) == 0
        except RuntimeError:  # there is no association, or no longer
            return False


def asked(address, accept="application/dicom+json"):
    request = urllib.request.Request(address, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read()


def count_of(web, study):
    """How many instances of a study are found, and what the answer was."""
    address = f"{web}/studies?StudyInstanceUID={study_of(study)}&includefield=NumberOfStudyRelatedInstances"
    try:
        status, body = asked(address)
        found = json.loads(body or "[]")
        return (found[0]["00201208"]["Value"][0] if found else 0), f"status {status}"
    except OSError as error:
        return 0, str(error)


def found_of(web, study):
    """SOP Instance UIDs that are found of a study."""
    _, body = asked(f"{web}/studies/{study_of(study)}/instances?limit=1000")
    return {each["00080018"]["Value"][0] for each in json.loads(body or "[]")}
