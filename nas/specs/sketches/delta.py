"""What `nas.mixers.delta_core`, the delta rule over a whole sequence, does to memory.

In: how a sequence lies. Out: bytes that are alive at once while the rule runs forward, and back, beside what it is
given and what it gives.

A sequence is taken in segments, each of which lets go of all but a memory: so that one whole segment and the rest are
followed, whatever the length. Names and shapes as in the torch code: M = chunks · N rows of T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from nas.specs.tape import Shadow, Tape

CHUNK = 32
SEGMENT_ELEMENTS = 2**18
MINIMUM_SEGMENT = 256


def segment_tokens(rows: int, features: int) -> int:
    """Tokens that the parallel form takes at once on a CPU, for `rows` sequences times heads.

    A mebibyte of float32 for each of its tensors was fastest: what fits the cache.
    """
    return max(MINIMUM_SEGMENT, SEGMENT_ELEMENTS // (rows * features))


@dataclass(frozen=True)
class Rule:
    """What the delta rule is given.

    Attributes:
        batch: B.
        length: L.
        heads: H.
        key_heads: G.
        key_dim: K.
        value_dim: V.
        decays: whether memories fade.
        size: bytes of an element of queries, keys and values.
    """

    batch: int
    length: int
    heads: int
    key_heads: int
    key_dim: int
    value_dim: int
    decays: bool
    size: int

    @property
    def work(self) -> int:
        """Bytes of an element that is computed with."""
        return max(self.size, 4)

    @property
    def chunk(self) -> int:
        """T."""
        return min(CHUNK, self.length)

    @property
    def state(self) -> int:
        """Bytes of the memories."""
        return self.batch * self.heads * self.key_dim * self.value_dim * self.work

    @property
    def segment(self) -> int:
        """Tokens of a segment."""
        tokens = segment_tokens(self.batch * self.heads, max(self.key_dim, self.value_dim))
        return max(tokens // self.chunk, 1) * self.chunk

    @property
    def segments(self) -> int:
        """How many there are."""
        return -(-self.length // self.segment)


@lru_cache(maxsize=4096)
def forward_bytes(rule: Rule) -> int:
    """Bytes that the rule needs on its way forward, beside the output; the memories at the segments' starts too."""
    whole, rest = divmod(rule.length, rule.segment)
    peaks = [0]
    # Before segment i the list of starts holds i + 1 memories.
    if whole:
        peaks.append(whole * rule.state + _read_bytes(replace(rule, length=rule.segment), rule.chunk))
    if rest:
        peaks.append((whole + 1) * rule.state + _read_bytes(replace(rule, length=rest), rule.chunk))
    return max(peaks)


@lru_cache(maxsize=4096)
def backward_bytes(rule: Rule) -> int:
    """Bytes that the way back needs, beside what was kept and the gradients of inputs."""
    whole, rest = divmod(rule.length, rule.segment)
    # The last memories' gradient, which is zeros, and the first memories. The gradient of those between segments is
    # new after the first segment, which is the last one of the sequence.
    peaks = [0]
    if rest:
        peaks.append(2 * rule.state + _back_bytes(replace(rule, length=rest), rule.chunk))
    if whole:
        between = rule.state if rest or whole > 1 else 0
        peaks.append(2 * rule.state + between + _back_bytes(replace(rule, length=rule.segment), rule.chunk))
    return max(peaks)


class _Segment:
    """The torch code's steps on a segment, one method for each function there."""

    def __init__(self, tape: Tape, rule: Rule, chunk: int) -> None:
        self.tape = tape
        self.rule = rule
        self.chunk = chunk
        self.chunks = -(-rule.length // chunk)
        self.tokens = self.chunks * chunk * rule.batch  # with those that fill the last chunk
        self.rows = self.tokens * rule.heads  # M·T
        self.memories = self.chunks * rule.batch * rule.heads  # M
        self.keys, self.values = self.rows * rule.key_dim, self.rows * rule.value_dim
        self.pairs = self.rows * chunk

    def new(self, elements: int) -> Shadow:
        """A tensor of the computing dtype."""
        return self.tape.new(elements, self.rule.work)

    def cut(self, groups: int, features: int, size: int, *, alone: bool) -> Shadow | None:
        """One input; `alone`: it does not lie beside others. None: a view is enough."""
        rule = self.rule
        is_padded = rule.length % self.chunk != 0
        padded = self.tape.new(self.tokens * groups * features, size) if is_padded else None
        cast = None if size == rule.work else self.new(self.rows * features)
        in_order = rule.heads == 1 and (rule.batch == 1 or self.chunks == 1)
        if in_order and (is_padded or alone or cast is not None):
            return cast or padded
        return self.new(self.rows * features)

    def dot(self, features: int) -> Shadow:
        """A product of each token's features with others, summed."""
        self.tape.scratch((features + self.rows) * self.rule.work)
        return self.new(self.rows)

    def states(self) -> Shadow:
        """S at every chunk's start and after the last."""
        rule = self.rule
        return self.new((self.memories + rule.batch * rule.heads) * rule.key_dim * rule.value_dim)

    def faded(self) -> Shadow | None:
        """Queries or keys times what decay leaves of them."""
        return self.new(self.keys) if self.rule.decays else None

    def join(self, groups: int, features: int, size: int) -> None:
        """Repeated heads summed, tokens in their order, and a copy of another dtype."""
        rule, elements = self.rule, self.tokens * groups * features
        summed = None if groups == rule.heads else self.new(elements)
        copied = None if self.chunks == 1 or rule.batch * groups == 1 else self.new(elements)
        if size != rule.work:
            self.tape.scratch(rule.batch * rule.length * groups * features * size)
        del summed, copied


class _Cut(_Segment):
    """`_cut_all`: what lives as long as a segment."""

    def __init__(self, tape: Tape, rule: Rule, chunk: int) -> None:
        super().__init__(tape, rule, chunk)
        q, k = (self.cut(rule.key_heads, rule.key_dim, rule.size, alone=False) for _ in range(2))
        self.v = self.cut(rule.heads, rule.value_dim, rule.size, alone=False)
        self.inverse_q, self.inverse_k = self.new(self.rows), self.new(self.rows)
        self.q, self.k = self.new(self.keys), self.new(self.keys)
        del q, k
        self.decay = self._decay() if rule.decays else []
        self.beta = self.cut(rule.heads, 1, rule.work, alone=True)

    def _decay(self) -> list[Shadow]:
        """`_Decay.of`."""
        log_decay = self.cut(self.rule.heads, 1, self.rule.work, alone=True)
        b = self.new(self.rows)
        later = self.tape.new(self.chunk**2, 1)
        pairs = self.new(self.pairs)
        since_start = self.new(self.rows)
        self.tape.scratch(2 * self.rows * self.rule.work)
        to_end, whole = self.new(self.rows), self.new(self.memories)
        del log_decay, b, later
        return [pairs, since_start, to_end, whole]


@dataclass(frozen=True)
class _Solved:
    overlaps: Shadow
    inverse: Shadow
    w: Shadow
    u: Shadow
    states: Shadow


def _solve(c: _Cut) -> _Solved:
    keys = c.new(c.keys)
    overlaps = c.new(c.pairs)
    del keys
    eye = c.new(c.chunk**2)
    inverse = c.new(c.pairs)
    del eye
    factor = c.new(c.rows) if c.rule.decays else None
    probes = c.new(c.keys)
    del factor
    w = c.new(c.keys)
    del probes
    values = c.new(c.values)
    u = c.new(c.values)
    del values
    states = c.states()
    writers = c.faded()
    del writers
    return _Solved(overlaps, inverse, w, u, states)


@lru_cache(maxsize=4096)
def _read_bytes(rule: Rule, chunk: int) -> int:
    """`_cut_all` and `_read_segment`."""
    tape = Tape(rule.size, records=False)
    c = _Cut(tape, rule, chunk)
    solved = _solve(c)
    u, states = solved.u, solved.states
    del solved
    readers = c.faded()
    out = c.new(c.values)
    del readers
    tape.scratch(c.pairs * rule.work)
    c.join(rule.heads, rule.value_dim, rule.size)
    last = tape.new(rule.state, 1)
    del u, states, out, last
    return tape.peak


@lru_cache(maxsize=4096)
def _back_bytes(rule: Rule, chunk: int) -> int:
    """`_cut_all` and `_back_segment`."""
    tape = Tape(rule.size, records=False)
    c = _Cut(tape, rule, chunk)
    parts = _back(c)
    sizes = [(rule.key_heads, rule.key_dim, rule.size)] * 2 + [(rule.heads, rule.value_dim, rule.size)]
    scalars = [(rule.heads, 1, rule.work)]
    for groups, features, size in sizes + scalars * (2 if rule.decays else 1):
        c.join(groups, features, size)
    del parts
    return tape.peak


def _back(c: _Cut) -> list[Shadow | None]:
    rule, solved = c.rule, _solve(c)
    d_out = c.cut(rule.heads, rule.value_dim, rule.size, alone=True)
    scores = c.new(c.pairs)
    d_u = c.new(c.values)
    d_states = c.states()
    readers = c.faded()
    del readers
    writers = c.faded()
    del writers
    d_right = c.new(c.values)
    d_before = c.tape.new(rule.state, 1)
    parts = _gradients(c)
    del solved, d_out, scores, d_u, d_states, d_right
    return [*parts, d_before]


def _gradients(c: _Cut) -> list[Shadow | None]:
    rule, tape = c.rule, c.tape
    d_scores, d_overlaps = c.new(c.pairs), c.new(c.pairs)
    d_q, d_asker, d_asked = (c.new(c.keys) for _ in range(3))
    d_log_decay = across = None
    if rule.decays:
        read, asked = c.dot(c.keys), c.dot(c.keys)
        tape.scratch(c.rows * rule.work)
        times_beta = c.new(c.rows)
        del asked
        from_start = c.new(c.rows)
        del read, times_beta
        across = (from_start, c.dot(c.keys))
        d_log_decay = _decay_gradient(c)
    keys = c.new(c.keys)
    del keys
    by_key, by_value = c.dot(c.keys), c.dot(c.values)
    d_beta = c.new(c.rows)
    del by_key, by_value
    along_q, along_k = c.dot(c.keys), c.dot(c.keys)
    del along_q, along_k
    d_v = c.new(c.values)
    del d_scores, d_overlaps, d_asker, across
    return [d_q, d_asked, d_v, d_log_decay, d_beta]


def _decay_gradient(c: _Cut) -> Shadow:
    pairs = c.new(c.pairs)
    by_row = c.new(c.rows)
    before = c.new(c.rows)
    del by_row
    by_column = c.new(c.rows)
    b = c.new(c.rows)
    del before, by_column
    padded = c.new(c.rows)
    earlier = c.new(c.rows)
    del padded
    through = c.new(c.memories)
    flipped = c.new(c.rows)
    summed = c.new(c.rows)
    del flipped
    back = c.new(c.rows)
    del summed
    both = c.new(c.rows)
    del back
    crossing = c.new(c.memories)
    total = c.new(c.rows)
    del pairs, b, earlier, through, both, crossing
    return total
