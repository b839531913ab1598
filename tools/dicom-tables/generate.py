#!/usr/bin/env python3
"""Writes crates/dicom/src/tables/*.rs from the Standard's tables.

    tools/dicom-tables/generate.py TABLES_DIRECTORY

TABLES_DIRECTORY holds data_dictionary.json and uids.json (PS3.6), sop_class_iod_map.json (PS3.4) and
ciod_to_modules.json (PS3.3). What is written is committed; a build needs neither this script nor the tables.
Standard library only.
"""
import json
import pathlib
import re
import sys

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/dicom/src/tables"
HEAD = "// Written by tools/dicom-tables/generate.py from the Standard's tables (PS3.3, PS3.4, PS3.6). Do not edit.\n"

# Storage SOP Classes by name, since PS3.4 maps no IOD to retired ones (all composite, with patient, study and series).
STORAGE_NAME = re.compile(r"Storage( SOP Class)?( - (Trial|For Presentation|For Processing))?$")
NOT_STORAGE = {"1.2.840.10008.1.3.10"}  # Media Storage Directory: a file on media, never sent by C-STORE


def load(directory, name):
    with open(pathlib.Path(directory) / name, encoding="utf-8") as file:
        return json.load(file)


def write(name, text):
    (OUT / name).write_text(HEAD + text, encoding="utf-8")


def text(value):
    return json.dumps(value, ensure_ascii=False)


def constant_name(keyword):
    """StudyInstanceUID -> STUDY_INSTANCE_UID, OtherPatientIDsSequence -> OTHER_PATIENT_IDS_SEQUENCE."""
    name = re.sub(r"([A-Z]{2,})s(?=[A-Z0-9_]|$)", lambda m: m[1] + "S", keyword)
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name).upper()


def elements(directory):
    plain, repeating = [], []
    for row in load(directory, "data_dictionary.json"):
        keyword, vr = row["keyword"], row["vr"]
        if not keyword:
            continue
        vrs = [] if vr == "NONE" else vr.split(" or ")
        tag = row["tag"].lower()
        entry = (tag, vrs, row["vm"], keyword, row["retired"])
        (repeating if "x" in tag else plain).append(entry)
    plain.sort(key=lambda e: int(e[0], 16))

    def rust(entry, tag):
        _, vrs, vm, keyword, retired = entry
        return f'e({tag}, &[{", ".join(vrs)}], {text(vm)}, {text(keyword)}, {int(retired)}),\n'

    lines = ["use super::{Element, Repeating, e};\nuse crate::vr::Vr::*;\n"]
    lines.append(f"\n/// In order of tag.\npub(crate) static ELEMENTS: [Element; {len(plain)}] = [\n")
    lines += [rust(entry, f"0x{entry[0].upper()}") for entry in plain]
    lines.append("];\n\n/// Repeating groups: tag with zeros for each `x`, and the mask of the digits that are fixed.\n")
    lines.append(f"pub(crate) static REPEATING: [Repeating; {len(repeating)}] = [\n")
    for entry in repeating:
        base = entry[0].replace("x", "0").upper()
        mask = "".join("0" if c == "x" else "F" for c in entry[0])
        lines.append(f"Repeating {{ mask: 0x{mask}, element: {rust(entry, f'0x{base}').rstrip()[:-1]} }},\n")
    lines.append("];\n\n/// Indices into `ELEMENTS`, in byte order of the keyword.\n")
    order = sorted(range(len(plain)), key=lambda i: plain[i][3])
    assert len({e[3] for e in plain + repeating}) == len(plain) + len(repeating), "keywords are unique"
    lines.append(f"pub(crate) static BY_KEYWORD: [u16; {len(order)}] = [\n")
    for start in range(0, len(order), 20):
        lines.append(", ".join(map(str, order[start : start + 20])) + ",\n")
    lines.append("];\n")
    write("elements.rs", "".join(lines))

    names = {}
    lines = ["use crate::tag::Tag;\n\n"]
    for tag, _, _, keyword, _ in plain + repeating:
        name = constant_name(keyword)
        assert name not in names, (name, keyword, names[name])
        names[name] = keyword
        note = ""
        if "x" in tag:
            note = f"/// `{tag.upper().replace('X', 'x')}`, a repeating group: this is its first tag.\n"
        lines.append(f"{note}pub const {name}: Tag = Tag(0x{tag.replace('x', '0').upper()});\n")
    write("tags.rs", "".join(lines))


def uids(directory):
    rows = sorted(load(directory, "uids.json"), key=lambda r: r["uid"])
    rows = [r for r in rows if r["uid"][:1].isdigit()]
    kinds = {
        "SOP Class": "SopClass",
        "Meta SOP Class": "MetaSopClass",
        "Transfer Syntax": "TransferSyntax",
        "Well-known SOP Instance": "WellKnownSopInstance",
        "Well-known frame of reference": "FrameOfReference",
        "Coding Scheme": "CodingScheme",
    }
    lines = ["use super::{UidEntry, UidKind::*};\n\n/// In byte order of the UID.\n"]
    lines.append(f"pub(crate) static UIDS: [UidEntry; {len(rows)}] = [\n")
    for row in rows:
        kind = kinds.get(row["type"], "Other")
        retired = str(row["retired"]).lower()
        name = re.sub(r"\s*\(Retired\)$", "", row["name"])
        lines.append(
            f'UidEntry {{ uid: {text(row["uid"])}, name: {text(name)}, kind: {kind}, retired: {retired} }},\n'
        )
    lines.append("];\n")
    write("uids.rs", "".join(lines))
    return rows


def storage_classes(directory, rows):
    iods = load(directory, "sop_class_iod_map.json")
    entities = {}
    for row in load(directory, "ciod_to_modules.json"):
        entities.setdefault(row["ciodId"], set()).add(row["informationEntity"])
    lines = ["use super::{InformationModel::*, StorageClass};\n\n/// In byte order of the UID.\n"]
    classes = []
    for uid in set(iods) - {row["uid"] for row in rows}:  # PS3.4 can be an edition ahead of PS3.6
        name = iods[uid].replace("-", " ").title() + " Storage"
        rows = rows + [{"uid": uid, "name": name, "type": "SOP Class", "retired": False}]
    for row in sorted(rows, key=lambda r: r["uid"]):
        uid = row["uid"]
        is_class = row["type"] == "SOP Class" and (STORAGE_NAME.search(row["name"]) or uid in iods)
        if not is_class or uid in NOT_STORAGE:
            continue
        iod = iods.get(uid)
        if iod not in entities:  # retired, another industry's (PS3.4 section B.5), or newer than the IOD table
            model = "PatientStudySeries"
        else:
            have = {e.split(" ")[0] for e in entities[iod]}
            model = "PatientStudySeries" if {"Patient", "Study", "Series"} <= have else "NonPatient"
        classes.append((uid, re.sub(r"\s*\(Retired\)$", "", row["name"]), row["retired"], model))
    assert not set(iods) - {c[0] for c in classes} - NOT_STORAGE, "every composite SOP Class of PS3.4 is here"
    lines.append(f"pub(crate) static STORAGE_CLASSES: [StorageClass; {len(classes)}] = [\n")
    for uid, name, retired, model in classes:
        lines.append(
            f"StorageClass {{ uid: {text(uid)}, name: {text(name)}, "
            f"retired: {str(retired).lower()}, model: {model} }},\n"
        )
    lines.append("];\n")
    write("storage_classes.rs", "".join(lines))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    elements(sys.argv[1])
    storage_classes(sys.argv[1], uids(sys.argv[1]))


if __name__ == "__main__":
    main()
