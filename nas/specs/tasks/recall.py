"""Specification of multi-query associative recall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options, Value
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec

FILLERS = ("zero", "random")

RECALL_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "zoology": {
        "vocabulary": 8192,
        "train_settings": [[64, 4, 100_000], [128, 8, 100_000], [256, 16, 100_000], [512, 64, 100_000]],
        "test_settings": [[64, 4], [128, 8], [256, 16], [512, 64]],
        "evaluation_examples": 3000,
    },
    "based": {
        "vocabulary": 8192,
        "train_settings": [[64, 4, 100_000], [128, 8, 20_000], [256, 16, 20_000], [256, 32, 20_000], [256, 64, 20_000]],
        "test_settings": [[64, 4], [64, 8], [64, 16], [128, 32], [256, 64], [512, 128], [1024, 256]],
        "evaluation_examples": 1000,
    },
}
"""Published settings: Arora et al. 2023 (Zoology), whose models see one of the four each, and 2024 (Based)."""

_SETTINGS = ("train_settings", "test_settings")


@dataclass(frozen=True)
class RecallSetting:
    """One size of examples.

    Attributes:
        length: tokens of an example.
        pairs: of keys and values.
        examples: of the training set; None where every step has fresh ones.
    """

    length: int
    pairs: int
    examples: int | None = None

    @property
    def metric(self) -> str:
        """The name of its own accuracy."""
        return f"recall_accuracy_{self.length}x{self.pairs}"


def recall_settings(options: Options, key: str) -> tuple[RecallSetting, ...]:
    """The sizes to train or to test on.

    Args:
        options: complete.
        key: "train_settings" or "test_settings".
    """
    listed: Any = options.get(key)
    if listed is None:
        return (RecallSetting(int(options["length"]), int(options["pairs"])),)
    return tuple(RecallSetting(*sizes) for sizes in listed)


def _accuracy(doc: str) -> MetricSpec:
    return MetricSpec(direction="maximize", unit="", best=1.0, doc=doc)


def _accuracy_of(setting: RecallSetting) -> MetricSpec:
    return _accuracy(f"the same with {setting.pairs} pairs in {setting.length} tokens (of several settings)")


class Recall(TaskSpec):
    """Multi-query associative recall (MQAR; Arora et al. 2023, Zoology).

    One size of examples with fresh ones at each step; or several, as in the second paper (Arora et al.
    2024, Based): `variant` names the published lists, `train_settings` and `test_settings` are one's own.
    Each size that is tested besides others has an accuracy of its own, `recall_accuracy_64x4` for 4 pairs
    in 64 tokens; `metrics` lists those of the published sizes. The task's score is their mean.
    """

    implementation: ClassVar[str] = "nas.tasks.recall:Recall"
    head: ClassVar[str] = "causal_lm"
    families: ClassVar[frozenset[str]] = frozenset({"decoder"})
    keys: ClassVar[Mapping[str, Key]] = {
        **CURVE_KEYS,
        "vocabulary": Key(type=int, minimum=8, default=128, doc="token kinds; keys and values share them in halves"),
        "length": Key(type=int, minimum=4, default=128, doc="tokens of an example, at least 4 x pairs"),
        "pairs": Key(type=int, minimum=1, default=8, doc="key-value pairs of an example"),
        "filler": Key(type=str, default="zero", doc="what stands between the queries: zero or random"),
        "evaluation_examples": Key(
            type=int, minimum=1, default=256, doc="held-out examples that are scored, of each setting"
        ),
        "variant": Key(
            type=str,
            derived=True,
            doc=f"instead of length and pairs, the settings of a paper: {' or '.join(RECALL_VARIANTS)}",
        ),
        "train_settings": Key(
            type=list,
            derived=True,
            doc="instead of length and pairs: [length, pairs] or [length, pairs, examples] for each size to train on; "
            "with examples a fixed set of so many, all of which are seen once before one is seen again",
        ),
        "test_settings": Key(
            type=list,
            derived=True,
            doc="[length, pairs] for each size to test on (default: those of train_settings)",
        ),
    }
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "recall_accuracy": _accuracy("share of queries answered with their value; of several settings, their mean"),
        "recall_loss": MetricSpec(
            direction="minimize",
            unit="nat",
            best=0.0,
            doc="mean negative log likelihood of a queried value; of several settings, their mean",
        ),
        **{
            setting.metric: _accuracy_of(setting)
            for variant in RECALL_VARIANTS.values()
            for setting in recall_settings(variant, "test_settings")
        },
    }

    def complete(self, options: Options) -> dict[str, Value]:
        """The options with defaults filled in; a variant's settings are written out."""
        given: dict[str, Any] = dict(options)
        given = {**RECALL_VARIANTS.get(str(given.pop("variant", "")), {}), **given}
        filled: dict[str, Any] = super().complete(given)
        if "train_settings" in given:
            sizes = dict.fromkeys((length, pairs) for length, pairs, *_ in given["train_settings"])
            filled.setdefault("test_settings", [list(size) for size in sizes])
            filled = {key: value for key, value in filled.items() if key not in ("length", "pairs")}
        return filled

    def measured(self, options: Options) -> Mapping[str, MetricSpec]:
        """Accuracy and loss, and the accuracy of each of several settings."""
        found = {name: self.metrics[name] for name in ("recall_accuracy", "recall_loss")}
        settings = recall_settings(self.complete(options), "test_settings")
        return found | ({setting.metric: _accuracy_of(setting) for setting in settings} if len(settings) > 1 else {})

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        vocabulary = int(options["vocabulary"])
        if vocabulary % 2:
            yield BrokenRule("vocabulary", f"vocabulary must be even, not {vocabulary}: nearest {vocabulary + 1}")
        if "train_settings" not in options:
            yield from _broken_size(vocabulary, RecallSetting(int(options["length"]), int(options["pairs"])))
        for key in _SETTINGS:
            for setting in recall_settings(options, key) if key in options else ():
                for broken in _broken_size(vocabulary, setting):
                    yield BrokenRule(key, f"{key} [{setting.length}, {setting.pairs}]: {broken.text}")
        if options["filler"] not in FILLERS:
            yield BrokenRule(
                "filler", f"unknown filler '{options['filler']}': {did_you_mean(options['filler'], FILLERS)}"
            )

    def _broken_alone(self, options: Options) -> Iterator[BrokenRule]:
        yield from super()._broken_alone(options)
        variant = options.get("variant")
        if isinstance(variant, str) and variant not in RECALL_VARIANTS:
            yield BrokenRule("variant", f"unknown variant '{variant}': {did_you_mean(variant, RECALL_VARIANTS)}")
        source = next((key for key in ("variant", "train_settings") if key in options), None)
        if source is None and "test_settings" in options:
            yield BrokenRule("test_settings", "test_settings needs train_settings, what is trained on")
        excluded = {"variant": ("length", "pairs", *_SETTINGS), "train_settings": ("length", "pairs")}
        for key in excluded.get(source or "", ()):
            if key in options:
                yield BrokenRule(key, f"{source} and {key} exclude each other: give one")
        for key in _SETTINGS:
            listed = options.get(key)
            if isinstance(listed, list):
                yield from _broken_list(key, listed)


def _broken_size(vocabulary: int, setting: RecallSetting) -> Iterator[BrokenRule]:
    """The rules that a size breaks."""
    length, pairs = setting.length, setting.pairs
    if length % 2:
        yield BrokenRule("length", f"length must be even, not {length}: nearest {length + 1}")
    if pairs < 1:
        yield BrokenRule("pairs", f"pairs must be at least 1, not {pairs}")
    if 4 * pairs > length:
        yield BrokenRule(
            "length", f"length must be at least 4 x pairs = {4 * pairs}, not {length}: nearest {4 * pairs}"
        )
    # Token 0 is the filler, so one half of the vocabulary has a key less than the other has values.
    if pairs > vocabulary // 2 - 1:
        yield BrokenRule(
            "vocabulary",
            f"pairs must be at most vocabulary / 2 - 1 = {vocabulary // 2 - 1}, not {pairs}: "
            f"nearest vocabulary {2 * (pairs + 1)}",
        )


def _broken_list(key: str, listed: list[Any]) -> Iterator[BrokenRule]:
    """What is wrong with the form of a list of settings."""
    shapes = ("[length, pairs]", "[length, pairs, examples]")[: 2 if key == "train_settings" else 1]
    if not listed:
        yield BrokenRule(key, f"{key} must hold at least one {' or '.join(shapes)}")
    for entry in listed:
        is_whole = isinstance(entry, list) and all(type(size) is int and size >= 1 for size in entry)
        if not is_whole or not 2 <= len(entry) <= 1 + len(shapes):
            yield BrokenRule(key, f"{key} holds {' or '.join(shapes)} in whole numbers from 1 on, not {entry!r}")
            return
    if len({len(entry) for entry in listed}) > 1:
        yield BrokenRule(key, f"{key} must give the examples of every setting or of none")
    seen: set[tuple[int, ...]] = set()
    for entry in listed:
        if tuple(entry[:2]) in seen:
            yield BrokenRule(key, f"{key} must hold [{entry[0]}, {entry[1]}] once")
        seen.add(tuple(entry[:2]))
