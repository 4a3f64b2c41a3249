from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.mixers.base import Layout, MixerConfig
from nas.mixers.positions import RelativeBias
from nas.mixers.softmax import CrossAttention, FullAttention, KeyValueCache, SlidingWindow, SoftmaxAttention
from nas.specs.base import Surroundings, Value
from nas.specs.mixers import softmax as specs

CPU = torch.device("cpu")
OPTIONS: dict[str, Value] = {"heads": 2, "kv_heads": 1, "head_dim": 8}


def around(positions: str = "rope", max_context: int = 1024, *, looks_ahead: bool = False) -> Surroundings:
    return Surroundings(width=16, max_context=max_context, positions=positions, looks_ahead=looks_ahead)


def sliding_window(window: int, sinks: int = 0, **options: Value) -> SlidingWindow:
    torch.manual_seed(0)
    given = {**OPTIONS, "window": window, "sinks": sinks, **options}
    return SlidingWindow(MixerConfig(options=given, around=around(looks_ahead=True))).double()


def seen_from(mixer: SoftmaxAttention, length: int, place: int, layout: Layout) -> list[int]:
    x_BLD = torch.randn(1, length, 16, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(mixer(x_BLD, layout)[0, place].sum(), x_BLD)
    return gradient[0].abs().sum(-1).nonzero()[:, 0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("window", [1, 2, 31, 32, 33, 64, 100, 128, 150])
@pytest.mark.parametrize("sinks", [0, 1, 4])
@pytest.mark.parametrize("both_ways", [False, True])
def test_a_window_is_oneself_its_neighbours_and_the_sinks(window: int, sinks: int, both_ways: bool) -> None:
    mixer, length = sliding_window(window, sinks), 300
    for place in (0, window - 1, window, window + 31, 200, length - 1):
        found = seen_from(mixer, length, place, Layout(prefix=length if both_ways else 0))
        last = min(length, place + window) if both_ways else place + 1
        first_tokens = range(min(sinks, length if both_ways else place + 1))
        assert found == sorted({*range(max(0, place - window + 1), last), *first_tokens})


def test_a_sink_inside_the_window_is_not_counted_twice() -> None:
    torch.manual_seed(0)
    mixer = sliding_window(40, sinks=3)
    full = FullAttention(MixerConfig(options=OPTIONS, around=around())).double()
    full.load_state_dict(mixer.state_dict())
    x_BLD = torch.randn(2, 43, 16, dtype=torch.float64)
    torch.testing.assert_close(mixer(x_BLD), full(x_BLD), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("context", [1, 3, 10, 40, 43, 44, 5000])
@pytest.mark.parametrize("sinks", [0, 4])
def test_the_cache_of_a_window_never_exceeds_window_and_sinks(context: int, sinks: int) -> None:
    mixer = sliding_window(40, sinks)
    state = mixer.new_state(2, context, cache_dtype=torch.bfloat16, recurrent_dtype=torch.float32, device=CPU)
    assert state.slots == min(context, 40 + sinks)
    assert sum(tensor.numel() for tensor in state.tensors()) == 2 * 2 * min(context, 40 + sinks) * 8


def cache(sinks: int, slots: int = 4) -> KeyValueCache:
    return KeyValueCache(torch.zeros(3, 1, slots, 2), torch.zeros(3, 1, slots, 2), sinks=sinks)


@pytest.mark.parametrize(
    ("length", "sinks"),
    [(1, 0), (3, 0), (4, 0), (5, 0), (8, 0), (11, 0), (1, 1), (4, 1), (5, 1), (11, 1), (4, 4), (3, 9)],
)
def test_a_filled_ring_equals_one_filled_token_by_token(length: int, sinks: int) -> None:
    keys, values = torch.randn(3, length, 1, 2), torch.randn(3, length, 1, 2)
    at_once, one_by_one = cache(sinks), cache(sinks)
    at_once.fill(keys, values)
    for place, (key, value) in enumerate(zip(keys.unbind(1), values.unbind(1), strict=True)):
        one_by_one.append(key, value, place)
    for mine, theirs in zip(at_once.tensors(), one_by_one.tensors(), strict=True):
        assert torch.equal(mine, theirs)
    held_BS = one_by_one.held(torch.tensor([[keys.shape[1] - 1]]))
    for slot, token in enumerate(held_BS[0, : keys.shape[1]].tolist()):
        assert torch.equal(at_once.keys_BGSF[:, 0, slot], keys[:, token, 0])


@pytest.mark.parametrize("sinks", [0, 1])
def test_rows_of_unequal_length_lie_in_the_ring_as_each_alone(sinks: int) -> None:
    keys, lengths_B = torch.arange(3 * 13 * 2.0).view(3, 13, 1, 2), torch.tensor([1, 9, 11])
    together = cache(sinks)
    together.fill(keys[:, :11], keys[:, :11], lengths_B)
    for more in range(2):
        key_BGF = keys[torch.arange(3), lengths_B + more]
        held_keys, _ = together.append(key_BGF, key_BGF, lengths_B + more)
        held_BS = together.held((lengths_B + more)[:, None])
        for row, latest in enumerate((lengths_B + more).tolist()):
            filled = held_BS[row] <= latest
            expected = {*range(min(sinks, latest + 1)), *range(max(0, latest - (4 - sinks) + 1), latest + 1)}
            assert set(held_BS[row][filled].tolist()) == expected
            assert torch.equal(held_keys[row, 0][filled], keys[row, held_BS[row][filled], 0])


def test_no_tensor_of_a_windowed_pass_is_as_large_as_a_mask_of_the_whole_sequence() -> None:
    mixer, length = sliding_window(32, sinks=2, sink_logit=True), 2048
    for layout in (Layout(), Layout(prefix=length), Layout(prefix=torch.tensor([1000]))):
        sizes = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.untyped_storage().nbytes() // tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            mixer(torch.randn(1, length, 16, dtype=torch.float64), layout)
        assert max(sizes) <= length * 16


@pytest.mark.parametrize("extras", [{}, {"sinks": 3, "sink_logit": True, "output_gate": True}])
def test_windowed_attention_runs_under_autocast(extras: dict[str, Any]) -> None:
    mixer = sliding_window(32, **extras).float()
    x_BLD = torch.randn(2, 100, 16)
    expected = mixer(x_BLD).detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = mixer(x_BLD)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.detach().float(), expected, rtol=0.0, atol=0.05 * float(expected.abs().max()))
    found.float().sum().backward()
    assert all(parameter.grad is not None for parameter in mixer.parameters())


def test_a_very_low_sink_logit_changes_nothing_and_a_high_one_silences() -> None:
    torch.manual_seed(0)
    mixer = FullAttention(MixerConfig(options={**OPTIONS, "sink_logit": True}, around=around())).double()
    plain = FullAttention(MixerConfig(options=OPTIONS, around=around())).double()
    plain.load_state_dict(mixer.state_dict(), strict=False)
    x_BLD = torch.randn(1, 20, 16, dtype=torch.float64)
    assert mixer.sinks is not None
    nn.init.constant_(mixer.sinks, -60.0)
    torch.testing.assert_close(mixer(x_BLD), plain(x_BLD), rtol=0.0, atol=1e-12)
    nn.init.constant_(mixer.sinks, 60.0)
    assert mixer(x_BLD).abs().max() < 1e-12


def relative_layer(shared: RelativeBias) -> FullAttention:
    config = MixerConfig(options=OPTIONS, around=around("relative"), relative=shared)
    return FullAttention(config)


def test_shared_relative_biases_belong_to_the_stack() -> None:
    shared = RelativeBias(2, looks_ahead=False)
    layer = relative_layer(shared)
    assert not any("relative" in name for name in layer.state_dict())
    stack = nn.ModuleDict({"relative": shared, "first": layer, "second": relative_layer(shared)}).to(torch.bfloat16)
    copied = copy.deepcopy(stack)
    biases = copied["relative"]
    assert biases is not shared
    assert copied["first"].relative == copied["second"].relative == (biases,)
    x_BLD = torch.randn(1, 9, 16, dtype=torch.bfloat16)
    copied["first"](x_BLD).sum().backward()
    assert biases.relative_attention_bias.weight.grad is not None
    assert shared.relative_attention_bias.weight.grad is None


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_cross_attention_reads_the_source_before_its_padding(kv_heads: int) -> None:
    torch.manual_seed(0)
    cross = CrossAttention(16, 2, kv_heads, 8).double()
    x_BLD, source = torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, 9, 16, dtype=torch.float64)
    lengths_B = torch.tensor([9, 4])
    padded = torch.where((torch.arange(9) < lengths_B[:, None])[..., None], source, 1e3)
    found = cross(x_BLD, cross.remember(padded, lengths_B))
    for row, length in enumerate(lengths_B.tolist()):
        q = (x_BLD[row] @ cross.q_proj.weight.T).view(5, 2, 8)
        k, v = (
            (source[row, :length] @ part.weight.T).view(length, kv_heads, 8).repeat_interleave(2 // kv_heads, 1)
            for part in (cross.k_proj, cross.v_proj)
        )
        weights = (torch.einsum("lhf,shf->hls", q, k) / 8**0.5).softmax(-1)
        expected = torch.einsum("hls,shf->lhf", weights, v).flatten(1) @ cross.o_proj.weight.T
        torch.testing.assert_close(found[row], expected, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(cross(x_BLD[:1], cross.remember(source[:1])), found[:1], rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("padded", [False, True])
def test_steps_of_cross_attention_equal_its_forward(padded: bool) -> None:
    torch.manual_seed(0)
    cross = CrossAttention(16, 2, 1, 8).double()
    x_BLD, source = torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, 9, 16, dtype=torch.float64)
    made = cross.remember(source, torch.tensor([9, 4]) if padded else None)
    memory = cross.new_memory(2, 12, dtype=torch.float64, device=CPU)
    before = [tensor.data_ptr() for tensor in memory.tensors()]
    memory.fill(made)
    assert [tensor.data_ptr() for tensor in memory.tensors()] == before
    assert not any(tensor.requires_grad for tensor in memory.tensors())
    expected = cross(x_BLD, made)
    steps = torch.stack([cross.step(x_BD, memory) for x_BD in x_BLD.unbind(1)], 1)
    torch.testing.assert_close(steps, expected, rtol=0.0, atol=1e-12)
    memory.select(torch.tensor([1, 1]))
    torch.testing.assert_close(cross(x_BLD[[1, 1]], memory), expected[[1, 1]], rtol=0.0, atol=1e-12)


def test_keys_at_their_defaults_leave_no_trace() -> None:
    options = {**OPTIONS, "window": 40, "sinks": 0, "sink_logit": False, "output_gate": False}
    assert specs.SlidingWindow().canonical("sliding_window", options, around()) == (
        "sliding_window",
        {**OPTIONS, "window": 40},
    )
    assert specs.FullAttention().canonical("full", {**OPTIONS, "sink_logit": False}, around()) == ("full", OPTIONS)
    kept = {**OPTIONS, "window": 40, "sinks": 2, "sink_logit": True, "output_gate": True}
    assert specs.SlidingWindow().canonical("sliding_window", kept, around()) == ("sliding_window", kept)


@pytest.mark.parametrize("looks_ahead", [False, True])
@pytest.mark.parametrize(("window", "sinks"), [(12, 0), (11, 0), (9, 3), (8, 3), (1, 11), (1, 12), (2, 11)])
def test_a_window_becomes_full_attention_just_where_every_token_sees_all(
    window: int, sinks: int, looks_ahead: bool
) -> None:
    surroundings = around(max_context=12, looks_ahead=looks_ahead)
    options = {**OPTIONS, "window": window, "sinks": sinks}
    name, _ = specs.SlidingWindow().canonical("sliding_window", options, surroundings)
    mixer, layout = sliding_window(window, sinks), Layout(prefix=12 if looks_ahead else 0)
    everything = [list(range(12 if looks_ahead else place + 1)) for place in range(12)]
    sees_all = [seen_from(mixer, 12, place, layout) for place in range(12)] == everything
    assert (name == "full") == sees_all


@pytest.mark.parametrize("looks_ahead", [False, True])
@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (5, 0), (5, 3), (5, 9), (40, 2), (1, 1)])
def test_flops_count_the_keys_that_are_seen(window: int, sinks: int, looks_ahead: bool) -> None:
    options = {**OPTIONS, "window": window, "sinks": sinks}
    spec, surroundings, length = specs.SlidingWindow(), around(looks_ahead=looks_ahead), 23
    mixer, layout = sliding_window(window, sinks), Layout(prefix=length if looks_ahead else 0)
    seen = sum(len(seen_from(mixer, length, place, layout)) for place in range(length)) / length
    found = spec.forward_flops(options, surroundings, length) - 2 * spec.parameters(options, surroundings)
    assert found == pytest.approx(4 * 16 * seen)


def test_heads_that_two_numbers_turn_must_split_in_four() -> None:
    surroundings = Surroundings(width=16, max_context=9, positions="rope", looks_ahead=True, rope_dimensions=2)
    broken = list(specs.FullAttention().broken_rules({**OPTIONS, "head_dim": 6}, surroundings))
    assert [rule.key for rule in broken] == ["head_dim"]
    assert "4" in broken[0].text
    assert "6" in broken[0].text
