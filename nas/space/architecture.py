"""An architecture: the network alone, frozen, in canonical form.

In: a plain mapping (from a space's draw, a JSON file, or a published model's card).
Out: an `Architecture` whose `fingerprint` is equal for equal networks: inactive keys are dropped,
defaults filled in, a window that covers max_context is full attention.

Every rule about networks is checked here, when the architecture is made and never deep inside a
forward pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from nas.errors import SpaceError, did_you_mean
from nas.space.layers import Layer, make_layer
from nas.space.values import at_place, check_value
from nas.specs import family_spec, mixer_spec
from nas.specs.base import POSITIONS, ROPE_SCALINGS, Key, Rope, Surroundings
from nas.specs.tasks import TaskShape

NORMS = ("rms", "layer")
_DEFAULT_THETA = 10_000.0
# The family with two stacks of layers.
_TWO_STACKS = "encoder_decoder"

GLOBAL_KEYS: Mapping[str, Key] = {
    "width": Key(type=int, minimum=1, doc="features of the residual stream"),
    "max_context": Key(type=int, minimum=1, doc="longest context in tokens"),
    "positions": Key(
        type=str, default="rope", doc=f"how positions are told apart: {', '.join(POSITIONS[:-1])} or {POSITIONS[-1]}"
    ),
    "rope_theta": Key(type=float, minimum=1, default=_DEFAULT_THETA, doc="base of the rotary frequencies"),
    "rope_scaling": Key(
        type=str, default="none", doc="how rotary positions are stretched over a longer context: none, linear or yarn"
    ),
    "rope_factor": Key(
        type=float, minimum=1, default=1.0, doc="max_context as a multiple of the context that was trained"
    ),
    "norm": Key(type=str, default="rms", doc="rms (RMSNorm) or layer (LayerNorm without bias)"),
    "embedding_norm": Key(
        type=bool, default=False, doc="whether the embedding is normalised, and the first layer then not again"
    ),
    "tied_embeddings": Key(type=bool, default=True, doc="whether the head shares the embedding's weights"),
    "vocabulary": Key(type=int, minimum=2, doc="token kinds; given by the task"),
    "labels": Key(type=int, minimum=1, doc="outputs of a classification head; given by the task"),
}
CHOICES: Mapping[str, Sequence[str]] = {"positions": POSITIONS, "rope_scaling": ROPE_SCALINGS, "norm": NORMS}
_STACK_KEYS = ("layers", "encoder", "decoder")
# Left out of the plain values where they have their defaults: most networks do.
_SILENT = ("rope_scaling", "rope_factor", "norm", "embedding_norm")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network, before (unbound) or after (bound) a task has given it a vocabulary and a head.

    Make one with `Architecture.from_mapping` or `Architecture.from_json`; both check every rule.

    Attributes:
        family: "decoder", "encoder", "prefix_lm" or "encoder_decoder".
        width: features of the residual stream.
        max_context: longest context in tokens; of an encoder–decoder, of the source and of the
            target, each.
        layers: from the first (next to the embedding) to the last; of an encoder–decoder, those of
            the decoder.
        encoder_layers: those of the encoder of an encoder–decoder, else none.
        positions: "rope", "alibi", "relative", "learned" or "none".
        rope_theta: base of the rotary frequencies (Su et al. 2021).
        rope_scaling: "none", "linear" or "yarn": how they are stretched over a longer context.
        rope_factor: max_context as a multiple of the context that was trained.
        norm: "rms" or "layer".
        embedding_norm: whether the embedding is normalised, and the first layer then not again.
        tied_embeddings: whether the head shares the embedding's weights.
        vocabulary: token kinds, or None while unbound.
        head: the kind of output, or None while unbound.
        labels: outputs of a classification head, else None.
    """

    family: str
    width: int
    max_context: int
    layers: tuple[Layer, ...]
    encoder_layers: tuple[Layer, ...] = ()
    positions: str = "rope"
    rope_theta: float = _DEFAULT_THETA
    rope_scaling: str = "none"
    rope_factor: float = 1.0
    norm: str = "rms"
    embedding_norm: bool = False
    tied_embeddings: bool = True
    vocabulary: int | None = None
    head: str | None = None
    labels: int | None = None

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers of the encoder, if there is one beside a decoder, and then `layers`."""
        return self.encoder_layers + self.layers

    @property
    def depth(self) -> int:
        """The number of layers, of both stacks where there are two."""
        return len(self.all_layers)

    @property
    def rope(self) -> Rope:
        """How rotary positions turn."""
        return Rope(
            theta=self.rope_theta,
            scaling=self.rope_scaling,
            factor=self.rope_factor,
            original_context=self.max_context / self.rope_factor,
            dimensions=self.surroundings.rope_dimensions,
        )

    @cached_property
    def surroundings(self) -> Surroundings:
        """What the specifications of `layers` must know of the whole."""
        return _surroundings(self.family, self.width, self.max_context, self.positions)

    @cached_property
    def encoder_surroundings(self) -> Surroundings:
        """What the specifications of `encoder_layers` must know of the whole."""
        return replace(self.surroundings, looks_ahead=True, has_source=False)

    @cached_property
    def placed_layers(self) -> tuple[tuple[Layer, Surroundings], ...]:
        """All layers, each with what is around it."""
        encoder = [(layer, self.encoder_surroundings) for layer in self.encoder_layers]
        return (*encoder, *((layer, self.surroundings) for layer in self.layers))

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, equal for equal networks."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def bind(self, shape: TaskShape) -> Architecture:
        """This architecture with the vocabulary and the head of a task.

        Raises:
            SpaceError: the family has no such head, or the architecture is bound otherwise.
        """
        if self.vocabulary is not None and (self.vocabulary, self.head) != (shape.vocabulary, shape.head):
            raise SpaceError(
                f"the architecture is bound to {self.vocabulary} tokens and head '{self.head}', "
                f"the task has {shape.vocabulary} and '{shape.head}'"
            )
        heads = family_spec(self.family).heads
        if shape.head not in heads:
            raise SpaceError(f"family '{self.family}' has no head '{shape.head}': {did_you_mean(shape.head, heads)}")
        return replace(self, vocabulary=shape.vocabulary, head=shape.head, labels=shape.labels)

    @property
    def extends(self) -> bool:
        """Whether its weights can be read with a longer context: not where positions are a learned table."""
        return self.positions != "learned"

    def extended(self, factor: float, scaling: str = "yarn") -> Architecture:
        """The same network over a longer context; weights of this one fit it as they are.

        Args:
            factor: how many times the context.
            scaling: of rotary positions: "linear" (Chen et al. 2023) or "yarn" (Peng et al. 2023);
                other positions need none.

        Raises:
            SpaceError: learned positions end where they were trained, the factor is below 1, or the
                architecture is stretched otherwise already.
        """
        if self.positions == "learned":
            raise SpaceError(f"learned positions end at {self.max_context} tokens: they do not extend")
        if factor < 1:
            raise SpaceError(f"factor must be at least 1, not {factor}")
        mapping = self.to_mapping() | {"max_context": round(self.max_context * factor)}
        if self.positions == "rope":
            if self.rope_scaling not in ("none", scaling):
                raise SpaceError(
                    f"the rotary positions are stretched by '{self.rope_scaling}' already, not '{scaling}'"
                )
            mapping |= {"rope_scaling": scaling, "rope_factor": self.rope_factor * factor}
        return Architecture.from_mapping(mapping)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as they stand in JSON; unbound fields are left out."""
        mapping: dict[str, Any] = {
            "family": self.family,
            "width": self.width,
            "max_context": self.max_context,
            "positions": self.positions,
            "rope_theta": self.rope_theta,
            "tied_embeddings": self.tied_embeddings,
        }
        mapping |= {key: getattr(self, key) for key in _SILENT if getattr(self, key) != GLOBAL_KEYS[key].default}
        if self.encoder_layers:
            mapping |= {"encoder": {"layers": _plain(self.encoder_layers)}, "decoder": {"layers": _plain(self.layers)}}
        else:
            mapping["layers"] = _plain(self.layers)
        if self.vocabulary is not None:
            mapping |= {"vocabulary": self.vocabulary, "head": self.head}
        if self.labels is not None:
            mapping["labels"] = self.labels
        return mapping

    def to_json(self) -> str:
        """One line of JSON with sorted keys; `from_json` gives the same architecture back."""
        return json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Architecture:
        """The architecture of a JSON text.

        Raises:
            SpaceError: the text is no JSON object, or the network breaks a rule.
        """
        try:
            mapping = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpaceError(f"an architecture is a JSON object; line {error.lineno}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise SpaceError(f"an architecture is a JSON object: {error}") from None
        if not isinstance(mapping, dict):
            raise SpaceError(f"an architecture is a JSON object, not {type(mapping).__name__}")
        return Architecture.from_mapping(mapping)

    @staticmethod
    def from_mapping(mapping: Mapping[str, Any]) -> Architecture:
        """The canonical architecture of plain values.

        Args:
            mapping: the fields, with `layers` as a list of mappings; an encoder–decoder has
                `encoder: {layers: […]}` and `decoder: {layers: […]}` instead.

        Raises:
            SpaceError: the network breaks a rule; the message names the layer, the key, the rule.
        """
        valid = [*(set(Architecture.__dataclass_fields__) - {"encoder_layers"}), "encoder", "decoder"]
        for key in mapping:
            if key not in valid:
                raise SpaceError(f"unknown key '{key}' of an architecture: {did_you_mean(key, valid)}")
        for key in ("family", "width", "max_context"):
            if key not in mapping:
                raise SpaceError(f"an architecture needs '{key}'")
        stacks = _stacks(mapping)
        plain = whole_model({key: value for key, value in mapping.items() if key not in _STACK_KEYS})
        family, positions = str(mapping["family"]), str(mapping.get("positions", "rope"))
        around = _surroundings(family, mapping["width"], mapping["max_context"], positions)
        made: dict[str, tuple[Layer, ...]] = {}
        for field, (where, entries) in stacks.items():
            ahead = replace(around, looks_ahead=True, has_source=False) if field == "encoder_layers" else around
            made[field] = tuple(
                make_layer(entry, ahead, family=family, where=f"{where}[{index}]")
                for index, entry in enumerate(entries)
            )
            if problem := stack_problem(made[field], positions):
                raise SpaceError(f"{where}: {problem}")
        return Architecture(**{**plain, **made})


def whole_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an architecture besides its layers, checked and canonical.

    Raises:
        SpaceError: a value breaks a rule.
    """
    _check_globals(values)
    return {**values, **_canonical_rope(values)}


def stack_problem(layers: Sequence[Layer], positions: str) -> str:
    """The rule between the layers of one stack that they break, or ""."""
    if positions != "relative":
        return ""
    heads = sorted({mixer_spec(layer.mixer).relative_heads(layer.values) for layer in layers} - {0})
    if len(heads) > 1:
        found = " and ".join(map(str, heads))
        return (
            f"relative positions share one table of biases: all attention layers need equally many heads, not {found}"
        )
    return ""


def relative_heads(layers: Sequence[Layer], positions: str) -> int:
    """Heads of the biases that the layers of a stack share; 0: none."""
    if positions != "relative":
        return 0
    return max((mixer_spec(layer.mixer).relative_heads(layer.values) for layer in layers), default=0)


@lru_cache(maxsize=4_096)
def _surroundings(family: str, width: int, max_context: int, positions: str) -> Surroundings:
    is_blank_infilling = family == "prefix_lm"
    return Surroundings(
        width=width,
        max_context=max_context,
        positions=positions,
        looks_ahead=family_spec(family).looks_ahead,
        has_source=family == _TWO_STACKS,
        rope_dimensions=2 if is_blank_infilling and positions == "rope" else 1,
    )


def _plain(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    return [
        {"mixer": layer.mixer, **{key: value for key, value in layer.options if key != "mlp_ratio"}} for layer in layers
    ]


def _stacks(mapping: Mapping[str, Any]) -> dict[str, tuple[str, Sequence[Any]]]:
    """Field of an architecture → where its layers stand, and the layers."""
    family = mapping["family"]
    if family != _TWO_STACKS:
        for key in ("encoder", "decoder"):
            if key in mapping:
                raise SpaceError(f"'{key}' is for family '{_TWO_STACKS}'; family '{family}' has 'layers'")
        if "layers" not in mapping:
            raise SpaceError("an architecture needs 'layers'")
        return {"layers": ("layers", _checked_list("layers", mapping["layers"]))}
    if "layers" in mapping:
        raise SpaceError(
            f"family '{_TWO_STACKS}' has 'encoder' and 'decoder', each with 'layers', and no 'layers' of its own"
        )
    found = {}
    for field, key in (("encoder_layers", "encoder"), ("layers", "decoder")):
        stack = mapping.get(key)
        if not isinstance(stack, Mapping) or set(stack) != {"layers"}:
            raise SpaceError(f"family '{_TWO_STACKS}' needs '{key}: {{layers: […]}}'")
        found[field] = (f"{key}.layers", _checked_list(f"{key}.layers", stack["layers"]))
    return found


def _checked_list(where: str, layers: Any) -> Sequence[Any]:
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not layers:
        raise SpaceError(f"{where} must be a list of at least one layer")
    return layers


def _check_globals(mapping: Mapping[str, Any]) -> None:
    family = at_place("architecture", lambda: family_spec(str(mapping["family"])))
    for key, known in GLOBAL_KEYS.items():
        if key in mapping and (mapping[key] is not None or key not in ("vocabulary", "labels")):
            check_value(key, mapping[key], known, "architecture")
    for key, allowed in CHOICES.items():
        if mapping.get(key, allowed[0]) not in allowed and key in mapping:
            raise SpaceError(f"unknown {key} '{mapping[key]}': {did_you_mean(mapping[key], allowed)}")
    vocabulary, head = mapping.get("vocabulary"), mapping.get("head")
    if (vocabulary is None) != (head is None):
        raise SpaceError("a bound architecture has 'vocabulary' and 'head', an unbound one neither")
    if head is None:
        return
    check_value("head", head, Key(type=str, doc="the kind of output"), "architecture")
    if head not in family.heads:
        raise SpaceError(f"family '{mapping['family']}' has no head '{head}': {did_you_mean(head, family.heads)}")


def _canonical_rope(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """One way to write how rotary positions turn: defaults where nothing rotates or is stretched.

    Raises:
        SpaceError: a factor without a scaling.
    """
    theta = float(mapping.get("rope_theta", _DEFAULT_THETA))
    scaling, factor = str(mapping.get("rope_scaling", "none")), float(mapping.get("rope_factor", 1.0))
    if mapping.get("positions", "rope") != "rope":
        return {"rope_theta": _DEFAULT_THETA, "rope_scaling": "none", "rope_factor": 1.0}
    if scaling == "none" and factor != 1.0:
        raise SpaceError(f"rope_factor {factor:g} needs a rope_scaling: linear or yarn")
    return {"rope_theta": theta, "rope_scaling": scaling if factor != 1.0 else "none", "rope_factor": factor}
