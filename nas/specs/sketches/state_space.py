"""What `nas.mixers.decay`, with a decay, a gain and a skip that depend on the token, does to memory.

In: how a sequence lies. Out: bytes that are alive at once while the recurrence runs forward, and back, beside what it
is given and what it gives.

A sequence is taken in segments, and each lets go of all but states: so that the segments that differ are followed,
whatever the length. Names and shapes as in the torch code; S = R · V.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from nas.specs.tape import Shadow, Tape

CHUNK = 32
SCORES = 2**18
"""Elements of a segment's largest temporary on a CPU, as in `nas.mixers.chunks`."""

EXACT = 8
"""Bytes of a float64, in which decays are cumulated."""


@dataclass(frozen=True)
class Recurrence:
    """What the recurrence is given.

    Attributes:
        batch: B.
        length: L.
        heads: H.
        groups: G.
        key_dim: K.
        value_dim: V.
        size: bytes of an element of queries, keys and values.
        skips: whether a token's value is added to its output.
    """

    batch: int
    length: int
    heads: int
    groups: int
    key_dim: int
    value_dim: int
    size: int
    skips: bool

    @property
    def work(self) -> int:
        """Bytes of an element that is computed with."""
        return max(self.size, 4)

    @property
    def state(self) -> int:
        """Elements of the state."""
        return self.batch * self.heads * self.key_dim * self.value_dim

    @property
    def states(self) -> int:
        """Bytes of the states before each chunk and after the last."""
        return (-(-self.length // CHUNK) + 1) * self.state * self.work

    def cuts(self) -> tuple[tuple[int, int, int], ...]:
        """How many segments of N chunks of C tokens there are, in the order of the sequence."""
        room = max(1, SCORES // (self.batch * self.heads * CHUNK * CHUNK))
        whole, left = divmod(self.length, CHUNK)
        cuts = ((whole // room, room, CHUNK), (int(whole % room > 0), whole % room, CHUNK), (int(left > 0), 1, left))
        return tuple(cut for cut in cuts if cut[0])


@lru_cache(maxsize=4096)
def forward_bytes(given: Recurrence) -> int:
    """Bytes that the recurrence needs on its way forward, beside outputs; all states too."""
    # The last state is copied, and where heads have to be brought into order, twice.
    last = given.state * given.work * (2 if 1 < given.groups < given.heads else 1)
    return given.states + max(last, *(_forward_segment(given, chunks, size) for _, chunks, size in given.cuts()))


@lru_cache(maxsize=4096)
def backward_bytes(given: Recurrence) -> int:
    """Bytes that the way back needs, beside what was kept and the gradients of inputs."""
    state = given.state * given.work
    # At first the gradient of the last state, in the order of groups.
    peaks, carried = [0], state if given.groups < given.heads else 0
    for count, chunks, size in reversed(given.cuts()):
        own = (chunks + 1) * state
        # What comes from a segment is a view of the gradients of all its states.
        carried = own if count > 1 else carried
        peaks.append(carried + _backward_segment(given, chunks, size))
        carried = own
    # The last state's gradient, which is zeros.
    return state + max(peaks)


class _Segment:
    """The torch code's steps on N chunks of C tokens."""

    def __init__(self, given: Recurrence, chunks: int, size: int) -> None:
        self.given = given
        self.tape = Tape(given.size, records=False)
        self.work = given.work
        self.casts = given.size != given.work
        per_group = chunks * size * given.batch * given.groups
        self.rows = chunks * size * given.batch * given.heads
        self.keys, self.values = per_group * given.key_dim, self.rows * given.value_dim
        self.group_pairs, self.pairs = per_group * size, self.rows * size
        self.heads, self.size = chunks * given.batch * given.heads, size
        self.states = chunks * given.state
        is_split = chunks > 1 and given.batch > 1
        # Whether values by head, and with the heads of a group side by side, lie in one piece as they come.
        self.by_head_in_order = not is_split and (given.heads == 1 or size == 1)
        self.joined_in_order = not is_split and (given.groups == 1 or size == 1)
        # Whether products have to copy queries and keys, since their batch axes cannot be seen as one.
        self.scattered = sum(count > 1 for count in (chunks, given.batch, given.groups)) > 1 and not self.casts

    def new(self, elements: int) -> Shadow:
        """A tensor of the computing dtype."""
        return self.tape.new(elements, self.work)

    def product(self, elements: int, copied: int = 0) -> Shadow:
        """A batched product that takes so many of queries and keys."""
        self.into_product(copied, elements)
        return self.new(elements)

    def into_product(self, copied: int, elements: int = 0) -> None:
        """The same with an output that is there already."""
        self.tape.scratch(((copied * self.keys if self.scattered else 0) + elements) * self.work)

    def cast(self) -> list[Shadow]:
        """Queries and keys, if they are not computed with as they are."""
        return [self.new(self.keys) for _ in range(2)] if self.casts else []

    def decays(self) -> list[Shadow]:
        """`_decays`."""
        tape, is_exact = self.tape, self.work == EXACT
        tape.scratch(2 * self.rows * EXACT)
        b = tape.new(self.rows, EXACT)
        near = None if is_exact else self.new(self.rows)
        unseen = self.new(self.size**2)
        found = [self.new(self.pairs)]
        for count in (self.rows, self.rows, self.heads, self.rows)[: 3 if is_exact else 4]:
            exact = tape.new(count, EXACT)
            found.append(exact if is_exact else self.new(count))
            del exact
        del b, near, unseen
        return found

    def weighted(self) -> Shadow:
        """`_weighted`."""
        cast = self.new(self.values) if self.casts else None
        factor = self.new(self.rows)
        weighted = self.new(self.values)
        del cast, factor
        return weighted

    def in_order(self, x: Shadow, *, joined: bool) -> Shadow:
        """x in one piece."""
        return x if (self.joined_in_order if joined else self.by_head_in_order) else self.new(x.elements)

    def written(self) -> tuple[Shadow, Shadow]:
        """`_written`."""
        rest = None if self.work == EXACT else self.new(self.rows)
        near = self.in_order(self.weighted(), joined=False)
        kept = self.weighted()
        joined = self.in_order(kept, joined=True)
        del rest
        return near, joined

    def weights(self) -> Shadow:
        """`_weights`."""
        scores = self.product(self.group_pairs, 2)
        weights = self.new(self.pairs)
        del scores
        return weights

    def summed(self) -> Shadow:
        """A product of two tensors of values, summed over features."""
        self.tape.scratch((self.values + self.rows) * self.work)
        return self.new(self.rows)


@lru_cache(maxsize=4096)
def _forward_segment(given: Recurrence, chunks: int, size: int) -> int:
    part = _Segment(given, chunks, size)
    decays, cast = part.decays(), part.cast()
    near, kept = part.written()
    part.into_product(1)
    from_state = part.product(part.values, 1)
    weights = part.weights()
    from_chunk = part.product(part.values)
    del decays, cast, near, kept, from_state, weights, from_chunk
    return part.tape.peak


@lru_cache(maxsize=4096)
def _backward_segment(given: Recurrence, chunks: int, size: int) -> int:
    part = _Segment(given, chunks, size)
    decays, cast = part.decays(), part.cast()
    near, kept = part.written()
    dy = part.new(part.values) if part.casts else None
    near_dy = part.in_order(part.new(part.values), joined=False)
    read_dy = part.in_order(part.new(part.values), joined=True)
    dstates = part.new(part.states + given.state)
    part.into_product(1)
    dweights = part.product(part.pairs)
    dscores = part.new(part.group_pairs) if given.heads > given.groups else None
    for _ in range(2):
        within = part.product(part.keys, 1)
        part.product(part.keys)
        del within
    weights = part.weights()
    dv = part.product(part.values)
    del weights
    dkept = part.product(part.values, 1)
    _finish_values(part)
    del decays, cast, near, kept, dy, near_dy, read_dy, dstates, dweights, dscores, dv, dkept
    return part.tape.peak


def _finish_values(part: _Segment) -> None:
    given = part.given
    v = part.new(part.values) if part.casts else None
    written = part.summed()
    dgain = part.new(part.rows)
    del written
    y = part.new(part.values) if part.casts else None
    read = part.summed()
    del y
    skipped = part.summed() if given.skips else None
    if skipped is not None:
        part.tape.scratch(part.rows * part.work)
    db = part.new(part.rows)
    products = part.new(part.states)
    sums = part.new(part.states // given.key_dim)
    del products
    last = part.new(part.heads)
    part.tape.scratch(2 * part.rows * part.work)
    del v, dgain, read, skipped, db, sums, last
