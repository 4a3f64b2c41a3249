"""Manual pages become clean text, and their options questions whose answers stand in it."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from nas import Study

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

BY_HAND = r""".\" a comment
.TH DU 1 "2022" "GNU" "Commands"
.SH NAME
du \- estimate "file" usage
.SH SYNOPSIS
.B du
[\fI\,OPTION\/\fR]... [\fI\,FILE\/\fR]...
.SH DESCRIPTION
.PP
It prints, e.g.\& sizes\(em\c
all of them \(aq\fBhere\fR\(aq.
.TP
\fB\-a\fR, \fB\-\-all\fR
write counts for all files,
not just directories. More is said here.
.TP
.BI \-B " SIZE" ,\  \-\-block-size= SIZE
.TQ
.B \-\-blocks
scale sizes by SIZE before printing them; e.g., '\-BM'
.IP
A second paragraph.
.TP
.BR \-x
skip
.TP
\fB\-\-help\fR
display this help and exit
.SS "More"
.nf
$ du \-a \e
    .
.fi
"""

FROM_POD = r""".ie n \{\
.    ds L" ""
.    ds R" ""
'br\}
.el\{\
.    ds L" ``
'br\}
.de Vb \" Begin verbatim text
.ft CW
.nf
.ne \\$1
..
.if \nF \{\
.    de IX
.    tm Index:\\$1\t\\n%\t"\\$2"
..
.\}
.TH X509 1
.SH "OPTIONS"
.IX Header "OPTIONS"
.IP "\fB\-in\fR \fIfilename\fR" 4
.IX Item "-in filename"
.PD 0
.IP "\fB\-e\fR\fIfile\fR" 4
.PD
Both say \*(L"what\*(R" is read. dpkg is not meant.
.IP "\(bu" 4
A point.
.Vb 1
\& x509 \-in a
.Ve
"""

FROM_DOCBOOK = r""".ie \n(.g .ds Aq \(aq
.el       .ds Aq '
.TH TAG 1
.SH "OPTIONS"
.PP
\-f, \-\-[no\-]force
.RS 4
Replace an existing tag (instead of failing)\&.
.sp
.if n \{\
.RS 4
.\}
.nf
tag \-f
.fi
.if n \{\
.RE
.\}
.RE
.PP
\-\-sort=<key>
.RS 4
Sort\&. It\*(Aqs by key\&.
.RE
"""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import _fetch_manual
    import _fetch_page
    import _fetch_troff

    yield _fetch_manual, _fetch_page, _fetch_troff
    for name in [name for name in sys.modules if name.startswith("_fetch_")]:
        sys.modules.pop(name)


Modules = tuple[ModuleType, ModuleType, ModuleType]


def test_a_page_becomes_text_without_escapes(modules: Modules) -> None:
    text, places = modules[1].Page(BY_HAND).render()
    assert text.split("\n") == [
        "NAME",
        'du - estimate "file" usage',
        "",
        "SYNOPSIS",
        "du [OPTION]... [FILE]...",
        "",
        "DESCRIPTION",
        "It prints, e.g. sizes--all of them 'here'.",
        "-a, --all",
        "  write counts for all files, not just directories. More is said here.",
        "-B SIZE, --block-size=SIZE",
        "--blocks",
        "  scale sizes by SIZE before printing them; e.g., '-BM'",
        "  A second paragraph.",
        "-x",
        "  skip",
        "--help",
        "  display this help and exit",
        "",
        "More",
        "$ du -a \\",
        "    .",
    ]
    blocks = modules[1].Page(BY_HAND).blocks
    assert all(text[place:].startswith(block.text) for block, place in zip(blocks, places, strict=True))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            BY_HAND,
            {
                "page --all": ["write counts for all files, not just directories."],
                # Heads in a row share an entry; the first long name stands for it.
                "page --block-size": ["scale sizes by SIZE before printing them; e.g., '-BM'"],
            },
        ),
        (FROM_POD, {"page -in": ['Both say "what" is read.']}),
        # "Sort." is one word: no answer.
        (FROM_DOCBOOK, {"page --force": ["Replace an existing tag (instead of failing)."]}),
    ],
    ids=["by_hand", "pod", "docbook"],
)
def test_every_way_to_write_an_option_is_asked_about(
    source: str, expected: dict[str, list[str]], modules: Modules
) -> None:
    rows = modules[0].questions("page", "package", source)
    assert {row["question"]: row["answers"] for row in rows} == expected
    for row in rows:
        assert all(answer in row["context"] for answer in row["answers"])
        assert (row["page"], row["package"]) == ("page", "package")


def test_pod_pages_lose_their_preamble_and_keep_their_lists(modules: Modules) -> None:
    text, _ = modules[1].Page(FROM_POD).render()
    assert text.split("\n") == [
        "OPTIONS",
        "-in filename",
        "-efile",
        '  Both say "what" is read. dpkg is not meant.',
        "* A point.",
        "   x509 -in a",
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"a\-b \fBc\f(CWd\f[R]e \s-1F\s0", "a-b cde F"),
        (r"\(aq\(lq\(rq\[em]\(:u\[u00E9]\o'e^' \(co", '\'""--üéê (C)'),
        (r"\e \\ \& x\|y\~z \*(Tm\*[lq]", '\\ \\  xy z (TM)"'),
        (r"a\h'+03'b\h'-04'c\v'1'd \" a remark", "a bcd "),
    ],
)
def test_escapes_become_characters(source: str, expected: str, modules: Modules) -> None:
    assert modules[2].Source("", frozenset()).plain(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (".if n yes\n.if t no\n.if !t so\n", ["yes", "so"]),
        (".ie t \\{\\\nno\n.\\}\n.el \\{\\\nyes\n.if \\n(.g>=1 more\n.\\}\nend", ["yes", "more", "end"]),
        (".nr x 2\n.nr x +1\n.if \\nx=3 three\n.if (\\nx<3):(\\nx>3) no\n", ["three"]),
        (".ie 'a'b' no\n.el .ie 'a'a' yes\n.el no\nend", ["yes", "end"]),
        ('.ds me you\n.de Hi\nhi \\\\$1 \\\\*(me\n..\n.Hi "dear old"\n', ["hi dear old you"]),
        (".ig\nnot this\n..\none \\\nline", ["one line"]),
        (".de LOOP\n.LOOP\n..\n.LOOP\nnever", []),
    ],
)
def test_conditions_and_macros_of_a_page_are_carried_out(source: str, expected: list[str], modules: Modules) -> None:
    lines = [line.arguments[0] for line in modules[2].Source(source, frozenset()).lines() if not line.macro]
    assert [line for line in lines if line] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Do this. Then that.", "Do this."),
        ("print sizes, e.g. 1K (see below)", "print sizes, e.g. 1K (see below)"),
        ("list . and .. as well", "list . and .. as well"),
        ("Only for files (not folders.) More.", "Only for files (not folders.)"),
        ("Reads a list. pkill(1) does not.", "Reads a list."),
        ("since version 1.2. later", "since version 1.2. later"),
        ("one line\nanother. End.", "one line"),
    ],
)
def test_a_sentence_ends_where_a_reader_ends_it(text: str, expected: str, modules: Modules) -> None:
    assert modules[0].first_sentence(text) == expected


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("-a, --all", ("-a", "--all")),
        ("-f | --[no-]force=WHEN", ("-f", "--force")),
        ("-e\u0002maintainer", ("-e",)),
        ("--x86-64-v2[=yes|no]", ("--x86-64-v2",)),
        ("See -a or --all.", ()),
        ("-", ()),
        (f"-a {'word ' * 40}", ()),
    ],
)
def test_heads_name_their_options(head: str, options: tuple[str, ...], modules: Modules) -> None:
    assert modules[0].options_of(head) == options


def test_an_option_of_several_commands_has_every_answer(modules: Modules) -> None:
    entry = ".TP\n.B \\-\\-force\nForce the {} command.\n"
    rows = modules[0].questions("p", "q", f".SH ONE\n{entry.format('first')}.SH OTHER\n{entry.format('second')}")
    assert [row["answers"] for row in rows] == [["Force the first command.", "Force the second command."]]


@pytest.mark.parametrize(
    "source",
    [".so man1/du.1\n", ".Dd May 1\n.Sh OPTIONS\n.Bl\n.It Fl a\nAll of them.\n", BY_HAND + "word " * 8_001],
    ids=["alias", "mdoc", "long"],
)
def test_pages_that_are_not_asked_about(source: str, modules: Modules) -> None:
    assert modules[0].questions("du", "coreutils", source) == []


def test_no_package_is_in_two_parts_and_copies_of_pages_are_left_out(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    manual = modules[0]
    names = [package.name for package in manual.PACKAGES]
    held_out = [name for part in manual.HELD_OUT_PACKAGES.values() for name in part]
    assert len(set(held_out)) == len(held_out) and set(held_out) < set(names) and len(set(names)) == len(names)
    assert all(package.licence and len(package.sha256) == 64 for package in manual.PACKAGES)

    def files(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
        own = BY_HAND.replace("all files", f"all files of {path.name}").encode()
        yield "./usr/share/man/man1/du.1.gz", gzip.compress(own)
        yield "./usr/share/man/man1/copy.1.gz", gzip.compress(own)
        yield "./usr/share/man/man8/latin.8", ".SH A\n.TP\n\\-x\nUne cl\u00e9 s\u00fbre.\n".encode("latin-1")

    monkeypatch.setattr(manual, "files_of_debian", files)
    rows = manual.manual_qa([Path(name) for name in names])
    for part in ("validation", "test"):
        assert {row["package"] for row in rows[part]} == set(manual.HELD_OUT_PACKAGES[part])
    assert not {row["package"] for row in rows["train"]} & set(held_out)
    every = [row for part in rows.values() for row in part]
    assert {row["page"] for row in every} == {"du", "latin"}
    assert [row["answers"] for row in every if row["page"] == "latin"] == [["Une clé sûre."]]


def test_its_study_runs(modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import _fetch_store

    rows = {
        part: [
            row
            for number in range(6)
            for row in modules[0].questions(f"{part}{number}", part, BY_HAND.replace("all files", f"{part} {number}"))
        ]
        for part in _fetch_store.PARTS
    }
    found = _fetch_store.Prepared("question_answering", "none", (), lambda files: rows, "by part")
    _fetch_store.write_set(tmp_path / "data" / "manual_qa", "manual_qa", found, tmp_path / "packages")
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    settings = {"budget.tokens": "20_000", "budget.rungs": "1", "task.evaluation_examples": "4"}
    study = Study.load("manual_qa", store="sqlite:///s.db", settings=settings)
    study.run(trials=1)
    assert len(study.front()) == 1
