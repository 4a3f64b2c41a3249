"""Characters and strings that troff knows by name: groff_char(7), groff_man(7), mdoc(7)."""

from __future__ import annotations

import re
import unicodedata

GLYPHS = {
    "aq": "'", "oq": "'", "cq": "'", "dq": '"', "lq": '"', "rq": '"', "Bq": '"', "bq": "'", "ga": "`", "aa": "'",
    "em": "--", "en": "-", "hy": "-", "mi": "-", "pl": "+", "eq": "=", "bu": "*", "ha": "^", "ti": "~", "rs": "\\",
    "sl": "/", "ba": "|", "br": "|", "or": "|", "bv": "|", "sh": "#", "Do": "$", "at": "@", "lB": "[", "rB": "]",
    "lC": "{", "rC": "}", "la": "<", "ra": ">", "co": "(C)", "rg": "(R)", "tm": "(TM)", "<=": "<=", ">=": ">=",
    "!=": "!=", "==": "==", "~=": "~=", "->": "->", "<-": "<-", "<>": "<->", "mu": "x", "tmu": "x", "di": "/",
    "+-": "+-",
    "de": "°", "mc": "µ", "sc": "§", "ps": "¶", "if": "∞", "fm": "'", "sd": '"', "Fo": "«", "Fc": "»", "fo": "<",
    "fc": ">", "r!": "¡", "r?": "¿", "ct": "¢", "Po": "£", "Ye": "¥", "eu": "€", "Eu": "€", "ss": "ß", "AE": "Æ",
    "ae": "æ", "/O": "Ø", "/o": "ø", "/L": "Ł", "/l": "ł", "oA": "Å", "oa": "å", "12": "1/2", "14": "1/4", "34": "3/4",
    "S1": "¹", "S2": "²", "S3": "³", "no": "¬", "dg": "†", "dd": "‡", "lh": "<=", "rh": "=>", "sq": "*", "ci": "o",
    "ul": "_", "ru": "_", "rn": "-", "**": "*", "pc": "·", "md": "·", "lf": "[", "rf": "]", "lc": "[", "rc": "]",
    "uA": "^", "ua": "^", "da": "v", "ff": "ff", "fi": "fi", "fl": "fl", "Fi": "ffi", "Fl": "ffl", "*W": "Ω", "*m": "μ",
    "*p": "π", "*a": "α", "*b": "β", "OK": "v", "nb": "not in", "mo": "in", "ap": "~", "an": "-",
    "IJ": "IJ", "ij": "ij",
    "Sd": "ð", "Tp": "þ", "Of": "ª", "Om": "º", "sp": " ", "CR": "", "..": "...",
}  # fmt: skip
"""Characters by name; quotes and dashes as a keyboard has them."""

ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", "~": "\u0303", ",": "\u0327", "v": "\u030c"}
ACCENTS |= {"o": "\u030a"}
STRINGS = {"R": "(R)", "Tm": "(TM)", "lq": '"', "rq": '"', "S": "", "--": "--", 'L"': '"', 'R"': '"', "C`": '"'}
STRINGS |= {"C'": '"', "PI": "pi", "q": '"', "Aq": "'", "Lq": '"', "Rq": '"'}
"""Strings that macro packages define; a page's own definition of them is for printers."""


def glyph(name: str) -> str:
    """A character by its name in troff."""
    if name in GLYPHS:
        return GLYPHS[name]
    if found := re.fullmatch(r"u([0-9A-Fa-f]{4,6})(?:_([0-9A-Fa-f]{4,6}))*", name):
        return unicodedata.normalize("NFC", "".join(chr(int(code, 16)) for code in found[0][1:].split("_")))
    if found := re.fullmatch(r"char(\d+)", name):
        return chr(int(found[1]))
    if len(name) == 2 and name[0] in ACCENTS and name[1].isalpha():
        return unicodedata.normalize("NFC", name[1] + ACCENTS[name[0]])
    return ""
