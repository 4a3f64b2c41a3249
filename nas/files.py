"""Checkpoint files, in a folder or behind an fsspec URL.

In: bytes and a relative path. Out: their SHA-256; later the same bytes, or an error. A file is
either there as a whole or not at all: locally it is written beside its place, synced and renamed,
so a worker may die at any moment.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from nas.errors import CheckpointError, InputError, did_you_mean
from nas.records import CheckpointReference


class Files:
    """A folder of files that are verified as they are read.

    Args:
        root: a folder ("nas_files") or an fsspec URL ("s3://bucket/folder"); made when first written to.

    Raises:
        CheckpointError: fsspec knows no such protocol, or lacks the package for it.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._system: Any
        self._system, self._base = _resolve(root)
        self.local = isinstance(self._system, LocalFileSystem)

    def write_bytes(self, path: str, data: bytes) -> tuple[str, int]:
        """Writes a file, in place of an earlier one of that path.

        Args:
            path: relative to the root, with forward slashes.
            data: its content.

        Returns:
            SHA-256 in hexadecimal, and the number of bytes.

        Raises:
            CheckpointError: the file cannot be written.
        """
        place = self._place(path)
        try:
            if self.local:
                _write_atomically(Path(place), data)
            else:
                self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
                self._system.pipe_file(place, data)
        except OSError as error:
            raise CheckpointError(f"checkpoint '{self._name(path)}' cannot be written: {error}") from error
        return hashlib.sha256(data).hexdigest(), len(data)

    def read_bytes(self, reference: CheckpointReference) -> bytes:
        """The content of a file, which is what was written.

        Raises:
            CheckpointError: it is missing, cannot be read, or is not what was written.
        """
        name = self._name(reference.path)
        try:
            data: bytes = self._system.cat_file(self._place(reference.path))
        except FileNotFoundError:
            raise CheckpointError(f"checkpoint '{name}' is missing: is '{self.root}' the right --files?") from None
        except OSError as error:
            raise CheckpointError(f"checkpoint '{name}' cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != reference.sha256:
            raise CheckpointError(
                f"checkpoint '{name}' is damaged ({len(data)} bytes, {reference.bytes} were written; SHA-256 differs): "
                "delete it to train this candidate again from its previous rung"
            )
        return data

    def exists(self, path: str) -> bool:
        """Whether there is a file at this path."""
        return bool(self._system.isfile(self._place(path)))

    def _place(self, path: str) -> str:
        parts = PurePosixPath(path)
        if parts.is_absolute() or not parts.parts or ".." in parts.parts:
            raise CheckpointError(
                f"a checkpoint's path is relative and stays inside the files folder: '{path}' does not"
            )
        return f"{self._base.rstrip('/')}/{parts}"

    def _name(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"


def refuse_taken(folder: Path) -> None:
    """Refuses a place that holds something.

    Raises:
        InputError: with the nearest name that is free.
    """
    if not _is_taken(folder):
        return
    number = 2
    name = folder.resolve().name
    while os.path.lexists(free := folder.with_name(f"{name}-{number}") if folder.name else Path(f"{name}-{number}")):
        number += 1
    raise InputError(f"'{folder}' must be a new or empty folder and is not; the nearest free name is '{free}'")


def _is_taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _resolve(root: str) -> tuple[Any, str]:
    if "://" not in root:
        return LocalFileSystem(), str(Path(root).expanduser().resolve())
    try:
        system, base = url_to_fs(root)
    except ImportError as error:
        raise CheckpointError(f"files at '{root}' need an optional package: {error}") from error
    except ValueError as error:
        protocol = root.partition("://")[0]
        known = fsspec.available_protocols()
        if protocol in known:
            raise CheckpointError(f"files at '{root}': {error}") from error
        raise CheckpointError(f"unknown protocol of '{root}': {did_you_mean(protocol, known)}") from None
    return system, str(base)


def _write_atomically(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    # The new name survives a power cut only once the folder is synced; Windows opens no folders.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
