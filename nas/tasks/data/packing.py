"""Files to bytes, unpacked.

In: a file. Out: its bytes, or those that it packs (.gz, .zst), read a little at a time. A packed file that
was cut short is an error, and never the beginning of the data.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

from nas.errors import DataError, MissingExtraError
from nas.tasks.data.places import Source

# Of a file of nothing but zeros, zstd makes 32,768 times as much.
CHUNK: Final = 2**14
BUFFER: Final = 2**20
BROKEN: Final = (OSError, EOFError, zlib.error)
"""What reading a damaged file may raise, besides `DataError`."""


@contextmanager
def opened(source: Source) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked.

    Reading them may raise one of BROKEN.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: unpacking needs a package that is not installed.
    """
    try:
        raw = source.path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {source.path}: {error.strerror}") from error
    with raw:
        if source.packing == ".gz":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield io.BufferedReader(unpacked, BUFFER)
        elif source.packing == ".zst":
            try:
                import zstandard
            except ImportError:
                raise MissingExtraError(f"{source.path.name}, packed by zstd,", "data") from None
            try:
                yield io.BufferedReader(_Zstd(raw, zstandard.ZstdDecompressor()), BUFFER)
            except zstandard.ZstdError as error:
                raise DataError(f"cannot unpack {source.path}: {error}") from None
        else:
            yield raw


class _Zstd(io.RawIOBase):
    """Frames of zstd, one behind the other; the library's own reader takes a file that is cut short for a whole one."""

    def __init__(self, raw: IO[bytes], decompressor: Any) -> None:
        super().__init__()
        self._raw, self._decompressor = raw, decompressor
        self._frame: Any = None
        self._packed, self._unpacked = b"", memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, or a part of it; 0 at the end.

        Raises:
            EOFError: the file ends inside a frame.
        """
        while not self._unpacked:
            self._packed = self._packed or self._raw.read(CHUNK)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the packed file ends before its end-of-frame mark")
                return 0
            frame = self._frame or self._decompressor.decompressobj()
            self._unpacked = memoryview(frame.decompress(self._packed))
            self._packed = frame.unused_data if frame.eof else b""
            self._frame = None if frame.eof else frame
        size = min(len(buffer), len(self._unpacked))
        buffer[:size] = self._unpacked[:size]
        self._unpacked = self._unpacked[size:]
        return size
