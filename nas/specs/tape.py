"""A tape: what a computation holds in memory, followed on sizes alone.

In: the operations of a layer, in the order in which the layer runs them. Out: how many bytes are alive at once on
the way forward, which of them autograd keeps, and how many are alive at once on the way back. Nothing is computed.

Memory is told as PyTorch's eager mode has it, from three rules:

- A storage lives as long as something refers to it: a variable of the layer's code, a view of it, or a node of the
  graph that saved it. A *shadow* is a tensor without numbers, and Python's own reference counts do the rest; so the
  code that moves shadows is to name and forget its variables where the layer's code does.
- On the way back nodes run in the reverse order of their making. A node gives the gradients of its inputs while
  its own gradient and what it saved are alive; then both are let go.
- Gradients that meet are added in place where nobody else holds the first of them, else into a new storage.

Counts are in bytes; `size` is that of one element of the floating point numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

INDEX: Final = 8
"""Bytes of an int64."""


@dataclass(frozen=True)
class Extent:
    """How much a layer is given at once.

    Attributes:
        batch: sequences.
        length: tokens of each.
        prefix: leading tokens of each that see each other in both directions: 0 in a decoder, all in an encoder.
        source_length: tokens of each source that a decoder reads.
        has_own_prefixes: whether the prefix is given for each sequence apart, as prefix language models have it: then
            `prefix` is the longest, and what lies behind a prefix is masked where else it would be cut off.
    """

    batch: int
    length: int
    prefix: int = 0
    source_length: int = 0
    has_own_prefixes: bool = False

    @property
    def tokens(self) -> int:
        """Of all sequences."""
        return self.batch * self.length


class Storage:
    """Bytes that are alive as long as somebody refers to them."""

    __slots__ = ("bytes", "holders", "tape")

    def __init__(self, tape: Tape, count: int) -> None:
        self.tape = tape
        self.bytes = count
        # Gradients that wait in it; see `Tape.backward`.
        self.holders = 0
        tape.live += count
        tape.peak = max(tape.peak, tape.live)

    def __del__(self) -> None:
        self.tape.live -= self.bytes


class Shadow:
    """A tensor without numbers.

    Attributes:
        elements: how many it has.
        size: bytes of one.
        storage: what it lies in; views share one.
        node: what made it, where a gradient flows back through it.
    """

    __slots__ = ("elements", "node", "size", "storage")

    def __init__(self, elements: int, size: int, storage: Storage | None, node: Node | None) -> None:
        self.elements = elements
        self.size = size
        self.storage = storage
        self.node = node

    @property
    def bytes(self) -> int:
        """Of its elements, whatever it lies in."""
        return self.elements * self.size


class Node:
    """A step of the way back.

    Attributes:
        saved: storages that it keeps until it has run.
        edges: where gradients go: the node, the bytes of the gradient, and whether it is the node's own, as it is
            or as a view.
        scratch: bytes that are alive besides while it runs.
        weights: that get a gradient.
        parts: gradients that came so far, of a node that joins those of parts; None: it adds them up.
    """

    __slots__ = ("edges", "parts", "saved", "scratch", "weights")

    def __init__(
        self,
        saved: tuple[Storage | None, ...],
        edges: tuple[tuple[Node, int, bool], ...],
        scratch: int,
        weights: tuple[Weight, ...],
    ) -> None:
        self.saved = saved
        self.edges = edges
        self.scratch = scratch
        self.weights = weights
        self.parts: list[Storage] | None = None


class Weight:
    """Parameters that get their gradient at once.

    Attributes:
        bytes: of the gradient.
        gradient: it, once it is there.
    """

    __slots__ = ("bytes", "gradient")

    def __init__(self, count: int) -> None:
        self.bytes = count
        self.gradient: Storage | None = None


class Tape:
    """Follows one computation forward and back.

    Args:
        size: bytes of a floating point number.
        records: whether autograd keeps what the way back needs.

    Attributes:
        live: bytes alive now.
        peak: most bytes that were alive at once.
        weight_bytes: gradients of weights.
        nodes: in the order of their making.
    """

    def __init__(self, size: int, *, records: bool = True) -> None:
        self.size = size
        self.records = records
        self.live = 0
        self.peak = 0
        self.weight_bytes = 0
        self.weights_done: list[Storage] = []
        self.nodes: list[Node] = []

    # Tensors.

    def new(self, elements: int, size: int = 0) -> Shadow:
        """A tensor through which no gradient flows: indices, masks, tables."""
        size = size or self.size
        return Shadow(elements, size, Storage(self, elements * size), None)

    def source(self, elements: int) -> Shadow:
        """A tensor that comes from outside, and whose gradient goes there."""
        node = self._node((), (), 0, ()) if self.records else None
        return Shadow(elements, self.size, Storage(self, elements * self.size), node)

    def scratch(self, count: int) -> None:
        """Bytes that an operation needs while it runs."""
        self.peak = max(self.peak, self.live + count)

    # Operations.

    def op(
        self,
        inputs: Sequence[Shadow],
        elements: int,
        *,
        saves: Sequence[Shadow] = (),
        keeps: bool = False,
        more: int = 0,
        passes: bool = False,
        scratch: int = 0,
        back: int = 0,
        weights: Sequence[Weight] = (),
        size: int = 0,
    ) -> Shadow:
        """Any operation with one output.

        Args:
            inputs: of which those with a node get a gradient.
            elements: of the output, in a storage of its own.
            saves: what is saved for the way back.
            keeps: whether the output is saved too.
            more: bytes that are saved besides, such as statistics of a norm.
            passes: whether gradients of inputs are the output's own; else each is new.
            scratch: bytes needed while it runs.
            back: bytes needed while the way back runs.
            weights: parameters that get a gradient.
            size: bytes of an element of the output.
        """
        out = self.new(elements, size)
        if scratch:
            self.scratch(scratch)
        if self.records and (weights or any(one.node is not None for one in inputs)):
            saved = [one.storage for one in saves]
            if keeps:
                saved.append(out.storage)
            if more:
                saved.append(Storage(self, more))
            edges = tuple((one.node, one.bytes, passes) for one in inputs if one.node is not None)
            out.node = self._node(tuple(saved), edges, back, tuple(weights))
        return out

    def record(
        self,
        out: Shadow,
        inputs: Sequence[Shadow],
        *,
        saves: Sequence[Shadow],
        back: int,
        weights: Sequence[Weight] = (),
    ) -> None:
        """Makes `out`, which is there already, the output of a function whose way back is written by hand.

        Args:
            out: of the function; its other outputs give no gradient.
            inputs: of which those with a node get a gradient, each a new one.
            saves: what is saved for the way back.
            back: bytes needed while the way back runs, gradients aside.
            weights: parameters that get a gradient.
        """
        if self.records and (weights or any(one.node is not None for one in inputs)):
            edges = tuple((one.node, one.bytes, False) for one in inputs if one.node is not None)
            out.node = self._node(tuple(one.storage for one in saves), edges, back, tuple(weights))

    def view(self, x: Shadow, elements: int | None = None, *, fresh: bool = False) -> Shadow:
        """The same storage seen otherwise, all of it or a part; the gradient of a part is a new tensor of the whole.

        `fresh`: the gradient of all of it is a new tensor too.
        """
        elements = x.elements if elements is None else elements
        node = x.node
        if node is not None and (fresh or elements != x.elements):
            node = self._node((), ((node, x.bytes, False),), 0, ())
        return Shadow(elements, x.size, x.storage, node)

    def split(self, x: Shadow, *elements: int) -> list[Shadow]:
        """Parts of x, as views; their gradients wait for each other and are joined into a new tensor."""
        nodes: list[Node | None] = [None] * len(elements)
        if x.node is not None:
            whole = self._node((), ((x.node, x.bytes, False),), 0, ())
            whole.parts = []
            nodes = [self._node((), ((whole, count * x.size, True),), 0, ()) for count in elements]
        return [Shadow(count, x.size, x.storage, node) for count, node in zip(elements, nodes, strict=True)]

    def linear(
        self, x: Shadow, inputs: int, outputs: int, *, bias: bool = False, weight: Weight | None = None
    ) -> Shadow:
        """A linear map of the last axis, from so many features to so many."""
        weights = [weight or Weight(inputs * outputs * self.size)] if self.records else []
        if bias and self.records:
            weights.append(Weight(outputs * self.size))
        return self.op([x], x.elements // inputs * outputs, saves=[x], weights=weights)

    def add(self, x: Shadow, y: Shadow) -> Shadow:
        """x + y of one shape."""
        return self.op([x, y], x.elements, passes=True, size=x.size)

    def mul(self, x: Shadow, y: Shadow) -> Shadow:
        """x · y of one shape; each is saved where the other's gradient needs it."""
        saves = ([y] if x.node is not None else []) + ([x] if y.node is not None else [])
        return self.op([x, y], x.elements, saves=saves, size=x.size)

    def pointwise(self, x: Shadow, *, of_output: bool = False) -> Shadow:
        """silu, gelu, exp and their like, whose way back needs the input, or the output alone."""
        return self.op([x], x.elements, saves=[] if of_output else [x], keeps=of_output, size=x.size)

    def copy(self, x: Shadow, *, back: bool = True) -> Shadow:
        """x in another order. Its gradient is the output's seen otherwise, or a copy where `back`."""
        return self.op([x], x.elements, passes=not back, size=x.size)

    def cat(self, parts: Sequence[Shadow]) -> Shadow:
        """Parts joined; gradients are views."""
        return self.op(parts, sum(part.elements for part in parts), passes=True, size=parts[0].size)

    def rms_norm(self, x: Shadow, features: int) -> Shadow:
        """torch.nn.RMSNorm, which PyTorch puts together from pointwise operations."""
        rows, size = x.elements // features, max(self.size, 4)
        if size != self.size:
            x = self.op([x], x.elements, size=size)
        squares = self.op([x], x.elements, saves=[x], back=2 * x.bytes, size=size)
        # The gradient of a mean is written out in full.
        mean = self.op([squares], rows, size=size)
        del squares
        inverse = self.pointwise(mean, of_output=True)
        del mean
        normal = self.op([x, inverse], x.elements, saves=[x, inverse], back=x.bytes, size=size)
        weights = self.weights(features)
        scaled = self.op([normal], x.elements, saves=[normal], weights=weights, back=x.bytes, size=size)
        del x, normal
        return scaled if size == self.size else self.op([scaled], scaled.elements)

    def layer_norm(self, x: Shadow, features: int) -> Shadow:
        """torch.nn.LayerNorm without bias: one kernel, which keeps its input and two statistics of each row."""
        rows = x.elements // features
        return self.op([x], x.elements, saves=[x], more=2 * rows * self.size, weights=self.weights(features))

    def weights(self, *elements: int) -> list[Weight]:
        """Parameters of so many elements that get a gradient, where any is asked for."""
        return [Weight(count * self.size) for count in elements] if self.records else []

    # The way back.

    def backward(self, out: Shadow, gradient: Shadow | None = None) -> None:
        """Runs all nodes back from the gradient of `out`, a new one unless it is given."""
        waiting: dict[int, Storage] = {}
        if out.node is None:
            return
        first = Storage(self, out.bytes) if gradient is None or gradient.storage is None else gradient.storage
        first.holders += 1
        waiting[id(out.node)] = first
        del first, gradient
        nodes = self.nodes
        while nodes:
            node = nodes.pop()
            own = waiting.pop(id(node), None)
            if own is not None:
                self._run(node, own, waiting)
            del node

    def _run(self, node: Node, own: Storage, waiting: dict[int, Storage]) -> None:
        found = [(to, own if passed else Storage(self, count), count) for to, count, passed in node.edges]
        again = []
        for weight in node.weights:
            fresh = Storage(self, weight.bytes)
            if weight.gradient is None:
                weight.gradient = fresh
                self.weights_done.append(fresh)
                self.weight_bytes += weight.bytes
            else:
                again.append(fresh)
            del fresh
        self.scratch(node.scratch)
        node.saved = ()
        if node.parts:
            node.parts = []
        own.holders -= 1
        del own
        # A second gradient of shared weights is added to the first, in place.
        again.clear()
        for _, given, _ in found:
            given.holders += 1
        while found:
            to, given, count = found.pop(0)
            before = waiting.get(id(to))
            if before is None or to.parts is not None:
                waiting[id(to)] = given
                if to.parts is not None:
                    to.parts.append(given)
                continue
            given.holders -= 1
            if before.holders > 1:
                total = Storage(self, count)
                total.holders = 1
                before.holders -= 1
                waiting[id(to)] = total
                del total
            del given, before

    def _node(
        self,
        saved: tuple[Storage | None, ...],
        edges: tuple[tuple[Node, int, bool], ...],
        scratch: int,
        weights: tuple[Weight, ...],
    ) -> Node:
        node = Node(saved, edges, scratch, weights)
        self.nodes.append(node)
        return node
