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
from typing import TYPE_CHECKING, ClassVar

from nas.specs.tape import Extent, Shadow, Tape

if TYPE_CHECKING:
    from nas.specs.families import ModelOutline

Value = int | float | str | bool
Options = Mapping[str, Value]

EVERY_FAMILY = frozenset({"decoder", "encoder", "prefix_lm", "encoder_decoder"})

POSITIONS = ("rope", "alibi", "relative", "learned", "none")
"""How a model tells positions apart: rotary (Su et al. 2021), attention with linear biases (Press
et al. 2022), T5's bucketed biases (Raffel et al. 2020), a learned table, or not at all."""

ROPE_SCALINGS = ("none", "linear", "yarn")


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions (Su et al. 2021), as they are or stretched over a longer context.

    Attributes:
        theta: base of the frequencies.
        scaling: "none", "linear" (Chen et al. 2023) or "yarn" (Peng et al. 2023).
        factor: the context is this many times the one that was trained.
        original_context: the context in tokens that was trained; used by YaRN.
        dimensions: numbers that give a token's position: 1, or 2 for a prefix language model
            (place in the text, place inside a blank), each turning half of a head's features.
    """

    theta: float = 10_000.0
    scaling: str = "none"
    factor: float = 1.0
    original_context: float = 0.0
    dimensions: int = 1


Kind = type

_WORDS: Mapping[Kind, str] = {
    int: "an integer",
    float: "a number",
    str: "a name",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key that a block takes.

    Attributes:
        type: the Python type of its values; of a key that takes a name or a list, both.
        minimum: the smallest value allowed, for numbers.
        maximum: the largest value allowed, for numbers.
        default: the value where none is given; `None` if the key must be given, unless the
            specification derives it (see `MixerSpec.complete`).
        derived: whether the key may be left out without a default.
        doc: one line for the generated schema reference.
    """

    type: Kind | tuple[Kind, ...]
    doc: str
    minimum: float | None = None
    maximum: float | None = None
    default: Value | None = None
    derived: bool = False

    @property
    def types(self) -> tuple[Kind, ...]:
        """The types that values may have: an integer is a number too."""
        types = self.type if isinstance(self.type, tuple) else (self.type,)
        return (int, *types) if float in types else types

    @property
    def words(self) -> str:
        """What a value must be, in a message and in the reference."""
        named = self.type if isinstance(self.type, tuple) else (self.type,)
        return " or ".join(_WORDS.get(kind, kind.__name__) for kind in named)

    def admits(self, value: object) -> bool:
        """Whether the value is of one of the types; true and false are no numbers."""
        return isinstance(value, self.types) and (not isinstance(value, bool) or bool in self.types)


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
        positions: how the model tells positions apart (a name of `POSITIONS`).
        looks_ahead: whether a prefix, or the whole sequence, is seen in both directions: true for
            encoders and prefix language models, false for causal decoders.
        has_source: whether each layer attends to an encoder's output too.
        rope_dimensions: numbers that rotary positions turn by (`Rope.dimensions`); a head's
            features are a multiple of twice as many.
    """

    width: int
    max_context: int
    positions: str
    looks_ahead: bool = False
    has_source: bool = False
    rope_dimensions: int = 1


@dataclass(frozen=True)
class CachedVectors:
    """What a cache keeps of each of some tokens: vectors of equal size, such as a head's key.

    Attributes:
        tokens: that are kept.
        count: vectors of one token.
        features: elements of one vector.
    """

    tokens: int
    count: int
    features: int

    @property
    def elements(self) -> int:
        """Of all vectors of all tokens."""
        return self.tokens * self.count * self.features


class MixerSpec(ABC):
    """A token mixer: how one layer moves information between positions.

    Attributes:
        families: those that the mixer serves.
        refusals: family → why the mixer cannot serve it, for those it does not.
        implementation: the torch module, as "module:Class".
        keys: what the mixer takes.
    """

    families: ClassVar[frozenset[str]] = EVERY_FAMILY
    refusals: ClassVar[Mapping[str, str]] = {}
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

    def relative_heads(self, options: Options) -> int:
        """Heads that the stack's bucketed relative biases are added to; 0: the mixer takes none."""
        return 0

    @abstractmethod
    def parameters(self, options: Options, around: Surroundings) -> int:
        """Trainable elements."""

    @abstractmethod
    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        """Elements that decoding keeps per sequence in the cache dtype, after `context` tokens."""

    def cached_vectors(self, options: Options, around: Surroundings, context: int) -> tuple[CachedVectors, ...]:
        """Of `cache_elements` those that are kept token by token, and may so be kept in fewer bits."""
        return ()

    def recurrent_elements(self, options: Options, around: Surroundings) -> int:
        """Elements that decoding keeps per sequence in the recurrent dtype, whatever the context."""
        return 0

    @abstractmethod
    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        """Multiply-adds counted twice, per token, averaged over a sequence of `length`.

        Causal, or, where `around.looks_ahead`, with every token seeing the whole sequence.
        """

    @abstractmethod
    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        """FLOPs of one decoded token when `context` tokens are in the state."""

    def saved_elements(self, options: Options, around: Surroundings, length: int) -> float:
        """Activations that autograd keeps, per token of a sequence of `length`.

        What a mixer that follows no `sketch` of its own is counted by.
        """
        raise NotImplementedError

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        """What the mixer's `forward` does to memory, or, where `tape` records nothing, its `prefill`.

        Args:
            tape: that follows it.
            x: (B, L, width).
            options: complete.
            around: of the layer.
            extent: B and L.
        """
        kept = round(self.saved_elements(options, around, extent.length) * extent.tokens) * tape.size
        more = max(kept - x.bytes, 0)
        return tape.op([x], x.elements, saves=[x], more=more, weights=tape.weights(self.parameters(options, around)))


class MLPSpec(ABC):
    """A position-wise network: how one layer transforms each token alone."""

    implementation: ClassVar[str]
    has_hidden: ClassVar[bool]

    @abstractmethod
    def parameters(self, width: int, hidden: int) -> int:
        """Trainable elements."""

    def saved_elements(self, width: int, hidden: int) -> float:
        """Activations that autograd keeps, per token: what an MLP without a `sketch` of its own is counted by."""
        raise NotImplementedError

    def sketch(self, tape: Tape, x: Shadow, width: int, hidden: int) -> Shadow:
        """What `forward` does to memory; see `MixerSpec.sketch`."""
        kept = round(self.saved_elements(width, hidden) * (x.elements // width)) * tape.size
        weights = tape.weights(self.parameters(width, hidden))
        return tape.op([x], x.elements, saves=[x], more=max(kept - x.bytes, 0), weights=weights)


class FamilySpec(ABC):
    """A model family: how layers become a model.

    Attributes:
        implementation: the torch module, as "module:Class".
        heads: the kinds of output that it can have.
        natural_head: the one that it is pretrained with.
        decodes: whether it generates token by token, and so has a state to speak of.
        looks_ahead: whether the layers of its (last) stack see a prefix, or all, in both directions.
    """

    implementation: ClassVar[str]
    heads: ClassVar[frozenset[str]]
    natural_head: ClassVar[str]
    decodes: ClassVar[bool]
    looks_ahead: ClassVar[bool] = False

    @abstractmethod
    def parameters(self, outline: ModelOutline) -> int:
        """Trainable elements outside the layers."""
