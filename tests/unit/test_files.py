from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from nas.errors import CheckpointError
from nas.files import Files
from nas.records import CheckpointReference

DATA = bytes(range(256)) * 40


@pytest.fixture(params=["folder", "file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        url = f"memory://{uuid.uuid4().hex}/files"
        yield url
        fsspec.filesystem("memory").rm(url, recursive=True)
    else:
        yield str(tmp_path / "files") if request.param == "folder" else f"file://{tmp_path}/files"


def written(files: Files, path: str = "study/3/100.safetensors", data: bytes = DATA) -> CheckpointReference:
    sha256, size = files.write_bytes(path, data)
    return CheckpointReference(path=path, sha256=sha256, bytes=size, step=100)


def test_what_is_written_is_read(root: str) -> None:
    files = Files(root)
    assert not files.exists("study/3/100.safetensors")
    reference = written(files)
    assert (reference.sha256, reference.bytes) == (hashlib.sha256(DATA).hexdigest(), len(DATA))
    assert files.exists("study/3/100.safetensors")
    assert Files(root).read_bytes(reference) == DATA


def test_writing_again_replaces(root: str) -> None:
    files = Files(root)
    old = written(files)
    new = written(files, data=b"other")
    assert files.read_bytes(new) == b"other"
    with pytest.raises(CheckpointError, match="damaged"):
        files.read_bytes(old)


def test_a_missing_file_is_named(root: str) -> None:
    reference = CheckpointReference(path="study/9.safetensors", sha256="0" * 64, bytes=1, step=1)
    files = Files(root)
    written(files)
    with pytest.raises(CheckpointError, match=r"files/study/9\.safetensors' is missing.*--files"):
        files.read_bytes(reference)


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/etc/outside", "", "."])
def test_a_path_stays_inside(root: str, path: str) -> None:
    files = Files(root)
    written(files)
    with pytest.raises(CheckpointError, match="stays inside the files folder"):
        files.write_bytes(path, b"x")
    with pytest.raises(CheckpointError, match="stays inside the files folder"):
        files.read_bytes(CheckpointReference(path=path, sha256="", bytes=1, step=1))


def test_a_truncated_file_is_damaged_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    reference = written(files)
    os.truncate(tmp_path / reference.path, 1000)
    with pytest.raises(
        CheckpointError, match=r"100\.safetensors' is damaged \(1000 bytes, 10240 .*: delete it to train"
    ):
        files.read_bytes(reference)


def test_a_flipped_bit_is_damage(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    reference = written(files)
    (tmp_path / reference.path).write_bytes(b"\x01" + DATA[1:])
    with pytest.raises(CheckpointError, match="damaged"):
        files.read_bytes(reference)


def test_a_write_that_dies_leaves_the_earlier_file_and_no_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(str(tmp_path))
    reference = written(files)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left"):
        files.write_bytes(reference.path, b"new")
    assert files.read_bytes(reference) == DATA
    assert [entry.name for entry in (tmp_path / "study/3").iterdir()] == ["100.safetensors"]


def test_a_folder_is_local_and_a_bucket_is_not(tmp_path: Path) -> None:
    assert Files(str(tmp_path)).local
    assert Files(f"file://{tmp_path}").local
    assert not Files("memory://x").local


def test_an_unknown_protocol_is_answered_with_the_nearest() -> None:
    with pytest.raises(CheckpointError, match=r"unknown protocol of 'memry://x': did you mean 'memory'\?"):
        Files("memry://x")
