from __future__ import annotations

import pytest
import torch

from nas.mixers.base import MixerConfig
from nas.mixers.softmax import KeyValueCache, SlidingWindow, windowed_attention
from nas.specs.base import Surroundings


def sliding_window(window: int) -> SlidingWindow:
    torch.manual_seed(0)
    around = Surroundings(width=16, max_context=1024, positions="rope")
    options = {"heads": 2, "kv_heads": 1, "head_dim": 8, "window": window}
    return SlidingWindow(MixerConfig(options=options, around=around)).double()


@pytest.mark.parametrize("window", [1, 2, 31, 32, 33, 64, 100, 128, 150])
def test_a_window_is_oneself_and_window_minus_one_earlier_tokens(window: int) -> None:
    mixer, length = sliding_window(window), 300
    x_BLD = torch.randn(1, length, 16, dtype=torch.float64, requires_grad=True)
    y_BLD = mixer(x_BLD)
    for place in (0, window - 1, window, window + 31, 200, length - 1):
        (gradient,) = torch.autograd.grad(y_BLD[0, place].sum(), x_BLD, retain_graph=True)
        seen = gradient[0].abs().sum(-1).nonzero()[:, 0].tolist()
        assert seen == list(range(max(0, place - window + 1), place + 1))


@pytest.mark.parametrize("length", [41, 72, 73, 104, 105, 136, 137])
def test_lengths_around_block_borders_equal_masked_attention(length: int) -> None:
    torch.manual_seed(0)
    window = 40
    q, k, v = (torch.randn(length, heads, 8, dtype=torch.float64) for heads in (6, 3, 3))
    distance = torch.arange(length)[:, None] - torch.arange(length)
    scores = torch.einsum("qnf,knf->nqk", q, k.repeat_interleave(2, 1)) / 8**0.5
    weights = scores.masked_fill((distance < 0) | (distance >= window), -torch.inf).softmax(-1)
    expected = torch.einsum("nqk,knf->qnf", weights, v.repeat_interleave(2, 1))
    torch.testing.assert_close(torch.cat(windowed_attention(q, k, v, window)), expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("context", [1, 10, 40, 41, 5000])
def test_the_cache_of_a_window_never_exceeds_the_window(context: int) -> None:
    mixer = sliding_window(40)
    dtype = torch.bfloat16
    state = mixer.new_state(2, context, cache_dtype=dtype, recurrent_dtype=torch.float32, device=torch.device("cpu"))
    assert state.slots == min(context, 40)
    assert sum(tensor.numel() for tensor in state.tensors()) == 2 * 2 * min(context, 40) * 8


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 11])
def test_a_filled_ring_equals_one_filled_token_by_token(length: int) -> None:
    keys, values = torch.randn(2, length, 1, 2), torch.randn(2, length, 1, 2)
    at_once, one_by_one = (KeyValueCache(torch.zeros(2, 1, 4, 2), torch.zeros(2, 1, 4, 2)) for _ in range(2))
    at_once.fill(keys, values)
    for key, value in zip(keys.unbind(1), values.unbind(1), strict=True):
        one_by_one.append(key, value)
    assert at_once.position == one_by_one.position == length
    for mine, theirs in zip(at_once.tensors(), one_by_one.tensors(), strict=True):
        assert torch.equal(mine, theirs)


def test_no_tensor_of_a_windowed_pass_is_as_large_as_a_mask_of_the_whole_sequence() -> None:
    mixer, length = sliding_window(32), 2048
    sizes = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.untyped_storage().nbytes() // tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mixer(torch.randn(1, length, 16, dtype=torch.float64))
    assert max(sizes) <= length * 16


def test_windowed_attention_runs_under_autocast() -> None:
    mixer = sliding_window(32).float()
    x_BLD = torch.randn(2, 100, 16)
    with torch.no_grad():
        expected = mixer(x_BLD)
        with torch.autocast("cpu", torch.bfloat16):
            found = mixer(x_BLD)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.0, atol=0.05 * float(expected.abs().max()))
