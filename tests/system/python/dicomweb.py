"""Stock dicomweb-client against a running archive: store, search, retrieve.

Usage: dicomweb.py URL FOLDER

FOLDER holds Part 10 files that no other sender sent. Any failure is named and ends the script with status 1.
"""

import sys
import time
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames


def check(truth, what):
    if not truth:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def equal(got, expected, what):
    if got != expected:
        sys.exit(f"FAILED: {what}: got {str(got)[:400]}, expected {str(expected)[:400]}")
    print(f"ok: {what}")


def uids(found, tag):
    return sorted(item[tag]["Value"][0] for item in found)


def unique(files, keyword):
    return sorted({str(file.get(keyword, "")) for file in files})


def store(client, files):
    answer = client.store_instances(files)
    equal(len(answer.ReferencedSOPSequence), len(files), "all are stored in one request")
    check("FailedSOPSequence" not in answer, "and none failed")
    study = files[0].StudyInstanceUID
    again = client.store_instances([files[0]], study_instance_uid=study)
    equal(len(again.ReferencedSOPSequence), 1, "one is stored again to its study")
    equal(str(again.RetrieveURL).rsplit("/", 1)[1], study, "and its Retrieve URL names the study")


def settled(url):
    """Waits until the index has folded what was stored: dicomweb-client can't send Cairn-Read-After."""
    deadline = time.monotonic() + 60
    while b"index: ok 0 events behind" not in urlopen(urljoin(url, "/readyz")).read():
        if time.monotonic() > deadline:
            sys.exit("FAILED: the index did not catch up")
        time.sleep(0.01)


def search(client, files):
    one = next(file for file in files if file.get("PatientName") and file.get("StudyDate"))
    studies = unique(files, "StudyInstanceUID")
    study, series = one.StudyInstanceUID, one.SeriesInstanceUID
    of_study = [file for file in files if file.StudyInstanceUID == study]
    of_series = [file for file in of_study if file.SeriesInstanceUID == series]
    equal(uids(client.search_for_studies(), "0020000D"), studies, "all studies")
    equal(uids(client.search_for_series(), "0020000E"), unique(files, "SeriesInstanceUID"), "all series")
    equal(uids(client.search_for_instances(), "00080018"), unique(files, "SOPInstanceUID"), "all instances")
    equal(uids(client.search_for_series(study), "0020000E"), unique(of_study, "SeriesInstanceUID"), "a study's series")
    equal(
        uids(client.search_for_instances(study, series), "00080018"),
        unique(of_series, "SOPInstanceUID"),
        "a series' instances",
    )
    same = unique([file for file in files if file.get("PatientID") == one.PatientID], "StudyInstanceUID")
    found = client.search_for_studies(search_filters={"PatientID": one.PatientID})
    equal(uids(found, "0020000D"), same, "by Patient ID")
    found = client.search_for_studies(search_filters={"00100020": one.PatientID})
    equal(uids(found, "0020000D"), same, "by Patient ID as a tag")
    family = str(one.PatientName).split("^")[0]
    alike = unique([f for f in files if str(f.get("PatientName", "")).split("^")[0] == family], "StudyInstanceUID")
    found = client.search_for_studies(search_filters={"PatientName": f"{family}*"})
    equal(uids(found, "0020000D"), alike, "by a wildcard")
    found = client.search_for_studies(search_filters={"PatientName": family.lower()}, fuzzymatching=True)
    check(set(alike) <= set(uids(found, "0020000D")), "by fuzzy matching of a family name")
    found = client.search_for_series(search_filters={"Modality": one.Modality})
    equal(
        uids(found, "0020000E"),
        unique([file for file in files if file.Modality == one.Modality], "SeriesInstanceUID"),
        "series by modality",
    )
    page_through(client, studies)
    included(client, one)


def page_through(client, studies):
    pages = [client.search_for_studies(limit=2, offset=offset) for offset in range(0, len(studies), 2)]
    check(all(len(page) <= 2 for page in pages), "no page is longer than its limit")
    equal(uids([item for page in pages for item in page], "0020000D"), studies, "pages join to all studies")
    equal(client.search_for_studies(offset=len(studies)), [], "behind the end there is nothing")
    equal(uids(client.search_for_studies(limit=2, get_remaining=True), "0020000D"), studies, "get_remaining")


def included(client, one):
    filters = {"SOPInstanceUID": one.SOPInstanceUID}
    plain = client.search_for_instances(search_filters=filters)[0]
    check("00080008" not in plain or "ImageType" not in one, "Image Type is not there unless asked for")
    fields = ["00080008", "SOPClassUID", "Rows"]
    asked = client.search_for_instances(search_filters=filters, fields=fields)[0]
    if "ImageType" in one:
        equal(asked["00080008"]["Value"], list(one.ImageType), "includefield brings Image Type")
    everything = client.search_for_instances(search_filters=filters, fields=["all"])[0]
    check(set(asked) <= set(everything), "includefield=all brings at least that")


def retrieve(client, files):
    for study in unique(files, "StudyInstanceUID"):
        of_study = [file for file in files if file.StudyInstanceUID == study]
        got = client.retrieve_study(study, media_types=(("application/dicom", "*"),))
        same_files(got, of_study, "a study")
        for series in unique(of_study, "SeriesInstanceUID"):
            of_series = [file for file in of_study if file.SeriesInstanceUID == series]
            same_files(client.retrieve_series(study, series, media_types=(("application/dicom", "*"),)), of_series, "a series")
            metadata = client.retrieve_series_metadata(study, series)
            equal(uids(metadata, "00080018"), unique(of_series, "SOPInstanceUID"), "a series' metadata")
    for file in files:
        of_instance(client, file)


def same_files(got, sent, what):
    key = lambda file: file.SOPInstanceUID
    got, sent = sorted(got, key=key), sorted(sent, key=key)
    equal([key(file) for file in got], [key(file) for file in sent], f"{what}: its instances")
    check(all(one == other for one, other in zip(got, sent)), f"{what}: equal data sets")
    syntaxes = [(a.file_meta.TransferSyntaxUID, b.file_meta.TransferSyntaxUID) for a, b in zip(got, sent)]
    check(all(one == other for one, other in syntaxes), f"{what}: in their own transfer syntaxes")


def of_instance(client, file):
    path = (file.StudyInstanceUID, file.SeriesInstanceUID, file.SOPInstanceUID)
    got = client.retrieve_instance(*path, media_types=(("application/dicom", "*"),))
    same_files([got], [file], "an instance")
    metadata = client.retrieve_instance_metadata(*path)
    header = Dataset.from_json(metadata, bulk_data_uri_handler=lambda _tag, _vr, _uri: None)
    equal(header.SOPInstanceUID, file.SOPInstanceUID, "an instance's metadata")
    equal(header.get("PatientName"), file.get("PatientName"), "with the patient's name")
    equal(header.get("Rows"), file.get("Rows"), "and its rows")
    if "PixelData" not in file:
        return
    frames = int(file.get("NumberOfFrames", 1))
    syntax = file.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        expected = list(generate_frames(file.PixelData, number_of_frames=frames))
    else:
        length = file.Rows * file.Columns * file.SamplesPerPixel * file.BitsAllocated // 8
        expected = [file.PixelData[length * n : length * (n + 1)] for n in range(frames)]
        # The reference is relative, as PS3.18 allows: joining it with the address is left to the caller. By the Host
        # field it could not be made absolute: this client sends its host there without the port.
        bulk = client.retrieve_bulkdata(urljoin(client.base_url, metadata["7FE00010"]["BulkDataURI"]))
        equal(bulk[0][: len(file.PixelData)], file.PixelData, "Pixel Data by its Bulk Data URI")
    numbers = [1, frames] if frames > 1 else [1]
    got = client.retrieve_instance_frames(*path, numbers, media_types=("*/*",))
    equal([bytes(f).rstrip(b"\0") for f in got], [expected[n - 1].rstrip(b"\0") for n in numbers], "frames")


def main():
    client = DICOMwebClient(url=sys.argv[1])
    files = [dcmread(path) for path in sorted(Path(sys.argv[2]).iterdir())]
    store(client, files)
    settled(sys.argv[1])
    search(client, files)
    retrieve(client, files)
    print("ok: everything")


if __name__ == "__main__":
    main()
