"""Manual pages to plain text.

In: the source of a page in the macros "man" (man(7)). Out: its paragraphs with their depths, and its text: a
paragraph a line, each level of indentation two blanks, an empty line above a heading.

All ways to write a list come out the same: .TP and .IP, or .PP and .RS as DocBook and AsciiDoc have it, make a head
and, deeper, what belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from _fetch_troff import ITALIC, JOINED, Line, Source

ALTERNATING = ("BI", "BR", "IB", "IR", "RB", "RI")
FONTS = ("B", "I", "R", "SM", "SB", "CW", *ALTERNATING)
PARAGRAPHS = ("PP", "P", "LP", "HP")
BREAKS = ("br", "sp", "Sp", "ce", "in", "ti")
EXAMPLE_BEGINS, EXAMPLE_ENDS = ("nf", "EX", "Vb"), ("fi", "EE", "Ve")
KNOWN = frozenset(
    {*FONTS, *PARAGRAPHS, *BREAKS, *EXAMPLE_BEGINS, *EXAMPLE_ENDS, "TH", "SH", "SS", "TP", "TQ", "IP", "RS", "RE", "UR"}
    | {"UE", "MT", "ME", "MR", "SY", "YS", "OP", "IX", "PD", "DT", "AT", "UC", "TS", "TE", "EQ", "EN", "so"}
)


@dataclass(frozen=True)
class Block:
    """A paragraph.

    Attributes:
        depth: levels of indentation; a heading has none.
        marked: its text, with ITALIC where italics begin; an example has several lines.
    """

    depth: int
    marked: str

    @property
    def text(self) -> str:
        """Without marks."""
        return self.marked.replace(ITALIC, "")


class Page:
    """A page's paragraphs.

    Args:
        source: of the page.

    Attributes:
        blocks: the paragraphs.
        is_alias: whether it only says which page to read instead.
    """

    def __init__(self, source: str) -> None:
        self.blocks: list[Block] = []
        self.is_alias = False
        self._parts: list[str] = []
        # Where paragraphs stand, and where they stood outside of each .RS; below a head one level deeper.
        self._base, self._outer, self._hang = 1, list[int](), 0
        # The next text is a head, or a heading.
        self._wants_tag = self._wants_heading = False
        self._prefix = ""
        self._filled = True
        self._in_table = self._in_format = False
        for line in Source(source, KNOWN).lines():
            self._read(line)
        self._flush()

    def render(self) -> tuple[str, list[int]]:
        """The page's text, and where each paragraph begins in it, in characters."""
        text, places = "", []
        for block in self.blocks:
            text += "\n" if text and not block.depth else ""
            indent = "  " * max(block.depth - 1, 0)
            places.append(len(text) + len(indent))
            text += "".join(f"{indent}{line}".rstrip() + "\n" for line in block.text.split("\n"))
        return text.rstrip(), places

    def _read(self, line: Line) -> None:
        name, given = line.macro, line.arguments
        if self._in_table:
            self._row(line)
        elif not name:
            self._text(given[0])
        elif name in FONTS:
            if given:
                self._text(_in_font(name, given))
        elif name in ("SH", "SS"):
            self._paragraph(base=1, hang=0)
            self._outer, self._filled, self._wants_heading = [], True, not given
            self._add(0, " ".join(given))
        elif name in PARAGRAPHS:
            self._paragraph(hang=0)
        elif name in ("TP", "TQ"):
            self._paragraph(hang=0)
            self._wants_tag = True
        elif name == "IP":
            self._paragraph(hang=1)
            self._item(_joined(given[:1]))
        elif name == "RS":
            self._outer.append(self._base)
            self._paragraph(base=self._base + 1, hang=0)
        elif name == "RE":
            self._flush()
            self._base, self._hang = self._outer.pop() if self._outer else 1, 0
        else:
            self._other(name, given)

    def _other(self, name: str, given: tuple[str, ...]) -> None:
        if name in (*EXAMPLE_BEGINS, *EXAMPLE_ENDS):
            self._flush()
            self._filled = name in EXAMPLE_ENDS
        elif name in BREAKS and not self._wants_tag:
            self._flush()
        elif name == "TS":
            self._flush()
            self._in_table = self._in_format = True
        elif name in ("UR", "MT"):
            self._text(" ".join(given))
        elif name in ("UE", "ME") and given:
            self._parts.append(JOINED)
            self._text(given[0])
        elif name == "MR" and len(given) >= 2:
            self._text(f"{given[0]}({given[1]}){''.join(given[2:])}")
        elif name == "OP":
            self._text(f"[{' '.join(given)}]")
        elif name in ("SY", "YS"):
            self._flush()
            self._parts += given[:1]
        elif name == "so":
            self.is_alias = True

    def _paragraph(self, hang: int, base: int | None = None) -> None:
        self._flush()
        self._base, self._hang, self._wants_tag = self._base if base is None else base, hang, False

    def _item(self, tag: str) -> None:
        is_bullet = tag == "o" or (0 < len(tag) <= 3 and tag[0] != "-" and not tag[0].isalpha())
        if is_bullet:
            # It belongs to the line of what follows.
            self._prefix = tag
        else:
            self._add(self._base, tag)

    def _row(self, line: Line) -> None:
        text = "" if line.macro else line.arguments[0]
        if line.macro in ("TE", "T&"):
            self._in_table, self._in_format = line.macro != "TE", line.macro == "T&"
        elif self._in_format:
            self._in_format = not text.rstrip().endswith(".")
        elif text.strip(" _="):
            cells = [cell.strip() for cell in re.sub(r"T[{}]", "\t", text).split("\t")]
            self._add(self._base + self._hang, "  ".join(cell for cell in cells if cell))

    def _text(self, text: str) -> None:
        if self._wants_heading:
            self._wants_heading = False
            self._add(0, _joined([text]))
        elif not self._filled:
            self._parts.append(text.replace(JOINED, "").replace("\t", "    ").rstrip())
        elif self._wants_tag:
            self._tag(text)
        else:
            # An empty line and one that begins with a blank end a paragraph.
            if text[:1] in ("", " ", "\t"):
                self._flush()
            if text.strip(" \t"):
                self._parts.append(text)

    def _tag(self, text: str) -> None:
        if text.strip(" \t"):
            self._parts.append(text)
            if not text.endswith(JOINED):
                self._wants_tag = False
                self._add(self._base, _joined(self._parts))
                self._parts, self._hang = [], 1

    def _flush(self) -> None:
        text = _joined(self._parts) if self._filled else "\n".join(self._parts).strip("\n").rstrip()
        self._parts = []
        if text:
            depth = self._base + self._hang - bool(self._prefix)
            self._add(depth, f"{self._prefix} {text}" if self._prefix else text)
            self._prefix = ""

    def _add(self, depth: int, text: str) -> None:
        if text.replace(ITALIC, ""):
            self.blocks.append(Block(depth, text))


def _in_font(name: str, words: tuple[str, ...]) -> str:
    if name not in ALTERNATING:
        return " ".join(words)
    return "".join(f"{ITALIC if name[place % 2] == 'I' else ''}{word}" for place, word in enumerate(words))


def _joined(parts: Iterable[str]) -> str:
    text = " ".join(parts).replace(f"{JOINED} ", "").replace(JOINED, "")
    return re.sub(r"\s+", " ", text).strip()
