from __future__ import annotations

import torch

from nas.mixers.positions import rotate


def llama_rotation(x_BLHF: torch.Tensor, start: int, theta: float) -> torch.Tensor:
    """x·cos + rotate_half(x)·sin, as Llama's authors and their followers write it."""
    half = x_BLHF.shape[-1] // 2
    angles = torch.outer(
        torch.arange(start, start + x_BLHF.shape[1], dtype=x_BLHF.dtype),
        1 / theta ** (torch.arange(half, dtype=x_BLHF.dtype) / half),
    )
    angles = torch.cat([angles, angles], -1)[None, :, None]
    rotated_half = torch.cat([-x_BLHF[..., half:], x_BLHF[..., :half]], -1)
    return x_BLHF * angles.cos() + rotated_half * angles.sin()


def test_the_rotation_is_llamas() -> None:
    x = torch.randn(2, 9, 3, 8, dtype=torch.float64)
    expected = llama_rotation(x, 5, 500_000.0)
    torch.testing.assert_close(rotate(x, start=5, theta=500_000.0, time_axis=1), expected, rtol=0.0, atol=1e-12)


def test_time_may_be_the_first_axis() -> None:
    x = torch.randn(2, 9, 3, 8)
    batch_first = rotate(x, start=0, theta=100.0, time_axis=1)
    time_first = rotate(x.transpose(0, 1), start=0, theta=100.0, time_axis=0)
    assert torch.equal(time_first.transpose(0, 1), batch_first)


def test_scores_depend_on_the_distance_alone() -> None:
    q, k = (torch.randn(1, 1, 1, 8, dtype=torch.float64) for _ in range(2))

    def score(query_at: int, key_at: int) -> float:
        turned = [rotate(x, start=at, theta=10.0, time_axis=1) for x, at in ((q, query_at), (k, key_at))]
        return float((turned[0] * turned[1]).sum())

    assert abs(score(7, 3) - score(104, 100)) < 1e-12
    assert abs(score(7, 3) - score(8, 3)) > 1e-6


def test_the_gradient_is_the_rotation_back() -> None:
    x = torch.randn(2, 4, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, start=3, theta=10.0, time_axis=1), x)


def test_bfloat16_keeps_far_positions_apart() -> None:
    x = torch.ones(1, 2, 1, 8, dtype=torch.bfloat16)
    turned = rotate(x, start=50_000, theta=10_000.0, time_axis=1)
    exact = rotate(x.float(), start=50_000, theta=10_000.0, time_axis=1)
    torch.testing.assert_close(turned.float(), exact, rtol=0.0, atol=0.02)
