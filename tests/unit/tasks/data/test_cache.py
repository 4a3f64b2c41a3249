"""What is made of data is made once, and a damaged cache is made again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import DataError
from nas.tasks.data import CacheReader, CacheWriter, cache_home, cached

SEQUENCES = st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=20), max_size=20)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(writer: CacheWriter) -> None:
    row = writer.ragged("tokens", np.uint16)
    row.append(np.array([1, 2, 3]))
    row.append(np.array([], dtype=np.int64))
    row.append(np.array([4]))
    row.extend_last(np.array([5, 6]))
    writer.array("counts", np.arange(5))
    writer.facts({"made": os.getpid()})


def check(reader: CacheReader) -> None:
    row = reader.ragged("tokens")
    assert [found.tolist() for found in row] == [[1, 2, 3], [], [4, 5, 6]]
    assert row.flat.dtype == np.uint16 and row.lengths.tolist() == [3, 0, 3]
    assert reader.array("counts").tolist() == [0, 1, 2, 3, 4]


def test_what_is_written_is_read_and_written_once() -> None:
    calls = []

    def once(writer: CacheWriter) -> None:
        calls.append(1)
        write(writer)

    check(cached("ab" * 32, once))
    check(cached("ab" * 32, once))
    assert len(calls) == 1


@given(SEQUENCES)
@settings(deadline=None, max_examples=30)
def test_any_sequences_come_back(sequences: list[list[int]]) -> None:
    def fill(writer: CacheWriter) -> None:
        row = writer.ragged("row", np.uint16)
        for sequence in sequences:
            row.append(np.array(sequence, dtype=np.uint16))

    key = f"{abs(hash(str(sequences))):064x}"
    found = cached(key, fill).ragged("row")
    assert [found[place].tolist() for place in range(len(found))] == sequences


@pytest.mark.parametrize("damage", ["cut", "gone", "facts", "empty"])
def test_a_damaged_cache_is_made_again(home: Path, damage: str) -> None:
    key = "cd" * 32
    cached(key, write)
    file = home / key / ("facts.json" if damage == "facts" else "tokens.flat")
    if damage == "gone":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.write_bytes(file.read_bytes()[:-1])
    check(cached(key, write))


@pytest.mark.parametrize("name", ["facts.json", "tokens.offsets.npy", "counts.npy"])
def test_a_bit_that_turned_is_noticed_wherever_it_is(home: Path, name: str) -> None:
    key = "de" * 32
    cached(key, write)
    whole = (home / key / name).read_bytes()
    for place in range(0, len(whole), 5):
        (home / key / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        check(cached(key, write))


def test_a_writer_that_is_killed_leaves_nothing_that_is_read(home: Path) -> None:
    code = (
        "import os, numpy as np\n"
        "from nas.tasks.data import cached\n"
        "def write(writer):\n"
        "    writer.ragged('tokens', np.uint16).append(np.arange(100000))\n"
        "    os.kill(os.getpid(), 9)\n"
        f"cached('{'ef' * 32}', write)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len([path for path in home.iterdir() if path.is_dir()]) == 1
    check(cached("ef" * 32, write))
    assert [path.name for path in home.iterdir() if path.is_dir()] == ["ef" * 32]


def test_a_file_that_may_not_grow_is_said_and_leaves_nothing(home: Path) -> None:
    code = (
        "import resource, numpy as np\n"
        "from nas.errors import DataError\n"
        "from nas.tasks.data import cached\n"
        "def write(writer):\n"
        "    writer.ragged('tokens', np.uint16).append(np.arange(60000))\n"
        "    writer.array('counts', np.arange(5))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        f"try: cached('{'ad' * 32}', write)\n"
        "except DataError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "cannot write the cache of data" in done.stdout and "File too large" in done.stdout
    assert not [path for path in home.iterdir() if path.is_dir()]
    check(cached("ad" * 32, write))


def test_processes_that_come_at_once_write_once_and_read_the_same(home: Path, tmp_path: Path) -> None:
    code = (
        "import os, time, numpy as np\n"
        "from nas.tasks.data import cached\n"
        "def write(writer):\n"
        f"    open({str(tmp_path / 'calls')!r}, 'a').write('x')\n"
        "    row = writer.ragged('tokens', np.uint16)\n"
        "    time.sleep(0.3)\n"
        "    row.append(np.arange(60000))\n"
        "children = [os.fork() for _ in range(2)]\n"
        f"found = int(cached('{'be' * 32}', write).ragged('tokens').flat.sum(dtype=np.int64))\n"
        "os.write(1, f'{found} '.encode())\n"
        "while True:\n"
        "    try: os.wait()\n"
        "    except ChildProcessError: break\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    # Two forks make four of one.
    assert done.stdout.split() == [str(sum(range(60000)))] * 4
    assert (tmp_path / "calls").read_text() == "x"


def test_several_at_once_write_once() -> None:
    calls, readers = [], []

    def slow(writer: CacheWriter) -> None:
        calls.append(1)
        write(writer)

    threads = [threading.Thread(target=lambda: readers.append(cached("12" * 32, slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(readers) == 4
    for reader in readers:
        check(reader)


def test_a_full_disk_is_said_and_leaves_nothing(home: Path) -> None:
    def full(writer: CacheWriter) -> None:
        writer.ragged("tokens", np.uint16).append(np.arange(10))
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left on device; NAS_CACHE names another folder"):
        cached("34" * 32, full)
    assert not [path for path in home.iterdir() if path.is_dir()]
    check(cached("34" * 32, write))


def test_a_home_that_cannot_be_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be written: the cache of data is in"):
        assert cache_home().is_dir()
