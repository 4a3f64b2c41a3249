"""Bad data, as a stranger would bring it: one line that names file, row and rule, or a counted warning."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests_support import is_one_or_two_lines

from nas.cli import main

Files = dict[str, bytes | str]
LAYER = {"mixer": "full", "heads": 2, "mlp_ratio": 2}
SPACE = {"name": "tiny", "family": "decoder", "width": 16, "max_context": 32, "depth": 1, "layers": LAYER}
SCORES = {
    "classification": "accuracy",
    "language_modeling": "bits_per_byte",
    "question_answering": "exact_match",
    "translation": "chrf",
}
ROWS = [{"text": f"text {n} {'ab'[n % 2] * 5}", "label": "ab"[n % 2], "n": n} for n in range(200)]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[dict[str, Any]], mark: str = ",") -> bytes:
    cells = [[*rows[0]], *([str(value) for value in row.values()] for row in rows)]
    return "".join(mark.join(row) + "\n" for row in cells).encode()


def changed(**fields: Callable[[int], Any]) -> list[dict[str, Any]]:
    """The rows with some fields made anew from their numbers."""
    return [{**row, **{name: made(n) for name, made in fields.items()}} for n, row in enumerate(ROWS)]


def labelled(data: Any = "d.jsonl", **options: Any) -> dict[str, Any]:
    return {"name": "classification", "data": data, "evaluation_examples": 20, **options}


def text(corpus: Any = "c.txt", **options: Any) -> dict[str, Any]:
    return {"name": "language_modeling", "corpus": corpus, "evaluation_bytes": 256, **options}


def paired(task: str, **options: Any) -> dict[str, Any]:
    return {"name": task, "data": "d.jsonl", "evaluation_examples": 4, **options}


def write_study(folder: Path, files: Files, task: dict[str, Any], **space: Any) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    words = {
        "name": "bad",
        "space": {**SPACE, **space},
        "task": task,
        "objectives": [SCORES[task["name"]], "serve_bytes"],
        "budget": {"tokens": 512, "rungs": 1, "tokens_per_step": 512},
        "trials": 1,
        "sampler": "random",
    }
    (folder / "study.yaml").write_text(json.dumps(words))


GOOD, TRAIN, SOME = lines(ROWS), lines(ROWS[:100]), lines(ROWS[100:150])
PARTS = {"by": "column", "column": "part", "train": "x", "validation": "y", "test": "z"}
PACKED = gzip.compress(GOOD)

# Name, files, task, and what must be said.
REFUSED: list[tuple[str, Files, dict[str, Any], list[str]]] = [
    ("no such column", {"d.jsonl": lines([{"text": "a", "lable": "b"}])}, labelled(),
     ["d.jsonl, row 1", "no column 'label'", "did you mean 'lable'"]),
    ("no such mapped column", {"d.csv": table(ROWS)}, labelled("d.csv", columns={"label": "lbl"}),
     ["d.csv, row 2", "no column 'lbl'", "did you mean 'label'"]),
    ("files of different columns", {"a.jsonl": GOOD, "b.jsonl": lines([{"body": "x", "label": "a"}])},
     labelled(["a.jsonl", "b.jsonl"]), ["b.jsonl, row 1", "no column 'text'", "valid: body, label"]),
    ("a label of the test part alone",
     {"train.jsonl": TRAIN, "dev.jsonl": SOME, "test.jsonl": SOME + lines([{"text": "q", "label": "c"}])},
     labelled("*.jsonl"), ["test.jsonl, row 51", "label 'c' of the test part", "training part", "valid: a, b"]),
    ("a single class", {"d.jsonl": lines(changed(label=lambda n: "a"))}, labelled(),
     ["at least two labels", "d.jsonl", "only 'a'"]),
    ("no label at all", {"d.jsonl": lines(changed(labels=lambda n: []))}, labelled(multi_label=True),
     ["at least one label", "d.jsonl", "none"]),
    ("a label that is a list", {"d.jsonl": lines(changed(label=lambda n: ["a"]))}, labelled(),
     ["d.jsonl, row 1", "'label' must be", "a name or a whole number", "['a']"]),
    ("a label that is a fraction", {"d.jsonl": lines(changed(label=lambda n: n / 2))}, labelled(),
     ["d.jsonl, row 2", "'label' must be", "0.5"]),
    ("labels that are a number", {"d.jsonl": lines(changed(labels=lambda n: 3))}, labelled(multi_label=True),
     ["d.jsonl, row 1", "'labels' must be a list", "3"]),
    ("labels in Python's quotes", {"d.jsonl": lines(changed(labels=lambda n: "['a']"))}, labelled(multi_label=True),
     ["d.jsonl, row 1", "JSON list", "['a']"]),
    ("an empty table", {"d.jsonl": ""}, labelled(), ["must have rows", "d.jsonl is empty"]),
    ("a header alone", {"d.csv": "text,label\n"}, labelled("d.csv"), ["must have rows", "d.csv is empty"]),
    ("an empty part", {"train.jsonl": TRAIN, "dev.jsonl": "", "test.jsonl": SOME}, labelled("*.jsonl"),
     ["must have rows", "dev.jsonl is empty"]),
    ("an empty text", {"c.txt": ""}, text(), ["must hold text", "c.txt is empty"]),
    ("a binary text", {"c.txt": b"x" * 3000 + b"\0" + b"x" * 300}, text(), ["not binary", "c.txt", "offset 3000"]),
    ("a binary table", {"d.jsonl": bytes(range(256))}, labelled(), ["d.jsonl, line", "not"]),
    ("a binary field", {"d.csv": b"text,label\nx,a\nx\0,b\n"}, labelled("d.csv"), ["d.csv, line 3", "not binary"]),
    ("broken UTF-8 in a text", {"c.txt": b"word " * 800 + b"\xe9"}, text(), ["UTF-8", "c.txt", "0xe9", "offset 4000"]),
    ("broken UTF-8 in JSON Lines", {"d.jsonl": GOOD + b'{"text": "\xff"}\n'}, labelled(),
     ["d.jsonl, line 201", "not UTF-8 at byte 10"]),
    ("broken UTF-8 in CSV", {"d.csv": table(ROWS) + "naïve,a,3\n".encode("latin-1")}, labelled("d.csv"),
     ["d.csv, line 202", "not UTF-8 at byte 2"]),
    ("UTF-16", {"d.jsonl": GOOD.decode().encode("utf-16")}, labelled(), ["d.jsonl, line 1", "UTF-16", "as UTF-8"]),
    ("half a character", {"d.jsonl": b'{"text": "\\ud800", "label": "a"}\n' + GOOD}, labelled(),
     ["d.jsonl, line 1", "valid Unicode", "half a character"]),
    ("a broken line in the middle", {"d.jsonl": TRAIN + b'{"text": "x", "la\n' + SOME}, labelled(),
     ["d.jsonl, line 101", "not JSON", "column"]),
    ("a file cut short", {"d.jsonl": GOOD[:-10]}, labelled(), ["d.jsonl, line 200", "not JSON"]),
    ("a line that is a list", {"d.jsonl": "[1]\n"}, labelled(), ["d.jsonl, line 1", "must be a JSON object", "list"]),
    ("JSON too deep", {"d.jsonl": b'{"text": ' + b"[" * 90_000 + b"]" * 90_000 + b"}\n"}, labelled(),
     ["d.jsonl, line 1", "not JSON that can be read"]),
    ("a number too long", {"d.jsonl": b'{"text": "x", "label": ' + b"9" * 5000 + b"}\n"}, labelled(),
     ["d.jsonl, line 1", "not JSON that can be read"]),
    ("JSON Lines called JSON", {"d.json": GOOD}, labelled("d.json"), ["d.json", "not JSON", "line 2", ".jsonl"]),
    ("JSON without a list", {"d.json": '{"data": []}'}, labelled("d.json"), ["d.json", "list of objects", "dict"]),
    ("a short row", {"d.csv": table(ROWS) + b"a,b\n"}, labelled("d.csv"), ["d.csv, line 202", "2 fields", "has 3"]),
    ("a long row", {"d.csv": table(ROWS) + b"a,b,c,d\n"}, labelled("d.csv"), ["d.csv, line 202", "4 fields", "has 3"]),
    ("a quote left open", {"d.csv": table(ROWS) + b'"a,b,c\n'}, labelled("d.csv"), ["d.csv, line 202", "end of data"]),
    ("two columns of one name", {"d.csv": "text,text\na,b\n"}, labelled("d.csv"), ["d.csv, line 1", "two columns"]),
    ("semicolons", {"d.csv": table(ROWS, ";")}, labelled("d.csv"), ["d.csv, row 2", "text;label", "by commas"]),
    ("tabs in .csv", {"d.csv": table(ROWS, "\t")}, labelled("d.csv"), ["d.csv, row 2", "by tabs"]),
    ("gzip cut short", {"d.jsonl.gz": PACKED[:300]}, labelled("d.jsonl.gz"), ["d.jsonl.gz", "ended before"]),
    ("gzip damaged", {"d.jsonl.gz": PACKED[:200] + b"\xff" * 50 + PACKED[250:]}, labelled("d.jsonl.gz"),
     ["cannot read", "d.jsonl.gz"]),
    ("gzip with a wrong sum", {"d.jsonl.gz": PACKED[:-8] + bytes(8)}, labelled("d.jsonl.gz"),
     ["cannot read", "d.jsonl.gz", "CRC"]),
    ("no gzip", {"d.jsonl.gz": GOOD}, labelled("d.jsonl.gz"), ["cannot read", "d.jsonl.gz", "Not a gzipped file"]),
    ("a text of gzip cut short", {"c.txt.gz": PACKED[:300]}, text("c.txt.gz"), ["cannot read", "c.txt.gz"]),
    ("no record of a part", {"d.jsonl": lines(changed(part=lambda n: "xz"[n % 2]))}, labelled(split=PARTS),
     ["the validation part", "d.jsonl", "no record has its value"]),
    ("no column of a split", {"d.jsonl": GOOD}, labelled(split={**PARTS, "column": "lable"}),
     ["d.jsonl, row 1", "no column 'lable'", "did you mean 'label'"]),
    ("no file of a part", {"a.jsonl": GOOD, "b.jsonl": GOOD},
     labelled("*.jsonl", split={"by": "file", "train": "a*", "test": "c*"}), ["the test part", "no file is named"]),
    ("too few rows", {"d.jsonl": lines(ROWS[:2])}, labelled(), ["part of", "d.jsonl", "no records", "too few"]),
    ("nothing but nulls", {"d.jsonl": lines(changed(text=lambda n: None))}, labelled(),
     ["the train part", "200 records without 'text'", "d.jsonl, row 1"]),
    ("a part of blanks", {"train.jsonl": TRAIN, "dev.jsonl": lines([{"text": " ", "label": "a"}]), "test.jsonl": SOME},
     labelled("*.jsonl"), ["the validation part", "1 records without 'text'", "dev.jsonl, row 1"]),
    ("an answer elsewhere",
     {"d.jsonl": lines([{"question": "q", "context": f"c{n}", "answers": ["cz"[n == 7]]} for n in range(90)])},
     paired("question_answering"), ["d.jsonl, row 8", "answer 'z'", "context"]),
    ("answers that are a number", {"d.jsonl": lines([{"question": "q", "context": "c", "answers": 3}])},
     paired("question_answering"), ["d.jsonl, row 1", "'answers' must be", "3"]),
    ("a target that is a list", {"d.jsonl": lines([{"source": "a", "target": ["b"]}])},
     paired("translation"), ["d.jsonl, row 1", "'target' must be a text", "['b']"]),
    ("a corpus shorter than a context", {"c.txt": "word\n" * 9}, text(), ["at least 2,048 bytes", "c.txt has 45"]),
    ("a text without labels", {"c.txt": "word\n" * 999}, labelled("c.txt"), ["c.txt, row 1", "no column 'label'"]),
    ("no such file", {"data.jsonl": GOOD}, labelled("date.jsonl"), ["date.jsonl", "did you mean 'data.jsonl'"]),
    ("no such file of a list", {"d.jsonl": GOOD}, labelled(["d.jsonl", "e.jsonl"]), ["e.jsonl", "'d.jsonl'"]),
    ("a glob of nothing", {"d.csv": table(ROWS)}, labelled("*.jsonl"), ["*.jsonl", "no file is named like"]),
    ("a glob of no folder", {}, labelled("here/*.csv"), ["here/*.csv", "no file is named like"]),
    ("a folder without texts", {"f/readme.md": "x"}, text("f"), ["*.txt", "none in", "f/**/*.md"]),
    ("a folder of both", {"f/a.txt": "x", "f/b.csv": table(ROWS)}, labelled("f"), ["not both", "a.txt", "b.csv"]),
    ("no data set saved there", {}, labelled("hf:/nowhere/saved"), ["no folder /nowhere/saved"]),
    ("no tokenizer there", {"d.jsonl": GOOD}, labelled(tokenizer={"kind": "hugging_face", "path": "tok"}), ["tok"]),
    ("a broken tokenizer", {"d.jsonl": GOOD, "tok/tokenizer.json": "{}"},
     labelled(tokenizer={"kind": "hugging_face", "path": "tok"}), ["tokenizer.json", "cannot read"]),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "prepared"))
    return tmp_path


@pytest.mark.parametrize(("files", "task", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_bad_data_is_refused_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], files: Files, task: dict[str, Any], words: list[str]
) -> None:
    write_study(folder, files, task)
    assert main(["run", "study.yaml", "--quiet"]) == 2
    shown = capsys.readouterr()
    assert is_one_or_two_lines(shown.err, words), shown.err
    assert not shown.out and not list(folder.glob("nas*"))
    # Checking looks at no more than names, and is as short.
    status = main(["check", "study.yaml"])
    shown = capsys.readouterr()
    assert status == 0 or (status == 2 and is_one_or_two_lines(shown.err, ["study.yaml"])), shown.err


@pytest.mark.parametrize("data", ["date.jsonl", "*.json", "here/*.csv"])
def test_what_is_not_there_is_found_by_a_check(folder: Path, capsys: pytest.CaptureFixture[str], data: str) -> None:
    write_study(folder, {"data.jsonl": GOOD}, labelled(data))
    assert main(["check", "study.yaml"]) == 2
    assert is_one_or_two_lines(capsys.readouterr().err, ["study.yaml: task.data", data])


@pytest.mark.parametrize("data", ["d[1].jsonl", "*.jsonl", "**/d?1*.jsonl"])
def test_what_is_there_is_no_fault_of_its_name(folder: Path, data: str) -> None:
    write_study(folder, {"d[1].jsonl": GOOD}, labelled(data))
    assert main(["check", "study.yaml"]) == 0


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    ("rows", "damage", "words"),
    [
        (ROWS, lambda raw: raw[:500], ["broken Parquet file behind row 0"]),
        (ROWS, lambda raw: raw[:40] + b"\xff" * 20 + raw[60:], ["broken Parquet file behind row 0"]),
        (changed(text=lambda n: b"ab\xff"), bytes, ["row 1", "'text' must be a text"]),
        (changed(label=lambda n: {"a": 1}), bytes, ["row 1", "'label' must be a label"]),
        (changed(label=lambda n: n + 0.5), bytes, ["row 1", "'label' must be a label", "0.5"]),
    ],
)
def test_a_bad_parquet_file_is_refused(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[dict[str, Any]],
    damage: Callable[[bytes], bytes],
    words: list[str],
) -> None:
    write_study(folder, {}, labelled("d.parquet"))
    parquet(folder / "d.parquet", rows)
    (folder / "d.parquet").write_bytes(damage((folder / "d.parquet").read_bytes()))
    assert main(["run", "study.yaml", "--quiet"]) == 2
    assert is_one_or_two_lines(capsys.readouterr().err, ["d.parquet", *words])


@pytest.mark.parametrize("name", ["d.jsonl.zst", "c.txt.zst"])
def test_a_zstd_file_that_is_cut_short_is_not_the_beginning_of_the_data(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    packed = pytest.importorskip("zstandard").compress(os.urandom(600_000).hex().encode())
    write_study(folder, {name: packed[:400_000]}, labelled(name) if "jsonl" in name else text(name))
    assert main(["run", "study.yaml", "--quiet"]) == 2
    assert is_one_or_two_lines(capsys.readouterr().err, ["cannot read", name, "end-of-frame"])


def test_the_hub_without_its_library_names_the_extra(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    write_study(folder, {}, labelled("hf:imdb"))
    assert main(["run", "study.yaml", "--quiet"]) == 2
    assert is_one_or_two_lines(capsys.readouterr().err, ["hf:imdb", "pip install 'context-nas[hub]'"])


@pytest.mark.parametrize("data", ["closed", "closed/a.jsonl", "open", "closed/*.jsonl"])
def test_a_folder_that_may_not_be_read_is_not_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    write_study(folder, {"closed/a.jsonl": GOOD, "open/a.jsonl": GOOD, "open/closed/b.jsonl": GOOD}, labelled(data))
    _close(monkeypatch, folder, "closed")
    assert main(["run", "study.yaml", "--quiet"]) == 2
    assert is_one_or_two_lines(capsys.readouterr().err, ["cannot read", "closed", "Permission denied"])


def _close(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """Folders of a name refuse to be looked into, as they would for anybody but root."""
    scandir, stat = os.scandir, os.stat

    def refused(path: Any) -> bool:
        parts = Path(os.fspath(path)).parts if isinstance(path, str | os.PathLike) else ()
        return name in parts[:-1]

    def closed_scandir(path: Any = ".") -> Any:
        if refused(Path(os.fspath(path), "x")):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def closed_stat(path: Any, **options: Any) -> Any:
        if refused(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr("os.scandir", closed_scandir)
    monkeypatch.setattr("os.stat", closed_stat)


DOCUMENTS: Files = {f"c/{n}.txt": f"hello {n}, how are you? " * 4 for n in range(60)}
DOUBTFUL: list[tuple[str, Files, dict[str, Any], list[str]]] = [
    ("records of two parts",
     {"train.jsonl": TRAIN, "dev.jsonl": SOME, "test.jsonl": lines(ROWS[100:150] + ROWS[:7])}, labelled("*.jsonl"),
     ["7 of 57 records of the test part", "test.jsonl, row 51", "training part"]),
    ("nulls", {"d.jsonl": lines(changed(text=lambda n: None if n % 5 == 3 else f"{n}"))}, labelled(),
     ["40 records without 'text'", "d.jsonl, row 4"]),
    ("empty labels", {"d.csv": table(changed(label=lambda n: " " if n == 9 else "ab"[n % 2]))}, labelled("d.csv"),
     ["1 records without 'label'", "d.csv, row 11"]),
    ("labels that differ in blanks", {"d.jsonl": lines(changed(label=lambda n: ["a b", "c", "a  b"][n % 3]))},
     labelled(), ["66 records", "'a  b'", "d.jsonl, row 3", "'a b'", "blanks or case"]),
    ("documents shorter than a context", DOCUMENTS, text("c"), ["max_context 256", "never reached"]),
    ("empty documents", {**DOCUMENTS, "c/e.txt": "", "c/b.txt": b"\xef\xbb\xbf"}, text("c", cross_documents=True),
     ["2 records without 'text'", "b.txt, row 1"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "task", "words"), [case[1:] for case in DOUBTFUL], ids=[case[0] for case in DOUBTFUL]
)
def test_doubtful_records_are_counted_and_said_once(
    folder: Path, capsys: pytest.CaptureFixture[str], files: Files, task: dict[str, Any], words: list[str]
) -> None:
    write_study(folder, files, task, max_context=256)
    assert main(["run", "study.yaml", "--quiet"]) == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("nas: ") and all(word in said for word in words), said
