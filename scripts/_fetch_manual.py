"""Questions about the options of manual pages.

In: packages. Out: of each option that a page explains a record: "page --option", the page's text, and the first
sentence of the option's entry, which stands in that text.

    entry    a paragraph that begins with "-", and below it, deeper, what it does
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _fetch_manual_packages import HELD_OUT_PACKAGES, PACKAGES
from _fetch_packages import files_of_debian
from _fetch_page import Page
from _fetch_store import PARTS, Rows
from _fetch_troff import ITALIC

PAGES = r"\./usr/share/man/man[168]/[^/]+"
SHORTEST_ANSWER, LONGEST_ANSWER = 2, 40
"""Words of an answer."""
LONGEST_HEAD = 160
"""Characters of the head of an entry."""
LONGEST_PAGE = 8_000
"""Words of a page: longer ones (bash, curl, rsync) have hundreds of questions each, beyond any searched context."""
BOILERPLATE = ("--help", "--version", "-help")
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
_WORD_AND_END = re.compile(r"[\w()'-]*\w{2}[)'\"]?[.!?][)'\"]?")
_OPTION = re.compile(rf"(?:(?<=[\s,|/(\[{ITALIC}])|^)--?[A-Za-z0-9](?:[\w.+-]*\w)?")


@dataclass(frozen=True)
class Entry:
    """An option of a page.

    Attributes:
        option: its name, the long one if it has one.
        answer: the first sentence of what stands below it.
    """

    option: str
    answer: str


def manual_qa(files: list[Path]) -> Rows:
    """Questions about the options of the packages' pages; whole packages are held out."""
    part_of = {package: part for part, packages in HELD_OUT_PACKAGES.items() for package in packages}
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    seen: set[str] = set()
    for package, path in zip(PACKAGES, files, strict=True):
        for name, raw in files_of_debian(path, PAGES):
            found = questions(page_name(name), package.name, source_of(name, raw))
            # The same page under another name is a copy.
            if found and found[0]["context"] not in seen:
                seen.add(found[0]["context"])
                rows[part_of.get(package.name, "train")] += found
    return rows


def questions(name: str, package: str, source: str) -> list[dict[str, Any]]:
    """The records of a page; none where it is an alias, too long, or in the macros "mdoc" (mdoc(7))."""
    if re.search(r"^\.Dd\b", source, re.MULTILINE):
        return []
    page = Page(source)
    context, _ = page.render()
    if page.is_alias or len(context.split()) > LONGEST_PAGE:
        return []
    answers: dict[str, list[str]] = {}
    for entry in entries(page):
        if entry.option not in BOILERPLATE and entry.answer in context:
            answers.setdefault(entry.option, []).append(entry.answer)
    return [
        {
            "question": f"{name} {option}",
            "context": context,
            # An option that several of a program's commands have is explained as often.
            "answers": list(dict.fromkeys(found)),
            "page": name,
            "package": package,
        }
        for option, found in answers.items()
    ]


def entries(page: Page) -> Iterator[Entry]:
    """The options that are explained, in the page's order."""
    names: tuple[str, ...] = ()
    depth = 0
    for block in page.blocks:
        if names and block.depth > depth:
            answer = first_sentence(block.text)
            if SHORTEST_ANSWER <= len(answer.split()) <= LONGEST_ANSWER:
                long = (name for name in names if name.startswith("--"))
                yield Entry(next(long, names[0]), answer)
            names = ()
        found = options_of(block.marked) if block.depth else ()
        # Heads that follow one another share what comes below the last.
        names = (*names, *found) if found and block.depth == depth else found
        depth = block.depth


def options_of(marked: str) -> tuple[str, ...]:
    """The options that a paragraph names: "-a, --[no-]all=WHEN" has -a and --all.

    None where it does not begin with one or is no head of an entry.
    """
    text = marked.lstrip(ITALIC).replace("[no-]", "").replace("[no]", "")
    if not text.startswith("-") or "\n" in text or len(text) > LONGEST_HEAD:
        return ()
    return tuple(found[0] for found in _OPTION.finditer(text))


def first_sentence(text: str) -> str:
    """The beginning of a text, or of its first line, up to the end of a sentence."""
    text = text.split("\n")[0]
    for found in _END.finditer(text):
        head = text[: found.end()]
        word = head.rsplit(None, 1)[-1].lstrip("([\"'")
        if word in _ABBREVIATIONS or (len(word) < 3 and word[:-1].isalpha()):
            continue
        # Names of commands begin sentences in small letters: only behind a whole word is that taken for one.
        if text[found.end() :].lstrip()[:1].islower() and not _WORD_AND_END.fullmatch(word):
            continue
        return head
    return text


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
