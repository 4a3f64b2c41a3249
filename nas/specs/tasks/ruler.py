"""Specification of RULER: looking up, following and counting in contexts of any length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options, Value
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec

RULER_FORMS = ("tokens", "words")
HAYSTACKS = ("noise", "words")
RULER_KINDS: Mapping[str, tuple[str, ...]] = {
    "niah_single": (),
    "niah_multikey": ("needles",),
    "niah_multivalue": ("needles",),
    "niah_multiquery": ("needles",),
    "variable_tracking": ("chains", "hops"),
    "common_words": ("common", "common_times", "other_times"),
    "frequent_words": (),
}
"""The kinds of examples, and the task's keys that belong to each beside those of every kind."""

FREQUENT_WORDS = 3
"""So many of the most frequent words are asked for."""

LENGTHS: Mapping[str, int] = {"tokens": 128, "words": 1024}
"""The length of an example where none is given."""

RULER_MARKS = ("padding", "needle", "variable", "question", "chain", "common", "frequent", "answer")
"""The marks of the form tokens, numbered from 0 in this order."""

_FORM_KEYS: Mapping[str, tuple[str, ...]] = {"tokens": ("vocabulary", "value_tokens"), "words": ("haystack",)}
_SHARED_KEYS = ("kind", "kinds", "form", "length", "evaluation_examples")


class TokenRanges(NamedTuple):
    """What the tokens of the form tokens stand for, behind the marks."""

    hay: range
    keys: range
    values: range


def token_ranges(vocabulary: int) -> TokenRanges:
    """Of the tokens that are no marks a quarter are keys, a half values, and the rest hay.

    >>> token_ranges(128)
    TokenRanges(hay=range(8, 38), keys=range(38, 68), values=range(68, 128))
    """
    first = len(RULER_MARKS)
    keys, values = (vocabulary - first) // 4, (vocabulary - first) // 2
    return TokenRanges(
        range(first, vocabulary - keys - values),
        range(vocabulary - keys - values, vocabulary - values),
        range(vocabulary - values, vocabulary),
    )


def ruler_kinds(options: Options) -> tuple[str, ...]:
    """The kinds that options ask for; what is no kind is left out."""
    kinds: Any = options.get("kinds", [options.get("kind", "niah_single")])
    return tuple(kind for kind in kinds if kind in RULER_KINDS) if isinstance(kinds, list) else ()


def _recall(doc: str) -> MetricSpec:
    return MetricSpec(direction="maximize", unit="", best=1.0, doc=doc)


class Ruler(TaskSpec):
    """RULER's synthetic tasks (Hsieh et al. 2024): find needles, follow variables, count words.

    niah_single        one needle (a key and its value); its value is asked for
    niah_multikey      `needles` needles; the value of one of them is asked for
    niah_multivalue    `needles` needles of one key; all its values are asked for
    niah_multiquery    `needles` needles; the values of all of them are asked for
    variable_tracking  `chains` chains of assignments; the variables of one of them are asked for
    common_words       `common` words stand `common_times` times each, others `other_times`
    frequent_words     words as frequent as Zeta's law has it; the three most frequent are asked for
    """

    implementation: ClassVar[str] = "nas.tasks.ruler:Ruler"
    head: ClassVar[str] = "causal_lm"
    families: ClassVar[frozenset[str]] = frozenset({"decoder"})
    keys: ClassVar[Mapping[str, Key]] = {
        **CURVE_KEYS,
        "kind": Key(type=str, derived=True, doc=f"{', '.join(RULER_KINDS)} (default: niah_single)"),
        "kinds": Key(type=list, derived=True, doc="instead of kind: several of them, in equal shares"),
        "form": Key(type=str, default="tokens", doc="tokens (of a small vocabulary) or words (English-like, as bytes)"),
        "length": Key(
            type=int,
            minimum=1,
            derived=True,
            doc="tokens of an example that ruler_recall is measured on, its answer included "
            f"(default: {LENGTHS['tokens']}; words: {LENGTHS['words']} bytes)",
        ),
        "vocabulary": Key(
            type=int, minimum=16, default=128, doc="token kinds: marks, hay, keys and values (form tokens)"
        ),
        "value_tokens": Key(type=int, minimum=1, maximum=16, default=1, doc="tokens of a value (form tokens)"),
        "haystack": Key(
            type=str, default="noise", doc="noise (sentences that repeat) or words (drawn at random) (form words)"
        ),
        "needles": Key(type=int, minimum=2, maximum=1024, default=4, doc="needles of an example (niah_multi...)"),
        "chains": Key(type=int, minimum=1, maximum=64, default=1, doc="chains of variables (variable_tracking)"),
        "hops": Key(type=int, minimum=1, maximum=64, default=4, doc="further variables of a chain (variable_tracking)"),
        "common": Key(type=int, minimum=1, maximum=1024, default=10, doc="words that are common (common_words)"),
        "common_times": Key(type=int, minimum=2, default=30, doc="times that each of them stands (common_words)"),
        "other_times": Key(type=int, minimum=1, default=3, doc="times that every other word stands (common_words)"),
        "evaluation_examples": Key(
            type=int, minimum=1, default=200, doc="held-out examples that are scored, at each length"
        ),
    }
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "ruler_recall": _recall("share of the values asked for that the answer holds, examples being of `length`"),
        "ruler_recall_by_length": _recall("the same, examples being as long as the context at which it is measured"),
        "ruler_loss": MetricSpec(
            direction="minimize",
            unit="nat",
            best=0.0,
            doc="mean negative log likelihood of a token of the right answer, examples being of `length`",
        ),
        **{f"ruler_recall_{kind}": _recall(f"ruler_recall of the examples of kind {kind}") for kind in RULER_KINDS},
    }

    def complete(self, options: Options) -> dict[str, Value]:
        """The options with defaults filled in, and none that play no part for the kinds and the form."""
        form = str(options.get("form", "tokens"))
        given: dict[str, Any] = dict(options)
        if "kinds" not in given:
            given.setdefault("kind", "niah_single")
        given.setdefault("length", LENGTHS.get(form, LENGTHS["tokens"]))
        wanted = {*CURVE_KEYS, *_SHARED_KEYS, *_FORM_KEYS.get(form, ())}
        wanted.update(key for kind in ruler_kinds(options) for key in RULER_KINDS[kind])
        return {key: value for key, value in super().complete(given).items() if key in wanted}

    def measured(self, options: Options) -> Mapping[str, MetricSpec]:
        """The three of every kind, and where kinds are mixed the recall of each."""
        kinds = ruler_kinds(options)
        names = ["ruler_recall", "ruler_recall_by_length", "ruler_loss"]
        names += [f"ruler_recall_{kind}" for kind in kinds] if len(kinds) > 1 else []
        return {name: self.metrics[name] for name in names}

    def curve_score(self, options: Options) -> str:
        """RULER's effective length is told by examples as long as each context."""
        return "ruler_recall_by_length"

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        if options.get("haystack", HAYSTACKS[0]) not in HAYSTACKS:
            hint = did_you_mean(options["haystack"], HAYSTACKS)
            yield BrokenRule("haystack", f"unknown haystack '{options['haystack']}': {hint}")
        if "common_times" in options and int(options["common_times"]) <= int(options["other_times"]):
            yield BrokenRule(
                "common_times",
                f"common_times must be above other_times = {options['other_times']}, not {options['common_times']}: "
                f"nearest {int(options['other_times']) + 1}",
            )
        kinds = len(ruler_kinds(options))
        if int(options["evaluation_examples"]) < kinds:
            yield BrokenRule(
                "evaluation_examples",
                f"evaluation_examples must be at least {kinds}, one of each kind, "
                f"not {options['evaluation_examples']}: nearest {kinds}",
            )
        if options["form"] == "tokens":
            yield from _broken_vocabulary(options)

    def _broken_alone(self, options: Options) -> Iterator[BrokenRule]:
        yield from super()._broken_alone(options)
        found = list(_broken_kinds(options))
        form = options.get("form", "tokens")
        if isinstance(form, str) and form not in RULER_FORMS:
            found.append(BrokenRule("form", f"unknown form '{form}': {did_you_mean(form, RULER_FORMS)}"))
        yield from found or self._broken_places(options)

    def _broken_places(self, options: Options) -> Iterator[BrokenRule]:
        """Keys that play no part for the kinds and the form that were chosen."""
        kinds, form = ruler_kinds(options), str(options.get("form", "tokens"))
        for key in options:
            users = [kind for kind, keys in RULER_KINDS.items() if key in keys]
            if users and not set(users) & set(kinds):
                yield BrokenRule(key, f"'{key}' is for {', '.join(users)}, not for {' and '.join(kinds)}")
            forms = [other for other, keys in _FORM_KEYS.items() if key in keys]
            if forms and form not in forms:
                yield BrokenRule(key, f"'{key}' is for form {', '.join(forms)}, not for {form}")


def _broken_kinds(options: Options) -> Iterator[BrokenRule]:
    if {"kind", "kinds"} <= set(options):
        yield BrokenRule("kinds", "kind and kinds exclude each other: give one")
        return
    key = "kinds" if "kinds" in options else "kind"
    kinds: Any = options.get(key, "niah_single")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not kinds:
        yield BrokenRule("kinds", f"kinds must name at least one kind: {did_you_mean('', RULER_KINDS)}")
    for kind in kinds:
        if kind not in RULER_KINDS:
            yield BrokenRule(key, f"unknown kind '{kind}': {did_you_mean(kind, RULER_KINDS)}")
    if len(set(map(str, kinds))) < len(kinds):
        yield BrokenRule("kinds", f"kinds must name each kind once, not {', '.join(map(str, kinds))}")


def _broken_vocabulary(options: Options) -> Iterator[BrokenRule]:
    """Every example draws its keys and values without replacement: there must be enough of them."""
    vocabulary = int(options["vocabulary"])
    ranges = token_ranges(vocabulary)
    for kind in ruler_kinds(options):
        keys, values = _drawn(kind, options)
        if keys > len(ranges.keys) or values > len(ranges.values):
            nearest = len(RULER_MARKS) + max(4 * keys, 2 * values)
            yield BrokenRule(
                "vocabulary",
                f"{kind} needs {keys} keys and {values} values, but of vocabulary {vocabulary} "
                f"{len(ranges.keys)} and {len(ranges.values)} tokens are such: nearest vocabulary {nearest}",
            )


def _drawn(kind: str, options: Options) -> tuple[int, int]:
    """The different keys and values that an example has at least."""
    if kind == "niah_single":
        return 1, 1
    if kind == "variable_tracking":
        chains = int(options["chains"])
        return chains * (int(options["hops"]) + 1), chains
    if kind == "common_words":
        return 0, int(options["common"]) + 1
    if kind == "frequent_words":
        return 0, FREQUENT_WORDS + 1
    needles = int(options["needles"])
    return 1 if kind == "niah_multivalue" else needles, needles
