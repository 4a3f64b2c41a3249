"""What a specification is: the torch-free description of a building block.

A specification knows the keys that its block takes, the rules between them, whom it serves, the
torch module that implements it, and its exact formulas. Spaces are checked and memory is
predicted from specifications alone.

Counts are in *elements*; bytes are formed in `nas.cost`, where the dtypes are known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

Value = int | float | str | bool
Options = Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key that a block takes.

    Attributes:
        type: the Python type of its values.
        minimum: the smallest value allowed, for numbers.
        maximum: the largest value allowed, for numbers.
        default: the value where none is given; `None` if the key must be given, unless the
            specification derives it (see `MixerSpec.complete`).
        doc: one line for the generated schema reference.
    """

    type: type
    doc: str
    minimum: float | None = None
    maximum: float | None = None
    default: Value | None = None
    derived: bool = False


@dataclass(frozen=True)
class BrokenRule:
    """A rule that the options of a block break.

    Attributes:
        key: the key that could be changed to mend it.
        text: the rule with the values that break it.
    """

    key: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a block must know of the model around it.

    Attributes:
        width: features of the residual stream.
        max_context: the longest context in tokens that the model is trained for.
        positions: how the model tells positions apart ("rope" or "none").
    """

    width: int
    max_context: int
    positions: str


class MixerSpec(ABC):
    """A token mixer: how one layer moves information between positions."""

    families: ClassVar[frozenset[str]]
    implementation: ClassVar[str]
    keys: ClassVar[Mapping[str, Key]]

    def complete(self, options: Options, around: Surroundings) -> dict[str, Value]:
        """The options with derived defaults filled in."""
        return dict(options)

    def canonical(self, name: str, options: Options, around: Surroundings) -> tuple[str, dict[str, Value]]:
        """The mixer and options that build the same network in the fewest words."""
        return name, dict(options)

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        """The rules between keys that these (complete) options break."""
        return iter(())

    @abstractmethod
    def parameters(self, options: Options, around: Surroundings) -> int:
        """Trainable elements."""

    @abstractmethod
    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        """Elements that decoding keeps per sequence in the cache dtype, after `context` tokens."""

    def recurrent_elements(self, options: Options, around: Surroundings) -> int:
        """Elements that decoding keeps per sequence in the recurrent dtype, whatever the context."""
        return 0

    @abstractmethod
    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        """Multiply-adds counted twice, per token, averaged over a causal sequence of `length`."""

    @abstractmethod
    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        """FLOPs of one decoded token when `context` tokens are in the state."""

    @abstractmethod
    def saved_elements(self, options: Options, around: Surroundings, length: int) -> float:
        """Activations that autograd keeps, per token of a sequence of `length`."""


class MLPSpec(ABC):
    """A position-wise network: how one layer transforms each token alone."""

    implementation: ClassVar[str]
    has_hidden: ClassVar[bool]

    @abstractmethod
    def parameters(self, width: int, hidden: int) -> int:
        """Trainable elements."""

    @abstractmethod
    def saved_elements(self, width: int, hidden: int) -> float:
        """Activations that autograd keeps, per token."""


class FamilySpec(ABC):
    """A model family: how layers become a model."""

    implementation: ClassVar[str]
    heads: ClassVar[frozenset[str]]
    decodes: ClassVar[bool]
    """Whether the family generates token by token, and so has a state to speak of."""

    @abstractmethod
    def parameters(self, *, width: int, vocabulary: int, tied_embeddings: bool) -> int:
        """Trainable elements outside the layers."""
