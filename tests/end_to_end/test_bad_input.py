"""Bad input: one or two lines on stderr, exit status 2, the store untouched."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests_support import is_one_or_two_lines, write_study

from nas.cli import main

Prepare = Callable[[Path], None]


def edited(before: str, after: str, name: str = "study.yaml") -> Prepare:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert before in text
        (folder / name).write_text(text.replace(before, after))

    return edit


def nothing(folder: Path) -> None:
    """As it is."""


def empty_corpus(folder: Path) -> None:
    (folder / "corpus.txt").write_text("")


def full_folder(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "precious.txt").write_text("mine")


def newer_store(folder: Path) -> None:
    with sqlite3.connect(folder / "nas.db") as database:
        database.execute("update nas_alembic_version set version_num = '9999_future'")
    database.close()


def damaged_checkpoint(folder: Path) -> None:
    for path in (folder / "nas_files").rglob("step-*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 0xFF
        path.write_bytes(bytes(data))


FRESH = [
    ("unknown key", edited("trials: 5", "trails: 5"), ["run", "study.yaml"], ["trails", "trials", "study.yaml:6"]),
    ("unknown key of a space", edited("heads:", "haeds:", "space.yaml"),
     ["check", "space.yaml"], ["haeds", "heads", "space.yaml:8"]),
    ("missing file", nothing, ["run", "studdy.yaml"], ["studdy.yaml", "did you mean 'study.yaml'"]),
    ("missing space", edited("space: space.yaml", "space: spice.yaml"), ["run", "study.yaml"], ["spice", "space.yaml"]),
    ("missing corpus", edited("corpus.txt", "corpse.txt"), ["run", "study.yaml"], ["corpse.txt", "corpus.txt"]),
    ("empty corpus", empty_corpus, ["run", "study.yaml"], ["corpus.txt"]),
    ("window of 0", edited("[8, 16]", "[0, 16]", "space.yaml"), ["run", "study.yaml"], ["window", "at least 1", "0"]),
    ("no trials", nothing, ["run", "study.yaml", "--trials", "0"], ["trials", "at least 1"]),
    ("unknown sampler", edited("name: nsga2", "name: nsga3"), ["run", "study.yaml"], ["nsga3", "nsga2"]),
    ("unknown objective", edited("serve_bytes]", "serve_byte]"), ["run", "study.yaml"], ["serve_byte", "serve_bytes"]),
    ("contrary direction", edited("serve_bytes]", "{name: serve_bytes, direction: maximize}]"),
     ["run", "study.yaml"], ["serve_bytes", "minimize"]),
    ("metric of another task", edited("serve_bytes]", "bleu]"), ["run", "study.yaml"], ["bleu", "bits_per_byte"]),
    ("stop below a rung", edited("trials: 5", "stop: {tokens: 100}"), ["check", "study.yaml"],
     ["study.yaml:6", "stop.tokens", "2,560"]),
    ("nothing that ends it", edited("trials: 5", "trials: null"), ["check", "study.yaml"], ["trials", "stop"]),
    ("unknown stop", edited("trials: 5", "stop: {token: 100}"), ["check", "study.yaml"], ["token", "tokens"]),
    ("no number of tokens", nothing, ["run", "study.yaml", "--tokens", "5x"], ["--tokens", "5x"]),
    ("no time limit", nothing, ["run", "study.yaml", "--set", "time_limit=0s"], ["time_limit", "above 0"]),
    ("unknown rule", edited("training:", "training:\n  learning_rate_rule: {name: mup, base_width: 8}", "space.yaml"),
     ["check", "study.yaml"], ["mup", "width"]),
    ("no time", nothing, ["run", "study.yaml", "--time", "5x"], ["5x", "unit"]),
    ("bad setting", nothing, ["run", "study.yaml", "--set", "budget.rungs"], ["key=value"]),
    ("too small a budget", edited("5_120", "300"), ["run", "study.yaml"], ["budget", "rungs"]),
    ("unknown study", nothing, ["front", "tiny"], ["nas.db"]),
    ("bad precision", nothing, ["run", "study.yaml", "--set", "trainer.precision=bf17"], ["trainer", "bf17"]),
    ("bad logger", nothing, ["run", "study.yaml", "--set", "trainer.logger=nonsense"], ["logger", "nonsense"]),
    ("bad callbacks", nothing, ["run", "study.yaml", "--set", "trainer.callbacks=5"], ["trainer"]),
    ("fp16", nothing, ["run", "study.yaml", "--set", "trainer.precision=16-mixed"], ["bf16-mixed"]),
    ("no scheduler", nothing, ["run", "study.yaml", "--dask", "nonsense"], ["Dask", "nonsense"]),
    ("bad files", nothing, ["run", "study.yaml", "--files", "foo://x"], ["foo"]),
    ("no sampler", nothing, ["run", "study.yaml", "--set", "sampler=os:getcwd"], ["os:getcwd", "SamplerAdapter"]),
    ("stray option", nothing, ["run", "study.yaml", "--set", "sampler={name: tpe, population: 4}"],
     ["population", "nsga2"]),
    ("a limit that excludes all", nothing,
     ["run", "study.yaml", "--set", "objectives=[bits_per_byte, {name: serve_bytes, limit: 1 KiB}]"], ["feasible"]),
    ("many rungs", nothing, ["check", "many.yaml"], ["12 rungs"]),
    ("no such bundle", nothing, ["generate", "out", "hello"], ["out"]),
    ("nothing feasible", edited("training:", "constraints: [serve_bytes <= 1 KiB]\ntraining:", "space.yaml"),
     ["run", "study.yaml"], ["serve_bytes <= 1 KiB", "feasible"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("prepare", "words", "expected"), [case[1:] for case in FRESH], ids=[case[0] for case in FRESH]
)
def test_bad_input_makes_no_store(
    folder: Path, capsys: pytest.CaptureFixture[str], prepare: Prepare, words: list[str], expected: list[str]
) -> None:
    prepare(folder)
    assert main(words) == 2
    shown = capsys.readouterr()
    assert is_one_or_two_lines(shown.err, expected), shown.err
    assert not shown.out
    assert not list(folder.glob("nas.db*"))


RUN = ["run", "study.yaml", "--quiet"]
STORED = [
    ("edited study", edited("seed: 0", "seed: 1"), RUN, ["seed", "--name"]),
    ("edited space", edited("[16, 32]", "[16, 48]", "space.yaml"), RUN, ["space.width", "--name"]),
    ("edited corpus", edited("7 times 7", "7 by 7", "corpus.txt"), [*RUN, "--trials", "9"], ["data", "version"]),
    ("unknown study", nothing, ["front", "tinny"], ["tinny", "did you mean 'tiny'"]),
    ("unknown trial", nothing, ["show", "tiny", "99"], ["99"]),
    ("newer store", newer_store, [*RUN, "--trials", "9"], ["newer", "9999_future"]),
    ("full folder", full_folder, ["export", "tiny", "--trial", "0", "--to", "out"], ["out", "new or empty", "out-2"]),
    ("full folder for a page", full_folder, ["report", "tiny", "--to", "out"], ["out"]),
    ("damaged checkpoint", damaged_checkpoint,
     ["export", "tiny", "--trial", "0", "--to", "new"], ["damaged", "SHA-256"]),
    ("unknown format", nothing,
     ["export", "tiny", "--trial", "0", "--to", "new", "--format", "onx"], ["onx", "bundle"]),
    ("limit that none meets", nothing,
     ["export", "tiny", "--best", "bits_per_byte", "--under", "serve_bytes=1KiB", "--to", "new"], ["nearest"]),
    ("limit without unit", nothing,
     ["export", "tiny", "--best", "bits_per_byte", "--under", "serve_bytes=1MX", "--to", "new"], ["MX"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def finished_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder)
    store = f"sqlite:///{folder}/nas.db"
    assert main(["run", str(folder / "study.yaml"), "--quiet", "--trials", "2", "--store", store]) == 0
    return folder


@pytest.mark.parametrize(
    ("prepare", "words", "expected"), [case[1:] for case in STORED], ids=[case[0] for case in STORED]
)
def test_bad_input_leaves_the_store_untouched(
    finished_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    prepare: Prepare,
    words: list[str],
    expected: list[str],
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_folder, folder)
    monkeypatch.chdir(folder)
    _relocated(folder, finished_folder)
    prepare(folder)
    before = dump(folder / "nas.db")
    capsys.readouterr()
    assert main(words) == 2
    shown = capsys.readouterr()
    assert is_one_or_two_lines(shown.err, expected), shown.err
    assert dump(folder / "nas.db") == before
    assert not (folder / "new").exists()


def _relocated(folder: Path, original: Path) -> None:
    """The store remembers the corpus by its absolute path; the copy's must be its own."""
    with sqlite3.connect(folder / "nas.db") as database:
        (resolved,) = database.execute("select resolved from nas_studies").fetchone()
        database.execute("update nas_studies set resolved = ?", (resolved.replace(str(original), str(folder)),))
    database.close()


def dump(path: Path) -> str:
    with sqlite3.connect(path) as database:
        text = "\n".join(database.iterdump())
    database.close()
    return hashlib.sha256(text.encode()).hexdigest()
