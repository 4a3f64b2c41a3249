"""The files of a bundle: written whole or not at all, and read only as they were written.

In: contents by file name. Out: a folder, with the SHA-256 of each file beside them; and from the
folder the same contents, or an error that says what to do.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nas.errors import CheckpointError, did_you_mean
from nas.files import Files

FORMAT_VERSION: Final = 1

WEIGHTS: Final = "model.safetensors"
ARCHITECTURE: Final = "architecture.json"
TOKENIZER: Final = "tokenizer.json"
METRICS: Final = "metrics.json"
CARD: Final = "README.md"
CHECKSUMS: Final = "checksums.json"


def pretty(value: Mapping[str, Any]) -> bytes:
    """Plain values as a JSON file for people.

    Raises:
        ValueError: a number is not finite.
        TypeError: a value is not plain.
    """
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def write_whole(place: Path, contents: Mapping[str, bytes]) -> None:
    """Writes the files and their checksums beside the place, then gives the folder its name.

    Args:
        place: absolute; missing, or an empty folder.
        contents: by file name.

    Raises:
        CheckpointError: the folder cannot be written; nothing is left of it.
    """
    beside = place.with_name(f".{place.name}.{uuid.uuid4().hex}.part")
    try:
        files = Files(str(beside))
        checksums = {name: files.write_bytes(name, data)[0] for name, data in contents.items()}
        files.write_bytes(CHECKSUMS, pretty(checksums))
        if place.exists():
            # Only an empty folder can go this way, so nothing that arrived meanwhile is lost.
            place.rmdir()
        beside.rename(place)
    except OSError as error:
        raise CheckpointError(f"bundle '{place}' cannot be written: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_verified(folder: Path) -> dict[str, bytes]:
    """The files that loading needs, by name, each what was written.

    Raises:
        CheckpointError: the folder or a file is missing or damaged, or of a newer format.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no bundle at '{folder}': {_other_bundles(folder)}")
    _refuse_newer(folder)
    checksums = parsed(folder, CHECKSUMS, _read(folder, CHECKSUMS))
    if not checksums.keys() <= {WEIGHTS, ARCHITECTURE, TOKENIZER, METRICS, CARD}:
        raise _damaged(folder, CHECKSUMS)
    wanted = [ARCHITECTURE, WEIGHTS, METRICS, *([TOKENIZER] if TOKENIZER in checksums else [])]
    contents = {name: _read(folder, name) for name in wanted}
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != checksums.get(name):
            raise _damaged(folder, name)
    return contents


def _refuse_newer(folder: Path) -> None:
    # Before the checksums are looked at: another version may keep them otherwise.
    version = parsed(folder, ARCHITECTURE, _read(folder, ARCHITECTURE)).get("format_version")
    if not isinstance(version, int) or version < 1:
        raise _damaged(folder, ARCHITECTURE)
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"bundle '{folder}' has format {version} and this version of nas reads up to {FORMAT_VERSION}: "
            "pip install --upgrade context-nas"
        )


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"bundle '{folder}' lacks {name}: copy the whole folder again, or repeat nas export"
        ) from None
    except OSError as error:
        raise CheckpointError(f"bundle '{folder}': {name} cannot be read: {error}") from error


def parsed(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: there is none.
    """
    try:
        found = json.loads(data)
    except ValueError:
        raise _damaged(folder, name) from None
    if not isinstance(found, dict):
        raise _damaged(folder, name)
    return found


def _damaged(folder: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"bundle '{folder}': {name} is damaged, it is not what was written: "
        "copy the whole folder again, or repeat nas export"
    )


def _other_bundles(folder: Path) -> str:
    others = [path.parent.name for path in folder.resolve().parent.glob(f"*/{CHECKSUMS}")]
    return did_you_mean(folder.resolve().name, others) if others else f"nas export STUDY --trial N --to {folder}"
