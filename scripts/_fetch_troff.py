"""The language of manual pages: troff source to lines of text and calls of macros.

In: the source of a page. Out: its lines in order, with conditions decided as for a terminal, the page's own
strings and macros filled in, and every escape replaced by plain characters. What a macro means is left to
the reader of the lines (see _fetch_page.py).

Source: groff(7), groff_char(7). What lays pages out (fonts, sizes, motions) leaves no trace.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from _fetch_glyphs import ACCENTS, STRINGS, glyph

JOINED = "\u0001"
"""Stands at the end of a line that the next one follows without a blank."""

ITALIC = "\u0002"
"""Stands where italics begin: in "-efile" it tells the option -e from its argument."""

_ESCAPE = re.compile(
    r"""\\(?:
      f(?P<font>\[[^]]*\]|\(..|.)                             # fonts
    | s(?:\[[^]]*\]|'[^']*'|[-+]?\(\d\d|\([-+]\d\d|[-+]?\d)  # sizes
    | [mMFYkgV](?:\[[^]]*\]|\(..|.)                          # colours, places
    | (?P<motion>h)'(?P<how>[^']*)'
    | [vwxXLlDSHABRbZ]'(?:[^'\\]|\\.)*'
    | N'(?P<code>\d+)'
    | o'(?P<over>(?:[^'\\]|\\.)*)'
    | C'(?P<named>[^']*)'
    | \*(?:\[(?P<s1>[^]]*)\]|\((?P<s2>..)|(?P<s3>.))          # strings
    | n[-+]?(?:\[(?P<n1>[^]]*)\]|\((?P<n2>..)|(?P<n3>.))      # numbers
    | \((?P<g1>..)
    | \[(?P<g2>[^]]*)\]
    | (?P<one>.)
    | $
    )""",
    re.VERBOSE | re.DOTALL,
)
_ONE = {
    "-": "-",
    "e": "\\",
    "\\": "\\",
    "E": "\\",
    " ": " ",
    "~": " ",
    "0": " ",
    "t": "\t",
    "'": "'",
    "`": "`",
    ".": ".",
}
_ONE |= {"_": "_", "c": JOINED, "(": "(", "[": "[", '"': ""}
_COMMENT = re.compile(r'(?<!\\)((?:\\\\)*)\\["#].*', re.DOTALL)
_BRACE = re.compile(r"\\([{}])")


@dataclass(frozen=True)
class Line:
    """A line of a page.

    Attributes:
        macro: its name, or "" for text.
        arguments: of the macro; the text alone.
        raw: the source behind the macro's name.
    """

    macro: str
    arguments: tuple[str, ...]
    raw: str = ""


class Source:
    """A page's source, read once.

    Args:
        text: the source.
        keeps: macros that the reader knows; a page's own definition of them is ignored.
    """

    def __init__(self, text: str, keeps: frozenset[str]) -> None:
        self._lines = list(reversed(text.replace("\r\n", "\n").split("\n")))
        self._keeps = keeps
        self._macros: dict[str, list[str]] = {}
        self._strings = dict(STRINGS)
        self._numbers = {".g": 1, ".H": 24, ".V": 40, "F": 0, ".l": 80}
        self._else: list[bool] = []
        # A page may call itself forever; no real one has so many lines.
        self._left = 100_000

    def lines(self) -> Iterator[Line]:
        """The lines of text and the macros that are no part of the language itself."""
        while self._lines and self._left:
            self._left -= 1
            line = self._next()
            if line[:1] not in (".", "'"):
                yield Line("", (self.plain(line),), line)
                continue
            found = re.match(r"[.'][ \t]*([^ \t\\]*|\\\S*)[ \t]*(.*)", line, re.DOTALL)
            name, rest = (found[1], _COMMENT.sub(r"\1", found[2])) if found else ("", "")
            if not name or name.startswith("\\"):
                continue
            if name in ("if", "ie", "while"):
                self._condition(name, rest)
            elif name == "el":
                self._branch(not (self._else.pop() if self._else else True), rest)
            elif name in ("de", "de1", "am", "am1", "ig", "dei", "ami"):
                self._define(name, rest)
            elif name in ("ds", "as", "ds1", "as1"):
                self._string(name, rest)
            elif name == "nr":
                self._number(rest)
            elif name in self._macros:
                self._call(self._macros[name], rest)
            else:
                yield Line(name, tuple(self.plain(one) for one in arguments_of(rest)), rest)

    def plain(self, text: str, depth: int = 0) -> str:
        """A text without escapes."""
        text = re.sub(r'\\["#].*', "", text, flags=re.DOTALL)
        return _ESCAPE.sub(lambda found: self._escape(found, depth), text)

    def _escape(self, found: re.Match[str], depth: int) -> str:
        groups = found.groupdict()
        if groups["font"]:
            return ITALIC if groups["font"] in ("I", "2", "4", "[I]", "[BI]", "(BI") else ""
        if (one := groups["one"]) is not None:
            return _ONE.get(one, "" if one in "&|^%/,:)acdupzr!?{}" else one)
        if groups["motion"]:
            return "" if groups["how"].startswith(("-", "|")) else " "
        if groups["code"]:
            return chr(int(groups["code"]))
        if groups["over"] is not None:
            over = self.plain(groups["over"], depth + 1)
            return unicodedata.normalize("NFC", over[:1] + ACCENTS.get(over[1:], ""))
        if (name := groups["g1"] or groups["g2"] or groups["named"]) is not None:
            return glyph(name)
        if (name := groups["s1"] or groups["s2"] or groups["s3"]) is not None:
            return self.plain(self._strings.get(name.split(" ")[0], ""), depth + 1) if depth < 9 else ""
        if (name := groups["n1"] or groups["n2"] or groups["n3"]) is not None:
            return str(self._numbers.get(name, 0))
        return ""

    def _next(self) -> str:
        line = self._lines.pop()
        while line.endswith("\\") and (len(line) - len(line.rstrip("\\"))) % 2 and self._lines:
            line = line[:-1] + self._lines.pop()
        return line

    def _condition(self, name: str, rest: str) -> None:
        holds, rest = self._holds(rest)
        if name == "ie":
            self._else.append(holds)
        # A loop is run once at most: pages lay out with them, they say nothing.
        self._branch(holds and name != "while", rest)

    def _branch(self, taken: bool, rest: str) -> None:
        rest = rest.lstrip(" \t")
        if not rest.startswith("\\{"):
            if taken and rest:
                self._lines.append(rest)
            return
        block, line, depth = [], rest[2:], 1
        while True:
            for brace in _BRACE.finditer(line):
                depth += 1 if brace[1] == "{" else -1
                if not depth:
                    line = line[: brace.start()]
                    break
            block.append(line)
            if depth <= 0 or not self._lines:
                break
            line = self._next()
        if taken:
            self._lines.extend(reversed([line for line in block if line.strip() not in ("", ".", "'")]))

    def _holds(self, text: str) -> tuple[bool, str]:
        text = text.lstrip()
        if text.startswith("!"):
            holds, rest = self._holds(text[1:])
            return not holds, rest
        if found := re.match(r"([notev])(?![\w(])[ \t]*(.*)", text, re.DOTALL):
            return found[1] in "no", found[2]
        if found := re.match(r"([drcmFS])[ \t]*(\S+)[ \t]*(.*)", text, re.DOTALL):
            known = {"d": {**self._strings, **self._macros}, "r": self._numbers}.get(found[1], {})
            return found[2] in known, found[3]
        if found := re.match(r"(['\"])(.*?)\1(.*?)\1[ \t]*(.*)", text, re.DOTALL):
            return self.plain(found[2]) == self.plain(found[3]), found[4]
        found = re.match(r"(\([^()]*(?:\([^()]*\)[^()]*)*\)|\S+)[ \t]*(.*)", text, re.DOTALL)
        if not found:
            return False, ""
        # "\n(.g .ds": the name of a number may hold a bracket.
        if number := re.match(r"((?:\\n(?:\(..|\[[^]]*\]|.)|[\w<>=+*/:&.-])+)[ \t]*(.*)", text, re.DOTALL):
            return self._value(number[1]) > 0, number[2]
        return self._value(found[1]) > 0, found[2]

    def _value(self, text: str) -> int:
        text = re.sub(r"[()]", "", self.plain(text))
        total: int | None = None
        sign = ""
        for token in re.findall(r"\d+|<=|>=|==|[<>=+*/:&-]", text):
            if not token.isdigit():
                sign = token
                continue
            value = int(token)
            if total is None or not sign:
                total = -value if sign == "-" and total is None else value
            else:
                total = _OPERATIONS[sign](total, value)
            sign = ""
        return total or 0

    def _define(self, name: str, rest: str) -> None:
        words = rest.split()
        target, end = (words[0], words[1]) if len(words) > 1 else (words[0] if words else "", "")
        if name == "ig":
            target, end = "", words[0] if words else ""
        body = []
        while self._lines:
            line = self._lines.pop()
            if re.fullmatch(rf"[.'][ \t]*{re.escape(end or '.')}[ \t]*", line):
                break
            body.append(line)
        if name == "ig" or target in self._keeps:
            return
        self._macros[target] = [*(self._macros.get(target, []) if name.startswith("am") else []), *body]

    def _string(self, name: str, rest: str) -> None:
        target, _, value = rest.partition(" ")
        if target in STRINGS:
            return
        value = value.lstrip(" ").removeprefix('"')
        self._strings[target] = (self._strings.get(target, "") if name.startswith("as") else "") + value

    def _number(self, rest: str) -> None:
        words = rest.split(None, 2)
        if len(words) >= 2:
            value = self._value(words[1])
            self._numbers[words[0]] = self._numbers.get(words[0], 0) + value if words[1][:1] in "+-" else value

    def _call(self, body: list[str], rest: str) -> None:
        given = arguments_of(rest)

        def argument(found: re.Match[str]) -> str:
            if found[1] in "*@":
                return " ".join(f'"{one}"' if found[1] == "@" else one for one in given)
            return given[int(found[1]) - 1] if 0 < int(found[1]) <= len(given) else ""

        self._numbers[".$"] = len(given)
        filled = [re.sub(r"\\+\$([1-9*@])", argument, line).replace("\\\\", "\\") for line in body]
        self._lines.extend(reversed(filled))


_OPERATIONS = {
    "+": lambda one, other: one + other, "-": lambda one, other: one - other, "*": lambda one, other: one * other,
    "/": lambda one, other: one // other if other else 0, "<": lambda one, other: int(one < other),
    ">": lambda one, other: int(one > other), "<=": lambda one, other: int(one <= other),
    ">=": lambda one, other: int(one >= other), "=": lambda one, other: int(one == other),
    "==": lambda one, other: int(one == other), "&": lambda one, other: int(one > 0 and other > 0),
    ":": lambda one, other: int(one > 0 or other > 0),
}  # fmt: skip


def arguments_of(text: str) -> list[str]:
    """The arguments of a macro: words, or what stands in double quotes."""
    found = re.findall(r'"((?:[^"]|"")*)"?|((?:\\[ ]|\\.|[^ \t\\])+)', text, re.DOTALL)
    return [bare or quoted.replace('""', '"') for quoted, bare in found]
