"""Specification of Mamba-2, a state space model.

    mamba2    recurrent heads·P·N, cache (k − 1)·(e·d + 2·g·N)    (Dao & Gu 2024)

d width, e·d = heads·P inner features, P features of a head, N of the state, g groups of heads that
share keys and queries, k kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from nas.specs.base import BrokenRule, Key, MixerSpec, Options, Surroundings
from nas.specs.mixers.linear import chunk_states

CHUNK = 32


@dataclass(frozen=True)
class _Size:
    """The numbers that all formulas are made of."""

    inner: int
    heads: int
    state: int
    groups: int
    kernel: int

    @classmethod
    def of(cls, options: Options, around: Surroundings) -> _Size:
        inner = int(options["expand"]) * around.width
        return cls(
            inner=inner,
            heads=inner // int(options["head_dim"]),
            state=int(options["state_dim"]),
            groups=int(options["groups"]),
            kernel=int(options["conv"]),
        )

    @property
    def shared(self) -> int:
        """Features of all keys, or of all queries."""
        return self.groups * self.state

    @property
    def convolved(self) -> int:
        return self.inner + 2 * self.shared


class Mamba2(MixerSpec):
    """The Mamba-2 block."""

    implementation: ClassVar[str] = "nas.mixers.state_space:Mamba2"
    keys: ClassVar[Mapping[str, Key]] = {
        "expand": Key(type=int, minimum=1, default=2, doc="inner features, as a multiple of the width"),
        "head_dim": Key(type=int, minimum=1, default=32, doc="features of a head; they divide expand x width"),
        "state_dim": Key(type=int, minimum=1, default=32, doc="features of a head's state per feature of the head"),
        "groups": Key(type=int, minimum=1, default=1, doc="groups of heads that share keys and queries; divide heads"),
        "conv": Key(type=int, minimum=1, default=4, doc="kernel of the short convolution"),
    }

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        size, head_dim = _Size.of(options, around), int(options["head_dim"])
        if size.inner % head_dim:
            yield BrokenRule(
                "head_dim", f"head_dim must divide expand x width: {head_dim} does not divide {size.inner}"
            )
        elif size.heads % size.groups:
            yield BrokenRule("groups", f"groups must divide heads: {size.groups} does not divide {size.heads}")

    def parameters(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options, around)
        # The convolution with its bias; a rate, a skip and a time step per head; the norm.
        own = size.convolved * (size.kernel + 1) + 3 * size.heads + size.inner
        return self._projections(size, around) + own

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        size = _Size.of(options, around)
        return (size.kernel - 1) * size.convolved

    def recurrent_elements(self, options: Options, around: Surroundings) -> int:
        size = _Size.of(options, around)
        return size.inner * size.state

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        size, chunk = _Size.of(options, around), min(CHUNK, length)
        # Scores are shared by the heads of a group.
        scan = 2.0 * chunk * (size.shared + size.inner) + 4.0 * size.inner * size.state
        return self._flops_outside(size, around) + scan * (2 if around.looks_ahead else 1)

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        size = _Size.of(options, around)
        return self._flops_outside(size, around) + 5.0 * size.inner * size.state

    def saved_elements(self, options: Options, around: Surroundings, length: int) -> float:
        size = _Size.of(options, around)
        # The input and its projection; the convolution's padded input and output, and its swish.
        before = around.width + size.inner + size.heads + size.convolved * (4 + (size.kernel - 1) / length)
        # Logits, time steps and decays; what heads read; states.
        states = chunk_states(length, CHUNK) * size.inner * size.state
        scan = 3 * size.heads + size.inner + states
        # The norm's number per group and its output.
        after = size.groups + size.inner
        if around.looks_ahead:
            # The second scan keeps its inputs turned round, and what it reads; and then the sum is kept.
            scan += size.convolved + 2 * size.heads + 2 * size.inner + states
        return before + scan + after

    @staticmethod
    def _projections(size: _Size, around: Surroundings) -> int:
        return around.width * (2 * size.inner + size.convolved + size.heads)

    def _flops_outside(self, size: _Size, around: Surroundings) -> float:
        return 2.0 * (self._projections(size, around) + size.convolved * size.kernel + size.inner)
