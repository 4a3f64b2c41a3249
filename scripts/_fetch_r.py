"""Data that R packages bring, read without R.

In: the folder of an installed package's data. Out: a data frame, as rows.

    Rdata.rdx    an index: name -> (offset, length) in Rdata.rdb
    Rdata.rdb    of each object: its size (4 bytes, big endian), how it is packed, and R's own serialisation

Source: R Internals, "Lazy loading"; lazyLoadDBfetch in R's src/main/serialize.c. What is unpacked is read by the
library rdata.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import warnings
import zlib
from pathlib import Path
from typing import Any

from _fetch_packages import FetchError


def data_frame(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a data frame.

    Raises:
        FetchError: the library rdata is not installed.
    """
    variables = _object(gzip.decompress((folder / "Rdata.rdx").read_bytes()))["variables"]
    offset, length = map(int, variables[name])
    with (folder / "Rdata.rdb").open("rb") as file:
        file.seek(offset)
        packed = file.read(length)
    return list(_object(_unpacked(packed[4:])).to_dict("records"))


def _unpacked(packed: bytes) -> bytes:
    if packed[:1] == b"Z":
        return lzma.decompress(packed[1:], format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}])
    return bz2.decompress(packed[1:]) if packed[:1] == b"2" else zlib.decompress(packed)


def _object(serialised: bytes) -> Any:
    try:
        import rdata
    except ImportError as error:
        raise FetchError("reading R's files needs an optional package: pip install 'context-nas[rdata]'") from error
    with warnings.catch_warnings():
        # It says that it takes what comes without a name for RDS and a tibble for a data frame, as they are.
        warnings.simplefilter("ignore", UserWarning)
        return rdata.conversion.convert(rdata.parser.parse_data(serialised))
