"""Manual pages to plain text, and their options to questions.

In: the source of a page in the macros "man" (man(7)). Out: its text, a paragraph a line, each level of
indentation two blanks; and of each option the first sentence of its entry.

    entry    a paragraph that begins with "-", and below it, deeper, what it does. All ways to write one come
             out so: .TP and .IP, or .PP and .RS as DocBook and AsciiDoc have it
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _fetch_manual_packages import HELD_OUT_PACKAGES, PACKAGES
from _fetch_store import Rows, files_of_debian
from _fetch_troff import ITALIC, JOINED, Line, Source

FONTS = {"B", "I", "R", "SM", "SB", "BI", "BR", "IB", "IR", "RB", "RI", "CW"}
ALTERNATING = {"BI", "BR", "IB", "IR", "RB", "RI"}
PARAGRAPHS = {"PP", "P", "LP", "HP"}
KNOWN = frozenset(
    {
        *FONTS,
        *PARAGRAPHS,
        "TH",
        "SH",
        "SS",
        "TP",
        "TQ",
        "IP",
        "RS",
        "RE",
        "UR",
        "UE",
        "MT",
        "ME",
        "EX",
        "EE",
        "SY",
        "YS",
    }
    | {"OP", "Sp", "Vb", "Ve", "IX", "PD", "DT", "AT", "UC", "TS", "TE", "EQ", "EN", "MR", "br", "sp", "nf", "fi", "so"}
)
SHORTEST_ANSWER, LONGEST_ANSWER = 2, 40
"""Words of an answer."""
LONGEST_HEAD = 160
"""Characters of the head of an entry."""
LONGEST_PAGE = 8_000
"""Words of a page: longer ones (bash, curl, rsync) have hundreds of questions each, beyond any searched context."""
BOILERPLATE = {"--help", "--version", "-help"}
"""Options whose entries are the same on every page."""

_ABBREVIATIONS = (
    "e.g.",
    "i.e.",
    "etc.",
    "vs.",
    "cf.",
    "resp.",
    "approx.",
    "incl.",
    "viz.",
    "no.",
    "Inc.",
    "St.",
    "Mr.",
)
_END = re.compile(r"[.!?][)\"']?(?=\s)")
_OPTION = re.compile(rf"(?:(?<=[\s,|/(\[{ITALIC}])|^)--?[A-Za-z0-9](?:[\w.+-]*\w)?")


@dataclass(frozen=True)
class Block:
    """A paragraph.

    Attributes:
        depth: levels of indentation; a heading has none.
        text: without escapes; an example has several lines.
        options: that it names, where it is the head of an entry: "-a, --[no-]all=WHEN" has -a and --all.
    """

    depth: int
    text: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """An option of a page.

    Attributes:
        option: its name, the long one if it has one.
        answer: the first sentence of what stands below it.
        place: where the answer begins in the page's text, in characters.
    """

    option: str
    answer: str
    place: int


class Page:
    """The blocks of a page.

    Args:
        text: its source.
    """

    def __init__(self, text: str) -> None:
        self.blocks: list[Block] = []
        self.alias = False
        self._source = Source(text, KNOWN)
        self._parts: list[str] = []
        self._base, self._outer = 1, list[int]()
        self._hang = 0
        self._wants_tag = False
        self._prefix = ""
        self._filled = True
        self._table = False
        self._heading: str = ""
        self._alternate = ""
        for line in self._source.lines():
            self._read(line)
        self._flush()

    def _read(self, line: Line) -> None:
        name, given = line.macro, line.arguments
        if self._table:
            self._row(line)
        elif not name:
            self._text(given[0])
        elif name in FONTS:
            if given:
                self._text(_in_font(name, given))
        elif name in ("SH", "SS"):
            self._flush()
            self._base, self._outer, self._hang, self._filled, self._wants_tag = 1, [], 0, True, False
            if given:
                self._add(0, " ".join(given))
            else:
                self._heading = name
        elif name in PARAGRAPHS:
            self._flush()
            self._hang, self._wants_tag = 0, False
        elif name in ("TP", "TQ"):
            self._flush()
            self._hang, self._wants_tag = 0, True
        elif name == "IP":
            self._item(given)
        elif name == "RS":
            self._flush()
            self._outer.append(self._base)
            self._base, self._hang, self._wants_tag = self._base + 1, 0, False
        elif name == "RE":
            self._flush()
            self._base, self._hang = self._outer.pop() if self._outer else 1, 0
        else:
            self._other(name, given)

    def _other(self, name: str, given: tuple[str, ...]) -> None:
        if name in ("nf", "EX", "Vb"):
            self._flush()
            self._filled = False
        elif name in ("fi", "EE", "Ve"):
            self._flush()
            self._filled = True
        elif name in ("br", "sp", "Sp", "ce", "in", "ti"):
            if not self._wants_tag:
                self._flush()
        elif name == "TS":
            self._flush()
            self._table, self._format = True, True
        elif name in ("UR", "MT"):
            self._text(" ".join(given))
        elif name in ("UE", "ME") and given:
            self._parts.append(JOINED)
            self._text(given[0])
        elif name == "MR" and len(given) >= 2:
            self._text(f"{given[0]}({given[1]}){''.join(given[2:])}")
        elif name == "OP":
            self._text(f"[{' '.join(given)}]")
        elif name == "SY":
            self._flush()
            self._text(" ".join(given))
        elif name == "YS":
            self._flush()
        elif name == "so":
            self.alias = True

    def _item(self, given: tuple[str, ...]) -> None:
        self._flush()
        self._wants_tag, self._hang = False, 1
        tag = _joined(given[:1])
        if not tag:
            return
        if tag == "o" or (len(tag) <= 3 and not tag.startswith("-") and not tag[0].isalpha()):
            # A bullet or a number belongs to what follows it.
            self._prefix = tag
        else:
            self._add(self._base, tag)

    def _row(self, line: Line) -> None:
        text = line.arguments[0] if not line.macro else ""
        if line.macro == "TE":
            self._table = False
        elif self._format:
            self._format = not text.rstrip().endswith(".")
        elif line.macro in ("T&",):
            self._format = True
        elif text.strip(" _=") and not line.macro:
            cells = [cell.strip() for cell in re.sub(r"T[{}]", "\t", text).split("\t")]
            if joined := "  ".join(cell for cell in cells if cell):
                self._add(self._base + self._hang, joined)

    def _text(self, text: str) -> None:
        if self._heading:
            self._heading = ""
            self._add(0, _joined([text]))
            return
        if not self._filled:
            self._parts.append(text.replace(JOINED, "").replace("\t", "    ").rstrip())
            return
        if not text.strip(" \t"):
            if not self._wants_tag:
                self._flush()
            return
        if text[0] in " \t" and not self._wants_tag:
            self._flush()
        self._parts.append(text)
        if self._wants_tag and not text.endswith(JOINED):
            self._wants_tag = False
            self._add(self._base, _joined(self._parts))
            self._parts = []
            self._hang = 1

    def _flush(self) -> None:
        depth = self._base + self._hang
        if not self._filled:
            lines = self._parts
            while lines and not lines[0]:
                lines = lines[1:]
            text = "\n".join(lines).rstrip()
        else:
            text = _joined(self._parts)
        self._parts = []
        if text:
            if self._prefix:
                self._add(depth - 1, f"{self._prefix} {text}")
            else:
                self._add(depth, text)
            self._prefix = ""

    def _add(self, depth: int, text: str) -> None:
        options = options_of(text) if depth else ()
        if text := text.replace(ITALIC, ""):
            self.blocks.append(Block(depth, text, options))

    def render(self) -> tuple[str, list[int]]:
        """The page's text, and where each block begins in it."""
        text, places = "", []
        for block in self.blocks:
            text += "\n" if text and not block.depth else ""
            indent = "  " * max(block.depth - 1, 0) if block.depth else ""
            places.append(len(text) + len(indent))
            text += "".join(f"{indent}{line}".rstrip() + "\n" for line in block.text.split("\n"))
        return text.rstrip(), places

    def entries(self) -> Iterator[Entry]:
        """The options that are explained, in the page's order."""
        _, places = self.render()
        names: tuple[str, ...] = ()
        depth = 0
        for block, place in zip(self.blocks, places, strict=True):
            if names and block.depth > depth:
                answer = first_sentence(block.text)
                if SHORTEST_ANSWER <= len(answer.split()) <= LONGEST_ANSWER:
                    long = (name for name in names if name.startswith("--"))
                    yield Entry(next(long, names[0]), answer, place)
                names = ()
            # Heads that follow one another share what comes below the last.
            names = (*names, *block.options) if block.options and block.depth == depth else block.options
            depth = block.depth


def options_of(text: str) -> tuple[str, ...]:
    """The options that a paragraph names; none where it does not begin with one or is no head of an entry."""
    text = text.lstrip(ITALIC).replace("[no-]", "").replace("[no]", "")
    if not text.startswith("-") or "\n" in text or len(text) > LONGEST_HEAD:
        return ()
    return tuple(found[0] for found in _OPTION.finditer(text))


def first_sentence(text: str) -> str:
    """The beginning of a text up to the end of its first sentence."""
    text = text.split("\n")[0]
    for found in _END.finditer(text):
        head = text[: found.end()]
        word = head.rsplit(None, 1)[-1].lstrip("([\"'")
        if word in _ABBREVIATIONS or (len(word) < 3 and word[:-1].isalpha()):
            continue
        # Names of commands begin sentences in small letters: only behind a whole word is that taken for one.
        if text[found.end() :].lstrip()[:1].islower() and not re.fullmatch(r"[\w()'-]*\w{2}[)'\"]?[.!?][)'\"]?", word):
            continue
        return head
    return text


def _in_font(name: str, words: tuple[str, ...]) -> str:
    if name not in ALTERNATING:
        return " ".join(words)
    return "".join(f"{ITALIC if name[place % 2] == 'I' else ''}{word}" for place, word in enumerate(words))


def _joined(parts: list[str] | tuple[str, ...]) -> str:
    text = " ".join(parts).replace(f"{JOINED} ", "").replace(JOINED, "")
    return re.sub(r"\s+", " ", text).strip()


def manual_qa(files: list[Path]) -> Rows:
    """Questions about the options of the packages' pages; whole packages are held out."""
    part_of = {package: part for part, packages in HELD_OUT_PACKAGES.items() for package in packages}
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for package, path in zip(PACKAGES, files, strict=True):
        for name, raw in files_of_debian(path, r"\./usr/share/man/man[168]/[^/]+$"):
            found = questions(page_name(name), package.name, source_of(name, raw))
            # The same page under another name is a copy.
            if found and found[0]["context"] not in seen:
                seen.add(found[0]["context"])
                rows[part_of.get(package.name, "train")] += found
    return rows


def questions(page: str, package: str, source: str) -> list[dict[str, Any]]:
    """The records of a page; none where it is an alias, in the macros "mdoc", or too long."""
    if re.search(r"^\.Dd\b", source, re.MULTILINE):
        return []
    read = Page(source)
    context, _ = read.render()
    if read.alias or len(context.split()) > LONGEST_PAGE:
        return []
    answers: dict[str, list[str]] = {}
    for entry in read.entries():
        if entry.option not in BOILERPLATE and entry.answer in context:
            answers.setdefault(entry.option, []).append(entry.answer)
    return [
        {
            "question": f"{page} {option}",
            "context": context,
            "answers": list(dict.fromkeys(found)),
            "page": page,
            "package": package,
        }
        for option, found in answers.items()
    ]


def page_name(path: str) -> str:
    """A page's name: "ls" of "usr/share/man/man1/ls.1.gz"."""
    return path.rsplit("/", 1)[-1].removesuffix(".gz").rsplit(".", 1)[0]


def source_of(path: str, raw: bytes) -> str:
    """A page's source: unpacked, and decoded as UTF-8 or else as Latin-1."""
    raw = gzip.decompress(raw) if path.endswith(".gz") else raw
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
