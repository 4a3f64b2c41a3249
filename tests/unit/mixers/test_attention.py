from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from nas.mixers import attention
from nas.mixers.attention import Piece, Terms, alibi_reach, attend, full_attention, windowed_attention
from nas.mixers.positions import alibi_slopes

CPU = torch.device("cpu")


@dataclass
class Heads:
    """Queries, keys, values and what joins their scores, and the same by whole score matrices."""

    length: int
    biases: str = "none"
    logits: bool = False
    sinks: int = 0
    batch: int = 2
    heads: int = 4
    leaves: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        shapes = [(self.batch, self.length, heads, 8) for heads in (self.heads, 2, 2)]
        self.q, self.k, self.v = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
        self.leaves = [self.q, self.k, self.v]
        slopes = alibi_slopes(self.heads, CPU).double() if self.biases == "alibi" else None
        table = self.leaf(self.heads, 2 * self.length - 1) if self.biases == "learned" else None
        logits = self.leaf(self.heads) if self.logits else None
        self.terms = Terms(slopes_H=slopes, table_HR=table, zero=self.length - 1, logits_H=logits, sinks=self.sinks)

    def leaf(self, *shape: int) -> Tensor:
        self.leaves.append(torch.randn(shape, dtype=torch.float64, requires_grad=True))
        return self.leaves[-1]

    @property
    def heads_first(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.q.transpose(1, 2), self.k.transpose(1, 2), self.v.transpose(1, 2)

    @property
    def time_first(self) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (part.transpose(0, 1).flatten(1, 2) for part in (self.q, self.k, self.v))
        return q, k, v

    def dense(self, prefix: int = 0, window: int | None = None, lengths: Tensor | None = None) -> Tensor:
        """(B, L, H, F)."""
        k, v = (part.repeat_interleave(self.heads // 2, 2) for part in (self.k, self.v))
        scores = torch.einsum("bqhf,bkhf->bhqk", self.q, k) / 8**0.5
        place = torch.arange(self.length)
        distance = place - place[:, None]
        if self.terms.slopes_H is not None:
            scores = scores - self.terms.slopes_H[:, None, None] * distance.abs()
        if self.terms.table_HR is not None:
            scores = scores + self.terms.table_HR[:, distance + self.terms.zero]
        seen = (distance <= 0) | ((place < prefix) & (place[:, None] < prefix))
        if window is not None:
            seen &= (distance.abs() < window) | (place < self.sinks)
        if lengths is not None:
            seen = seen & (place < lengths[:, None, None, None])
        scores = scores.masked_fill(~seen, -torch.inf)
        if self.terms.logits_H is not None:
            sink = self.terms.logits_H[:, None, None].expand(self.batch, -1, self.length, 1)
            scores = torch.cat([scores, sink], -1)
        return torch.einsum("bhqk,bkhf->bqhf", scores.softmax(-1)[..., : self.length], v)

    def check(self, found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)
        direction = torch.randn_like(expected)
        mine, theirs = (torch.autograd.grad(y, self.leaves, direction, retain_graph=True) for y in (found, expected))
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0.0, atol=1e-10)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_ALIBI_BLOCK", 32)
    monkeypatch.setattr(attention, "_LEARNED_BLOCK", 32)


every_term = pytest.mark.parametrize(
    ("biases", "logits"), [(biases, logits) for biases in ("none", "alibi", "learned") for logits in (False, True)]
)


@pytest.mark.usefixtures("small_blocks")
@every_term
@pytest.mark.parametrize("length", [1, 7, 32, 65, 100])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_full_attention_in_pieces_equals_whole_score_matrices(
    biases: str, logits: bool, length: int, part: float
) -> None:
    heads = Heads(length, biases, logits)
    prefix = int(part * length)
    found = torch.cat(full_attention(*heads.heads_first, heads.terms, prefix=prefix), 2).transpose(1, 2)
    heads.check(found, heads.dense(prefix))


@pytest.mark.usefixtures("small_blocks")
@every_term
def test_padding_of_a_whole_prefix_is_not_seen(biases: str, logits: bool) -> None:
    heads, lengths = Heads(70, biases, logits), torch.tensor([1, 66])
    parts = full_attention(*heads.heads_first, heads.terms, prefix=70, lengths_B=lengths)
    heads.check(torch.cat(parts, 2).transpose(1, 2), heads.dense(70, lengths=lengths))


@every_term
@pytest.mark.parametrize("window", [1, 5, 33, 40])
@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("prefix", [0, 2, 70, 150])
def test_windows_equal_whole_score_matrices(biases: str, logits: bool, window: int, sinks: int, prefix: int) -> None:
    heads = Heads(150, biases, logits, sinks)
    parts = windowed_attention(*heads.time_first, window, heads.terms, prefix=prefix)
    found = torch.cat(parts).unflatten(1, (2, 4)).transpose(0, 1)
    heads.check(found, heads.dense(prefix, window))


@pytest.mark.parametrize("length", [1, 2, 5, 6, 8, 9, 13, 14, 41, 42, 46, 47, 73, 78])
@pytest.mark.parametrize("whole", [False, True])
def test_windows_of_every_short_length(length: int, whole: bool) -> None:
    heads, prefix = Heads(length, sinks=2), length if whole else 0
    parts = windowed_attention(*heads.time_first, 5, heads.terms, prefix=prefix)
    heads.check(torch.cat(parts).unflatten(1, (2, 4)).transpose(0, 1), heads.dense(prefix, 5))


@pytest.mark.parametrize("learned", [False, True])
def test_gradients_of_joined_pieces_pass_gradcheck(learned: bool) -> None:
    torch.manual_seed(0)
    q, k, v, k2, v2 = (torch.randn(1, heads, 5, 4, dtype=torch.float64) for heads in (2, 1, 1, 1, 1))
    logits, bias = torch.randn(2, dtype=torch.float64), torch.randn(2, 5, 5, dtype=torch.float64)
    hidden = torch.zeros(5).index_fill(0, torch.tensor([1, 4]), attention.HIDDEN)

    def joined(q: Tensor, k: Tensor, v: Tensor, k2: Tensor, v2: Tensor, logits: Tensor, bias: Tensor) -> Tensor:
        own = Piece(k_BGSF=k, v_BGSF=v, causal=True, bias=bias if learned else None)
        return attend(q, [own, Piece(k_BGSF=k2, v_BGSF=v2, mask=hidden)], logits) + 0 * bias.sum()

    inputs = [part.requires_grad_() for part in (q, k, v, k2, v2, logits, bias)]
    assert torch.autograd.gradcheck(joined, inputs)


def test_a_piece_that_is_hidden_wholly_changes_nothing() -> None:
    heads = Heads(9)
    q, k, v = heads.heads_first
    seen = Piece(k_BGSF=k, v_BGSF=v, causal=True)
    hidden = Piece(k_BGSF=k * 100, v_BGSF=v * 100, mask=torch.full((9,), attention.HIDDEN))
    heads.check(attend(q, [seen, hidden]), attend(q, [seen]))


def test_the_plain_kernel_equals_the_fused_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other devices run where there is no FlexAttention."""
    heads = Heads(100, "alibi", logits=True, sinks=2)
    fused = torch.cat(windowed_attention(*heads.time_first, 20, heads.terms))
    monkeypatch.setattr(attention, "_fused", lambda *parts: False)
    plain = torch.cat(windowed_attention(*heads.time_first, 20, heads.terms))
    heads.check(plain, fused)
    heads.check(plain, fused)


def test_large_logits_and_scores_stay_finite_in_single_precision() -> None:
    heads = Heads(64, "alibi", logits=True)
    q, k, v = (part.float() for part in heads.heads_first)
    assert heads.terms.slopes_H is not None
    terms = Terms(slopes_H=heads.terms.slopes_H.float(), logits_H=torch.tensor([-200.0, 0.0, 90.0, 200.0]))
    y = torch.cat(full_attention(30 * q, 30 * k, v, terms), 2)
    (gradient,) = torch.autograd.grad(y.sum(), heads.q)
    assert y.isfinite().all()
    assert gradient.isfinite().all()
    assert y[:, 3].abs().max() < y[:, 0].abs().max()


@pytest.mark.slow
def test_alibi_is_exact_in_single_precision_at_16k() -> None:
    torch.manual_seed(0)
    length, heads = 16_384, 8
    q, k, v = (torch.randn(1, heads, length, 16) for _ in range(3))
    slopes = alibi_slopes(heads, CPU)
    terms = Terms(slopes_H=slopes, reach_H=alibi_reach(slopes, q.transpose(1, 2), k.transpose(1, 2)))
    found = torch.cat(full_attention(q, k, v, terms), 2)
    for place in (0, 1023, 1024, 9000, length - 1):
        exact_q, exact_k, exact_v = (
            part.double() for part in (q[:, :, place], k[:, :, : place + 1], v[:, :, : place + 1])
        )
        fall = slopes.double()[:, None] * (place - torch.arange(place + 1))
        weights = ((exact_q[:, :, None] * exact_k).sum(-1) / 4 - fall).softmax(-1)
        expected = (weights[..., None] * exact_v).sum(2)
        torch.testing.assert_close(found[:, :, place].double(), expected, rtol=0.0, atol=1e-5)


def test_what_alibi_hides_weighs_nothing() -> None:
    heads = Heads(500, "alibi")
    assert heads.terms.slopes_H is not None
    reach = alibi_reach(heads.terms.slopes_H, heads.q, heads.k)
    assert (reach < 500).any(), "nothing is hidden here"
    terms = Terms(slopes_H=heads.terms.slopes_H, reach_H=reach)
    heads.check(torch.cat(full_attention(*heads.heads_first, terms), 2).transpose(1, 2), heads.dense())


def test_learned_biases_keep_no_scores_for_backward() -> None:
    heads = Heads(600, "learned")
    sizes = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.untyped_storage().nbytes() // tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        full_attention(*heads.heads_first, heads.terms)
    assert max(sizes) <= heads.q.numel()


def test_matches_the_eager_attention_of_gpt_oss() -> None:
    eager = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss").eager_attention_forward
    heads = Heads(30, logits=True)

    class Layer(torch.nn.Module):
        num_key_value_groups = 2
        sinks = heads.terms.logits_H

    mask = torch.full((30, 30), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    expected, _ = eager(Layer().eval(), *heads.heads_first, mask, 8**-0.5, dropout=0.0)
    found = torch.cat(full_attention(*heads.heads_first, heads.terms), 2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)
