"""What `nas.mixers.recurrent`, the networks whose tokens wait for each other, does to memory.

In: a shadow of the features and the sizes of one direction. Out: shadows of its outputs and of what it keeps.

Counted as on a processor, where LSTMs have a kernel and the two others run token by token; tokens that do the same
are counted and not followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from nas.specs.tape import Shadow, Tape

_PAGE: Final = 4096


@dataclass(frozen=True)
class Network:
    """One direction.

    Attributes:
        gates: products of the hidden size that a token takes: 4 in an LSTM, 3 in a GRU, 1 in a plain network.
        batch: sequences.
        length: tokens of each.
        width: features of a token.
        hidden: features of a state.
        size: bytes of an element that is computed with: float32 or better.
    """

    gates: int
    batch: int
    length: int
    width: int
    hidden: int
    size: int

    @property
    def outputs(self) -> int:
        """Elements of all outputs."""
        return self.batch * self.length * self.hidden

    @property
    def inputs(self) -> int:
        """Elements of all features."""
        return self.batch * self.length * self.width

    @property
    def state(self) -> int:
        """Elements of one vector of each sequence."""
        return self.batch * self.hidden

    @property
    def turns(self) -> bool:
        """Whether tokens in the order of time are another order than in the order of sequences."""
        return self.batch > 1 and self.length > 1

    @property
    def weights(self) -> tuple[int, int, int, int]:
        """Elements of the weights, of features and of states, and of two biases."""
        rows = self.gates * self.hidden
        return rows * self.width, rows * self.hidden, rows, rows


def scan(tape: Tape, x: Shadow, network: Network) -> tuple[Shadow, Shadow | None, bool]:
    """`Recurrent._scan`: outputs, what is kept (None: a view of them), and whether outputs lie in the order of time."""
    whole = None
    if tape.size != network.size:
        # Weights below float32 are joined and cast, and the features too.
        stored = tape.new(sum(network.weights))
        whole = tape.op([], stored.elements, size=network.size, weights=tape.weights(*network.weights))
        del stored
    zero = tape.new(network.state, network.size)
    if whole is not None:
        # What was given is let go, unless somebody else holds it.
        x = tape.op([x], network.inputs, size=network.size)
    y, kept, turns = _run(tape, x, zero, network, whole)
    del whole
    return y, kept, turns


def _run(
    tape: Tape, x: Shadow, zero: Shadow, network: Network, whole: Shadow | None
) -> tuple[Shadow, Shadow | None, bool]:
    """`whole`: the weights where they are cast, which then get their gradient through the cast."""
    if network.gates == 4:
        return *_lstm(tape, x, zero, network, whole), network.turns
    if tape.records:
        return _unrolled_by_hand(tape, x, network, whole), None, False
    return *_unrolled(tape, network), network.turns


def _lstm(tape: Tape, x: Shadow, zero: Shadow, network: Network, whole: Shadow | None) -> tuple[Shadow, Shadow]:
    size = network.size
    given = x
    if network.turns:
        given = tape.copy(x, back=False) if tape.records else tape.new(network.inputs, size)
    if tape.records:
        y = tape.op(
            [given] if whole is None else [given, whole],
            network.outputs,
            saves=[given, zero] if whole is None else [given, zero, whole],
            keeps=True,
            # The last output and the last cell are saved beside the kernel's own notes, and get a gradient each.
            more=2 * network.state * size + _workspace(network),
            back=2 * network.state * size,
            weights=tape.weights(*network.weights) if whole is None else (),
            size=size,
        )
        return y, tape.new(2 * network.state, size)
    y, last = tape.new(network.outputs, size), tape.new(2 * network.state, size)
    kept = tape.new(2 * network.state, size)
    del given, last
    return y, kept


def _workspace(network: Network) -> int:
    """Bytes that oneDNN's LSTM leaves for its way back, read off PyTorch's real operation on an x86 processor.

    Gates and hidden outputs of each token; states, their gradients and the cells before and after each, for one layer
    more than there is. Rows are padded to 64 bytes, and by as much again where they would be multiples of 256 numbers;
    parts begin at pages. Where PyTorch is not asked for numbers, as with fake tensors, it says 0 bytes instead: a trace
    of those lacks all of this.
    """
    size, tokens = network.size, network.batch * network.length
    states = 2 * network.batch * (network.length + 1)
    hidden, wide = network.hidden, max(network.hidden, network.width)
    parts = [tokens * _padded(4 * hidden, size), tokens * _padded(hidden, size)]
    parts += [states * _padded(wide, size)] * 3 + [states * hidden] * 2
    return sum(-(-part * size // _PAGE) * _PAGE for part in parts)


def _padded(features: int, size: int) -> int:
    step = 64 // size
    rounded = -(-features // step) * step
    return rounded + step if rounded % 256 == 0 else rounded


def _unrolled(tape: Tape, network: Network) -> tuple[Shadow, Shadow]:
    """PyTorch's own loop without a way back: outputs in the order of time, and the last."""
    size, state = network.size, network.state
    rows = network.gates * network.outputs
    if network.turns:
        turned = tape.new(network.inputs, size)
        products = tape.new(rows, size)
        del turned
        # Where operations are watched, as a tracker does, biases are added into a new tensor, else in place.
        given = tape.new(rows, size)
        del products
    else:
        given = tape.new(rows, size)
    each = tape.new(network.outputs, size)
    # What the last token takes: its recalled gates, and in a GRU its new value.
    tape.scratch((4 if network.gates == 3 else 1) * state * size)
    y = tape.new(network.outputs, size)
    del each, given
    tape.scratch(2 * state * size)
    return y, tape.new(state, size)


def _unrolled_by_hand(tape: Tape, x: Shadow, network: Network, whole: Shadow | None) -> Shadow:
    """`nas.mixers.recurrent_core`: the loop, of which outputs alone are kept."""
    start = tape.new(network.state, network.size)
    y, last = _unrolled(tape, network)
    if network.turns:
        y = tape.new(network.outputs, network.size)
    back = _gru_back(network) if network.gates == 3 else _rnn_back(network)
    if whole is None:
        tape.record(y, [x], saves=[x, y], back=back, weights=tape.weights(*network.weights))
    else:
        tape.record(y, [x, whole], saves=[x, y, whole], back=back)
    del start, last
    return y


@lru_cache(maxsize=4096)
def _gru_back(network: Network) -> int:
    """Bytes that a GRU's way back needs beside the gradients that it gives."""
    tape, size = Tape(network.size, records=False), network.size
    outputs, state = network.outputs, network.state
    tape.scratch((outputs + state) * size)
    before = tape.new(outputs)
    if network.turns:
        turned = tape.new(network.inputs)
        products = tape.new(3 * outputs)
        del turned
        given = tape.new(3 * outputs)
        del products
    else:
        given = tape.new(3 * outputs)
    recalled, reset_and_update, new = tape.new(3 * outputs), tape.new(2 * outputs), tape.new(outputs)
    # Each of the derivatives is made of products, two of which are there beside it.
    derivatives = []
    for _ in range(3):
        tape.scratch(3 * outputs * size)
        derivatives.append(tape.new(outputs))
    to_recalled = tape.new(outputs)
    to_gates = tape.new(3 * outputs)
    del to_recalled
    update = tape.new(outputs) if network.batch * network.length > 1 else None
    whole = tape.new(outputs)
    # The gradient of the state, and a token's gates twice; one token has its own, what is kept, and their sum.
    tape.scratch((7 if network.length > 1 else 6) * state * size)
    del update
    gradients = [tape.new(count) for count in network.weights[1::2]]
    tape.scratch(outputs * size)
    gradients += _of_features(tape, network)
    del before, given, recalled, reset_and_update, new, derivatives, to_gates, whole
    return tape.peak - sum(one.bytes for one in gradients)


@lru_cache(maxsize=4096)
def _rnn_back(network: Network) -> int:
    """The same of a plain network."""
    tape, size = Tape(network.size, records=False), network.size
    outputs, state = network.outputs, network.state
    tape.scratch(2 * outputs * size)
    to_gates = tape.new(outputs)
    whole = tape.new(outputs)
    # The gradient of the state, and a token's gates twice.
    tape.scratch(3 * state * size)
    tape.scratch((outputs + state) * size)
    before = tape.new(outputs)
    gradients = [tape.new(count) for count in network.weights[1::2]]
    del before
    gradients += _of_features(tape, network)
    del to_gates, whole
    return tape.peak - sum(one.bytes for one in gradients)


def _of_features(tape: Tape, network: Network) -> list[Shadow]:
    """Gradients of the weights that features go through, of their bias, and of the features."""
    turned = tape.new(network.inputs) if network.turns else None
    weights = tape.new(network.weights[0])
    del turned
    return [weights, tape.new(network.weights[2]), tape.new(network.inputs)]
