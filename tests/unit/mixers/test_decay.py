"""The chunked recurrences, tried on plain tensors against loops over tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.mixers import channel_decay, chunks, normalised
from nas.mixers.channel_decay import LOWEST, channel_decayed_attention
from nas.mixers.decay import decayed_attention
from nas.mixers.normalised import normalised_attention, normalised_attention_to_all

FORGETS = -100.0


def loop(
    q_BLGK: Tensor,
    k_BLGK: Tensor,
    v_BLHV: Tensor,
    decay_BLHK: Tensor,
    *,
    gain_BLH: Tensor | None = None,
    skip_H: Tensor | None = None,
    initial_BHKV: Tensor | None = None,
    exclusive: bool = False,
) -> tuple[Tensor, Tensor]:
    """One token after the other, from the formulas."""
    shared_by = v_BLHV.shape[2] // k_BLGK.shape[2]
    q_BLHK, k_BLHK = q_BLGK.repeat_interleave(shared_by, 2), k_BLGK.repeat_interleave(shared_by, 2)
    batch, length, heads, key_dim = k_BLHK.shape
    state = v_BLHV.new_zeros(batch, heads, key_dim, v_BLHV.shape[3]) if initial_BHKV is None else initial_BHKV
    outputs = []
    for t in range(length):
        state = state * decay_BLHK[:, t].exp()[..., None]
        written = v_BLHV[:, t] if gain_BLH is None else v_BLHV[:, t] * gain_BLH[:, t, :, None]
        after = state + k_BLHK[:, t, :, :, None] * written[:, :, None]
        read = (q_BLHK[:, t, :, :, None] * (state if exclusive else after)).sum(2)
        outputs.append(read if skip_H is None else read + skip_H[:, None] * v_BLHV[:, t])
        state = after
    return torch.stack(outputs, 1), state


def log_decays(kind: str, *shape: int, strongest: float = FORGETS) -> Tensor:
    g = {
        "none": torch.zeros(shape),
        "weak": -torch.rand(shape) * 1e-3,
        "usual": -torch.rand(shape),
        "strong": torch.full(shape, strongest),
        "mixed": torch.where(torch.rand(shape) < 0.2, strongest, -1e-3),
    }[kind]
    return g.double()


KINDS = ("none", "weak", "usual", "strong", "mixed")


def compare(run: Any, expected_run: Any, inputs: list[Tensor], dtype: torch.dtype) -> None:
    """Outputs, and gradients of every input, against those of the loop in float64."""
    error, gradient_error = (1e-12, 1e-11) if dtype == torch.float64 else (1e-5, 1e-4)
    exact = [x.to(dtype).double().requires_grad_() for x in inputs]
    tried = [x.detach().to(dtype).requires_grad_() for x in exact]
    expected, found = expected_run(*exact), run(*tried)
    directions = [torch.randn_like(y) for y in expected]
    wanted = torch.autograd.grad(expected, exact, directions)
    given = torch.autograd.grad(found, tried, [d.to(y.dtype) for d, y in zip(directions, found, strict=True)])
    for mine, theirs in zip(found, expected, strict=True):
        close(mine, theirs, error * max(1.0, float(theirs.detach().abs().max())))
    for mine, theirs in zip(given, wanted, strict=True):
        close(mine, theirs, gradient_error * max(1.0, float(theirs.detach().abs().max())))


def close(mine: Tensor, theirs: Tensor, error: float) -> None:
    torch.testing.assert_close(mine.double(), theirs, rtol=0.0, atol=error)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 7, 130])
@pytest.mark.parametrize(("groups", "exclusive"), [(4, False), (2, True), (1, False)])
def test_scalar_decays_of_any_strength_equal_the_loop(
    dtype: torch.dtype, kind: str, length: int, groups: int, exclusive: bool
) -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(2, length, groups, 5).double() for _ in range(2))
    v, gain, skip = torch.randn(2, length, 4, 3).double(), torch.rand(2, length, 4).double(), torch.randn(4).double()
    g, initial = log_decays(kind, 2, length, 4), torch.randn(2, 4, 5, 3).double()

    def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor, gain: Tensor, skip: Tensor, initial: Tensor) -> Any:
        return decayed_attention(
            q, k, v, g, gain_BLH=gain, skip_H=skip, initial_BHKV=initial, exclusive=exclusive, chunk=32
        )

    def expected(q: Tensor, k: Tensor, v: Tensor, g: Tensor, gain: Tensor, skip: Tensor, initial: Tensor) -> Any:
        rows = g[..., None].expand(-1, -1, -1, 5)
        return loop(q, k, v, rows, gain_BLH=gain, skip_H=skip, initial_BHKV=initial, exclusive=exclusive)

    compare(run, expected, [q, k, v, g, gain, skip, initial], dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("length", [1, 64, 200])
def test_no_decay_and_fixed_decays_equal_the_loop(dtype: torch.dtype, fixed: bool, length: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, length, 3, 4).double() for _ in range(3)]
    g_H = torch.tensor([0.0, -0.03, -20.0]).double() if fixed else torch.zeros(3).double()

    def run(q: Tensor, k: Tensor, v: Tensor) -> Any:
        return decayed_attention(q, k, v, g_H.to(q.dtype) if fixed else None)

    compare(run, lambda q, k, v: loop(q, k, v, g_H[:, None].expand(2, length, 3, 4)), inputs, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("length", "exclusive"), [(1, False), (2, True), (33, False), (130, True)])
def test_decays_per_feature_equal_the_loop(dtype: torch.dtype, kind: str, length: int, exclusive: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, length, 2, features).double() for features in (5, 5, 3))
    g, initial = log_decays(kind, 2, length, 2, 5, strongest=LOWEST), torch.randn(2, 2, 5, 3).double()

    def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor, initial: Tensor) -> Any:
        return channel_decayed_attention(q, k, v, g, initial_BHKV=initial, exclusive=exclusive)

    def expected(q: Tensor, k: Tensor, v: Tensor, g: Tensor, initial: Tensor) -> Any:
        return loop(q, k, v, g, initial_BHKV=initial, exclusive=exclusive)

    compare(run, expected, [q, k, v, g, initial], dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("taylor", [False, True])
@pytest.mark.parametrize("to_all", [False, True])
@pytest.mark.parametrize("length", [7, 300])
def test_normalised_attention_equals_its_quadratic_form(
    dtype: torch.dtype, taylor: bool, to_all: bool, length: int
) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, length, 2, features).double() for features in (5, 5, 3))
    valid_BL = torch.arange(length) < torch.tensor([[length], [5]])

    def run(q: Tensor, k: Tensor, v: Tensor) -> Any:
        q, k = (q, k) if taylor else (q.exp(), k.exp())
        if to_all:
            return (normalised_attention_to_all(q, k, v, taylor=taylor, valid_BL=valid_BL),)
        return (normalised_attention(q, k, v, taylor=taylor, valid_BL=valid_BL)[0],)

    def expected(q: Tensor, k: Tensor, v: Tensor) -> Any:
        s = torch.einsum("blhk,bmhk->bhlm", *((q, k) if taylor else (q.exp(), k.exp())))
        s = 1 + s / 5**0.5 + s**2 / 10 if taylor else s
        s = (s if to_all else s.tril()) * valid_BL[:, None, None]
        return (torch.einsum("bhlm,bmhv->blhv", s / (s.sum(-1, keepdim=True) + 1e-6), v),)

    compare(run, expected, [q, k, v], dtype)


def test_sums_of_taylor_features_are_what_the_next_token_reads() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 150, 2, 4).double() for _ in range(3))
    _, sums = normalised_attention(q, k, v, taylor=True)
    read = normalised.taylor_features_of_token(q[:, 0])[..., None, :] @ sums
    s = torch.einsum("bhk,blhk->blh", q[:, 0], k) / 2
    torch.testing.assert_close(read[..., 0, -1], (1 + s + s**2 / 2).sum(1))
    assert sums.shape[2] == 1 + 4 + 4 * 5 // 2
    columns = normalised.taylor_features(q.mT).mT
    torch.testing.assert_close(columns, normalised.taylor_features_of_token(q))


def test_segments_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 700, 2, 4).double().requires_grad_() for _ in range(3))
    g = (-torch.rand(2, 700, 2).double()).requires_grad_()

    def outputs() -> list[Tensor]:
        rows = g[..., None].expand(-1, -1, -1, 4)
        found = [
            decayed_attention(q, k, v, g)[0],
            channel_decayed_attention(q, k, v, rows)[0],
            normalised_attention(q, k, v, taylor=True)[0],
            normalised_attention_to_all(q, k, v, taylor=True),
        ]
        return [*found, *(part for y in found for part in torch.autograd.grad(y.square().sum(), (q, k, v)))]

    expected = outputs()
    monkeypatch.setattr(chunks, "CPU_SCORES", 1)
    for mine, theirs in zip(outputs(), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_derivatives_agree_with_numeric_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(channel_decay, "CHUNK", 4)
    monkeypatch.setattr(normalised, "CHUNK", 4)
    monkeypatch.setattr(normalised, "TAYLOR_CHUNK", 4)
    q, k, v = (torch.randn(1, 10, 2, 3).double().requires_grad_() for _ in range(3))
    g, gain = (torch.rand(1, 10, 2).double().requires_grad_() for _ in range(2))
    skip, initial = torch.randn(2).double().requires_grad_(), torch.randn(1, 2, 3, 3).double().requires_grad_()
    check = torch.autograd.gradcheck

    def scalar(*x: Tensor) -> Any:
        return decayed_attention(*x[:3], -x[3], gain_BLH=x[4], skip_H=x[5], initial_BHKV=x[6], chunk=4)

    def channel(*x: Tensor) -> Any:
        return channel_decayed_attention(*x[:3], -x[3][..., None].expand(-1, -1, -1, 3), initial_BHKV=x[4])

    assert check(scalar, (q, k, v, g, gain, skip, initial))
    assert check(channel, (q, k, v, g, initial))
    assert check(lambda *x: normalised_attention(*x, taylor=True), (q, k, v))
    assert check(lambda *x: normalised_attention(x[0].exp(), x[1].exp(), x[2], taylor=False), (q, k, v))
    assert check(lambda *x: normalised_attention_to_all(*x, taylor=True), (q, k, v))


def test_repeated_unnormalised_keys_and_a_state_that_forgets_nothing_stay_exact() -> None:
    torch.manual_seed(0)
    k = (10 * torch.randn(1, 1, 2, 8)).expand(1, 3000, 2, 8).double()
    q, v = torch.randn(1, 3000, 2, 8).double(), torch.randn(1, 3000, 2, 8).double()
    g = torch.full((1, 3000, 2), -1e-6).double()
    expected, _ = loop(q, k, v, g[..., None].expand(-1, -1, -1, 8))
    scale = float(expected.abs().max())
    parts = [x.float() for x in (q, k, v, g)]
    rows = parts[3][..., None].expand(-1, -1, -1, 8)
    close(decayed_attention(*parts)[0], expected, 1e-5 * scale)
    close(channel_decayed_attention(*parts[:3], rows)[0], expected, 1e-5 * scale)


def test_bfloat16_inputs_keep_their_state_in_float32() -> None:
    q, k, v = (torch.randn(1, 100, 2, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    g = -torch.rand(1, 100, 2)
    for y, state in (
        decayed_attention(q, k, v, g),
        channel_decayed_attention(q, k, v, g[..., None].expand(-1, -1, -1, 8)),
        normalised_attention(q, k, v, taylor=True),
    ):
        assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
        (grad,) = torch.autograd.grad(y.sum(), q)
        assert grad.dtype == torch.bfloat16 and bool(grad.isfinite().all())
