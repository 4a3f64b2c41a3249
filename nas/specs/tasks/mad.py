"""Specification of the six tasks of mechanistic architecture design (MAD)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nas.errors import did_you_mean
from nas.specs.base import BrokenRule, Key, Options, Value
from nas.specs.tasks.base import CURVE_KEYS, MetricSpec, TaskSpec


@dataclass(frozen=True, kw_only=True)
class MadKind:
    """What one of the six is.

    Attributes:
        defaults: the published baseline settings, those of its own keys included.
        head: the output that it needs of a model.
        families: whom it serves.
    """

    defaults: Mapping[str, int | float]
    head: str = "causal_lm"
    families: frozenset[str] = frozenset({"decoder"})


MAD_KINDS: Mapping[str, MadKind] = {
    "in_context_recall": MadKind(defaults={"vocabulary": 16, "length": 128, "training_examples": 12_800}),
    "fuzzy_recall": MadKind(
        defaults={"vocabulary": 16, "length": 128, "training_examples": 12_800, "key_tokens": 3, "value_tokens": 3}
    ),
    "noisy_recall": MadKind(
        defaults={
            "vocabulary": 32,
            "length": 128,
            "training_examples": 12_800,
            "noise_tokens": 16,
            "noise_share": 0.2,
        }
    ),
    "selective_copying": MadKind(
        defaults={"vocabulary": 16, "length": 256, "training_examples": 12_800, "copied_tokens": 16}
    ),
    "compression": MadKind(
        defaults={"vocabulary": 16, "length": 32, "training_examples": 12_800},
        head="autoencoder",
        families=frozenset({"decoder", "encoder"}),
    ),
    "memorization": MadKind(defaults={"vocabulary": 256, "length": 32, "training_examples": 256}),
}
"""The kinds with the baseline settings of the authors' code (athms/mad-lab, configs/tasks)."""

_DEFAULT_KIND = "in_context_recall"
_EVERY_KINDS = ("vocabulary", "length", "training_examples")


def _defaults(key: str) -> str:
    """The defaults of a key in words."""
    users: dict[float, list[str]] = {}
    for name, kind in MAD_KINDS.items():
        if key in kind.defaults:
            users.setdefault(kind.defaults[key], []).append(name)
    return "; ".join(f"{value:g} for {', '.join(names)}" for value, names in users.items())


def _own(key: str, doc: str, *, minimum: float, kind: type = int, maximum: float | None = None) -> Key:
    return Key(type=kind, minimum=minimum, maximum=maximum, derived=True, doc=f"{doc} (default: {_defaults(key)})")


class Mad(TaskSpec):
    """The six synthetic tasks of mechanistic architecture design (MAD; Poli et al. 2024).

    in_context_recall   pairs of a key and a value; of a key that was shown before, the value is asked for
    fuzzy_recall        the same, keys and values being up to `key_tokens` and `value_tokens` tokens long
    noisy_recall        the same as the first, a share of the pairs being noise
    selective_copying   tokens between blanks, to be said in their order behind a mark
    compression         random tokens, all to be said from the features of the last one alone
    memorization        keys whose values are the same in every example: they have to be learnt by heart

    The loss of the recall kinds is that of every next token, as the authors train them; what is scored is
    what the example tells.
    """

    implementation: ClassVar[str] = "nas.tasks.mad:Mad"
    head: ClassVar[str] = "causal_lm"
    families: ClassVar[frozenset[str]] = frozenset({"decoder", "encoder"})
    keys: ClassVar[Mapping[str, Key]] = {
        **CURVE_KEYS,
        "kind": Key(type=str, default=_DEFAULT_KIND, doc=", ".join(MAD_KINDS)),
        "vocabulary": _own("vocabulary", "token kinds, marks and noise included", minimum=4),
        "length": _own("length", "tokens of an example", minimum=2),
        "training_examples": _own(
            "training_examples", "of a fixed training set; 0: fresh ones at every step", minimum=0
        ),
        "evaluation_examples": Key(
            type=int, minimum=1, default=1280, doc="held-out examples that are scored, in each part"
        ),
        "key_tokens": _own("key_tokens", "most tokens of a key", minimum=1),
        "value_tokens": _own("value_tokens", "most tokens of a value", minimum=1),
        "noise_tokens": _own("noise_tokens", "token kinds of the vocabulary that are noise", minimum=1),
        "noise_share": _own("noise_share", "how likely a pair is noise, below 1", minimum=0, maximum=0.99, kind=float),
        "copied_tokens": _own("copied_tokens", "tokens of an example that are copied", minimum=1),
    }
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "mad_accuracy": MetricSpec(
            direction="maximize",
            unit="",
            best=1.0,
            doc="of the answers that should be one token kind the share that is, averaged over token kinds",
        ),
        "mad_token_accuracy": MetricSpec(
            direction="maximize", unit="", best=1.0, doc="share of right answers, every one counting the same"
        ),
        "mad_loss": MetricSpec(
            direction="minimize", unit="nat", best=0.0, doc="mean negative log likelihood of a right answer"
        ),
    }

    def complete(self, options: Options) -> dict[str, Value]:
        """The options with the defaults of their kind filled in."""
        kind = MAD_KINDS.get(str(options.get("kind", _DEFAULT_KIND)))
        return super().complete({**(kind.defaults if kind else {}), **options})

    def head_for(self, options: Options) -> str:
        """A head that speaks of every token from one feature for compression, else that of a language model."""
        return self._kind(options).head

    def families_for(self, options: Options) -> frozenset[str]:
        """Decoders; of compression, whose targets no token shows, encoders too."""
        return self._kind(options).families

    def broken_between(self, options: Options) -> Iterator[BrokenRule]:
        yield from _RULES[str(options["kind"])](options)

    def _broken_alone(self, options: Options) -> Iterator[BrokenRule]:
        yield from super()._broken_alone(options)
        kind = options.get("kind", _DEFAULT_KIND)
        if not isinstance(kind, str):
            return
        if kind not in MAD_KINDS:
            yield BrokenRule("kind", f"unknown kind '{kind}': {did_you_mean(kind, MAD_KINDS)}")
            return
        for key in options:
            users = [name for name, found in MAD_KINDS.items() if key in found.defaults]
            if users and kind not in users:
                yield BrokenRule(key, f"'{key}' is for {', '.join(users)}, not for {kind}")

    def _kind(self, options: Options) -> MadKind:
        return MAD_KINDS.get(str(options.get("kind", _DEFAULT_KIND)), MAD_KINDS[_DEFAULT_KIND])


def mad_key_kinds(options: Options) -> int:
    """How many tokens of the vocabulary stand in keys; those behind them, one more at most, stand in values.

    One token is a mark in fuzzy recall (padding) and memorization (what asks for a value).
    """
    marks = 1 if options["kind"] in ("fuzzy_recall", "memorization") else 0
    return (int(options["vocabulary"]) - int(options.get("noise_tokens", 0)) - marks) // 2


def _broken_vocabulary(options: Options, least: int, why: str) -> Iterator[BrokenRule]:
    vocabulary = int(options["vocabulary"])
    if vocabulary < least:
        yield BrokenRule("vocabulary", f"vocabulary must be at least {least}, {why}, not {vocabulary}: nearest {least}")


def _broken_length(options: Options, least: int, why: str) -> Iterator[BrokenRule]:
    length = int(options["length"])
    if length < least:
        yield BrokenRule("length", f"length must be at least {least}, {why}, not {length}: nearest {least}")


def _broken_pairs(options: Options, least: int) -> Iterator[BrokenRule]:
    """The rules of examples that are made of pairs of two tokens."""
    length = int(options["length"])
    yield from _broken_length(options, 2 * least, f"{least} pairs of two tokens")
    if length % 2:
        yield BrokenRule("length", f"length must be even, not {length}: nearest {length + 1}")


def _broken_recall(options: Options) -> Iterator[BrokenRule]:
    yield from _broken_pairs(options, 2)
    noise = int(options.get("noise_tokens", 0))
    yield from _broken_vocabulary(options, noise + 4, "two keys, two values and the noise")


def _broken_fuzzy(options: Options) -> Iterator[BrokenRule]:
    keys, values = int(options["key_tokens"]), int(options["value_tokens"])
    longest = max(keys, values)
    why = f"padding, and keys and values of up to {longest} different tokens"
    yield from _broken_vocabulary(options, 1 + max(2 * keys, 2 * values - 1, 3), why)
    yield from _broken_length(options, 3 * (keys + values) + 1, "three of the longest pairs and one token")


def _broken_copying(options: Options) -> Iterator[BrokenRule]:
    copied = int(options["copied_tokens"])
    yield from _broken_length(options, 2 * copied + 2, "2 x copied_tokens, a mark and a blank")


def _broken_memorization(options: Options) -> Iterator[BrokenRule]:
    yield from _broken_pairs(options, 1)
    yield from _broken_vocabulary(options, 5, "two keys, two values and a mark")


_RULES: Mapping[str, Any] = {
    "in_context_recall": _broken_recall,
    "fuzzy_recall": _broken_fuzzy,
    "noisy_recall": _broken_recall,
    "selective_copying": _broken_copying,
    "compression": lambda options: iter(()),
    "memorization": _broken_memorization,
}
