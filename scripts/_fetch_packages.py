"""Files of ordinary packages: downloaded once by the package manager that they are for, checked, and read."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PIP = ("-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--only-binary", ":all:")
# So many packages that cannot be had are named with their reasons; of more, the number.
NAMED = 5


class FetchError(Exception):
    """A package cannot be had or is not what it was."""


@dataclass(frozen=True)
class Package:
    """A file to download.

    Attributes:
        kind: "npm", "debian" or "pypi".
        name: of the package.
        version: pinned.
        sha256: of the file.
        licence: of what is read of it, where the packages of a set differ in it.
    """

    kind: str
    name: str
    version: str
    sha256: str
    licence: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def command(self) -> list[str]:
        """What downloads it into the working directory.

        Raises:
            FetchError: a tool that is not installed is needed.
        """
        if self.kind == "pypi":
            if importlib.util.find_spec("pip") is None:
                raise FetchError(f"{self} needs pip, which {sys.executable} lacks: {sys.executable} -m ensurepip")
            return [sys.executable, *PIP, f"{self.name}=={self.version}"]
        if self.kind == "npm":
            command = ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        else:
            command = ["apt-get", "download", f"{self.name}={self.version}"]
        _needs(command[0], str(self))
        return command


def download_all(packages: Iterable[Package], folder: Path) -> list[Path]:
    """The files of packages, in their order; one that cannot be had does not keep the others from coming.

    Raises:
        FetchError: names every package that cannot be had.
    """
    files, errors = [], []
    for package in packages:
        try:
            files.append(download(package, folder))
        except FetchError as error:
            errors.append(str(error))
    if errors:
        more = f"; and {len(errors) - NAMED} more packages" if len(errors) > NAMED else ""
        raise FetchError("; ".join(errors[:NAMED]) + more)
    return files


def download(package: Package, folder: Path) -> Path:
    """The file of a package, downloaded unless it is there, and checked.

    Raises:
        FetchError: the tool is missing, the download failed, or the file is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and _digest_of(path) == package.sha256:
            return path
    command = package.command
    # A folder of its own: what a kill leaves of a file is never taken for a file.
    beside = folder / f".{package.sha256[:16]}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        run = subprocess.run(command, cwd=beside, capture_output=True, text=True, check=False)
        found = [path for path in beside.iterdir() if path.is_file()]
        if run.returncode or len(found) != 1:
            why = (run.stderr or run.stdout).strip().splitlines()[-1:] or ["no reason given"]
            hint = "; apt-get update may help" if package.kind == "debian" else ""
            raise FetchError(f"'{' '.join(command)}' failed: {why[0]}{hint}")
        digest = _digest_of(found[0])
        if digest != package.sha256:
            raise FetchError(f"{package} has SHA-256 {digest}, not {package.sha256}")
        return found[0].rename(folder / found[0].name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def unpacked_debian(path: Path) -> Path:
    """The files of a Debian package."""
    folder = path.with_suffix("")
    if not folder.is_dir():
        beside = folder.with_suffix(".part")
        shutil.rmtree(beside, ignore_errors=True)
        _needs("dpkg-deb", path.name)
        _run(["dpkg-deb", "-x", str(path), str(beside)])
        beside.rename(folder)
    return folder


def files_of_debian(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of a Debian package whose names match a pattern; links are none."""
    _needs("dpkg-deb", path.name)
    with tarfile.open(fileobj=io.BytesIO(_run(["dpkg-deb", "--fsys-tarfile", str(path)]))) as archive:
        for member in sorted(archive, key=lambda member: member.name):
            if member.isreg() and re.fullmatch(pattern, member.name) and (file := archive.extractfile(member)):
                yield member.name, file.read()


def _needs(tool: str, what: str) -> None:
    if shutil.which(tool) is None:
        raise FetchError(f"{what} needs the command {tool}, which is not installed")


def _run(command: list[str]) -> bytes:
    run = subprocess.run(command, capture_output=True, check=False)
    if run.returncode:
        why = run.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
        raise FetchError(f"'{' '.join(command)}' failed: {why[0]}")
    return run.stdout


def _digest_of(path: Path) -> str:
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
