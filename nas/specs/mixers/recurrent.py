"""Specifications of the classic recurrent networks.

Formulas, per layer and sequence, D width, H hidden features; G gates of a network and S vectors
that it keeps:

    lstm   G = 4   state S·H = 2·H   (Hochreiter and Schmidhuber 1997)
    gru    G = 3   state S·H = H     (Cho et al. 2014)
    rnn    G = 1   state S·H = H     (Elman 1990)

    parameters   G·H·(D + H + 2) + H·D

Where the model looks ahead there are two networks of H/2 each, one for each direction: parameters
2·G·(H/2)·(D + H/2 + 2) + H·D, and a state S·H/2, since decoding goes one way. States have the
recurrent dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from nas.specs.base import BrokenRule, Key, MixerSpec, Options, Surroundings, Value
from nas.specs.sketches.recurrent import Network, scan
from nas.specs.tape import INDEX, Extent, Shadow, Tape


class RecurrentSpec(MixerSpec):
    """What the three networks share.

    Attributes:
        gates: products of the hidden size that a token takes.
        kept: vectors of the hidden size that a state holds.
    """

    gates: ClassVar[int]
    kept: ClassVar[int] = 1
    keys: ClassVar[Mapping[str, Key]] = {
        "hidden": Key(
            type=int,
            minimum=1,
            derived=True,
            doc="hidden features (default: width); even where the model looks ahead: half for each direction",
        ),
    }

    def complete(self, options: Options, around: Surroundings) -> dict[str, Value]:
        return {"hidden": around.width, **options}

    def broken_rules(self, options: Options, around: Surroundings) -> Iterator[BrokenRule]:
        hidden = int(options["hidden"])
        if around.looks_ahead and hidden % 2:
            yield BrokenRule("hidden", f"hidden must be even where the model looks ahead, half for each way: {hidden}")

    def parameters(self, options: Options, around: Surroundings) -> int:
        hidden, directions = _hidden(options, around)
        biases = 2 * self.gates * hidden
        return directions * (self._network(hidden, around.width) + biases + hidden * around.width)

    def cache_elements(self, options: Options, around: Surroundings, context: int) -> int:
        return 0

    def recurrent_elements(self, options: Options, around: Surroundings) -> int:
        return self.kept * _hidden(options, around)[0]

    def forward_flops(self, options: Options, around: Surroundings, length: int) -> float:
        hidden, directions = _hidden(options, around)
        return 2.0 * directions * (self._network(hidden, around.width) + hidden * around.width)

    def decode_flops(self, options: Options, around: Surroundings, context: int) -> float:
        hidden, _ = _hidden(options, around)
        return 2.0 * (self._network(hidden, around.width) + hidden * around.width)

    def sketch(self, tape: Tape, x: Shadow, options: Options, around: Surroundings, extent: Extent) -> Shadow:
        hidden, directions = _hidden(options, around)
        size = max(tape.size, 4)
        network = Network(self.gates, extent.batch, extent.length, around.width, hidden, size)
        causal, kept, is_turned = scan(tape, x, network)
        y, backwards = causal, None
        if directions == 2:
            backwards = _backwards(tape, x, replace(network, length=extent.prefix), extent)
            parts = [causal, backwards]
            y, is_turned = tape.op(parts, 2 * causal.elements, passes=True, size=size), False
            del parts
        cast = y if size == tape.size else tape.op([y], y.elements)
        # The projection copies what lies in another order.
        out = tape.linear(tape.copy(cast, back=False) if is_turned else cast, directions * hidden, around.width)
        del kept, backwards
        return out

    def _network(self, hidden: int, width: int) -> int:
        """Weights of one direction."""
        return self.gates * hidden * (width + hidden)


class LSTM(RecurrentSpec):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    implementation: ClassVar[str] = "nas.mixers.recurrent:LSTM"
    gates: ClassVar[int] = 4
    kept: ClassVar[int] = 2


class GRU(RecurrentSpec):
    """Gated recurrent unit (Cho et al. 2014)."""

    implementation: ClassVar[str] = "nas.mixers.recurrent:GRU"
    gates: ClassVar[int] = 3


class RNN(RecurrentSpec):
    """Plain recurrent network with tanh (Elman 1990)."""

    implementation: ClassVar[str] = "nas.mixers.recurrent:RNN"
    gates: ClassVar[int] = 1


def _hidden(options: Options, around: Surroundings) -> tuple[int, int]:
    """Hidden features of one direction, and directions."""
    hidden = int(options["hidden"])
    return (hidden // 2, 2) if around.looks_ahead else (hidden, 1)


def _backwards(tape: Tape, x: Shadow, network: Network, extent: Extent) -> Shadow:
    """Outputs of the reading from a prefix's last token to its first, and zeros behind it."""
    total = extent.tokens * network.hidden
    if network.length == 0:
        nothing = tape.new(0)
        return tape.op([nothing], total)
    if extent.has_own_prefixes:
        return _turned_in_place(tape, x, network, extent)
    y, kept, _ = scan(tape, tape.copy(tape.view(x, network.inputs)), network)
    turned = tape.op([y], y.elements, size=network.size)
    del y, kept
    return turned if network.length == extent.length else tape.op([turned], total, size=network.size)


def _turned_in_place(tape: Tape, x: Shadow, network: Network, extent: Extent) -> Shadow:
    """The same where each sequence has a prefix of its own, and is turned by the places of its tokens."""
    count = network.batch * network.length
    tape.scratch(INDEX * (network.length + 2 * count))
    places, turned = tape.new(count, INDEX), tape.new(count, INDEX)
    # Watched, the way back of picking adds into a copy of zeros.
    given = tape.op([x], network.inputs, saves=[x, turned], back=x.bytes)
    y, kept, _ = scan(tape, given, network)
    del given
    gathered = tape.op([y], y.elements, saves=[y, turned], back=y.bytes, size=network.size)
    outside = tape.new(count, 1)
    masked = tape.op([gathered], y.elements, saves=[outside], size=network.size)
    del gathered, outside, y, kept, places, turned
    if network.length == extent.length:
        return masked
    return tape.op([masked], extent.tokens * network.hidden, size=network.size)
