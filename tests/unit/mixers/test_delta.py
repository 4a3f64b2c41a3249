from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from references.delta import naive_delta_rule
from torch import Tensor

from nas.mixers import delta_core
from nas.mixers.base import MixerConfig
from nas.mixers.delta import GatedDeltaNet, HeadNorm
from nas.mixers.delta_core import chunk_gated_delta_rule, delta_rule
from nas.specs.base import Surroundings
from nas.specs.mixers import delta as specs
from nas.specs.sketches.delta import segment_tokens

WIDTH = 48
AROUND = Surroundings(width=WIDTH, max_context=256, positions="none")

Tokens = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]


def tokens(
    length: int,
    *,
    heads: int = 2,
    key_heads: int = 2,
    batch: int = 2,
    features: tuple[int, int] = (6, 5),
    repeat: bool = False,
    key_length: float | None = 1.0,
    beta: tuple[float, float] = (0.0, 1.0),
    decay: tuple[float, float] | None = (-0.2, 0.0),
    dtype: torch.dtype = torch.float64,
) -> Tokens:
    torch.manual_seed(0)
    key_dim, value_dim = features
    q_BLGK, k_BLGK = torch.randn(2, batch, length, key_heads, key_dim, dtype=torch.float64).unbind()
    if repeat:
        k_BLGK = k_BLGK[:, :1].expand_as(k_BLGK).clone()
    if key_length is not None:
        k_BLGK = key_length * torch.nn.functional.normalize(k_BLGK, dim=-1)
    v_BLHV = torch.randn(batch, length, heads, value_dim, dtype=torch.float64)
    beta_BLH = torch.empty(batch, length, heads, dtype=torch.float64).uniform_(*beta)
    decay_BLH = None if decay is None else torch.empty_like(beta_BLH).uniform_(*decay)
    made = (q_BLGK, k_BLGK, v_BLHV, decay_BLH, beta_BLH)
    return tuple(None if x is None else x.to(dtype).requires_grad_() for x in made)  # type: ignore[return-value]


def naive(inputs: Tokens) -> tuple[Tensor, Tensor]:
    q, k, v, g, beta = inputs
    repeats = v.shape[2] // q.shape[2]
    q, k = q.repeat_interleave(repeats, 2) * q.shape[-1] ** -0.5, k.repeat_interleave(repeats, 2)
    rows = [naive_delta_rule(q[b], k[b], v[b], None if g is None else g[b], beta[b]) for b in range(len(q))]
    return torch.stack([row[0] for row in rows]), torch.stack([row[1].mT for row in rows])


def with_gradients(outputs: tuple[Tensor, Tensor], inputs: Tokens) -> list[Tensor]:
    torch.manual_seed(1)
    loss = sum(((x * torch.randn(x.shape, dtype=torch.float64).to(x.dtype)).sum() for x in outputs), torch.zeros(()))
    return [*outputs, *torch.autograd.grad(loss, [x for x in inputs if x is not None])]


def assert_close(found: list[Tensor], expected: list[Tensor], error: float) -> None:
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        off = float((x.detach().double() - y.detach().double()).abs().max())
        assert off <= error * max(float(y.detach().abs().max()), 1e-30), f"tensor {i} is off by {off:.3g}"


HARD = {
    "plain": {},
    "undecayed": {"decay": None},
    "nearly undecayed": {"decay": (-1e-6, 0.0)},
    "strongly decayed": {"decay": (-20.0, -10.0)},
    "decays from none to all": {"decay": (-20.0, 0.0)},
    "repeated keys": {"repeat": True, "beta": (0.95, 1.0)},
    "repeated keys, undecayed": {"repeat": True, "beta": (0.999, 1.0), "decay": None},
    "long keys": {"key_length": 1.4, "beta": (0.9, 1.0), "decay": None},
    "long repeated keys": {"key_length": 1.4, "repeat": True, "beta": (0.9, 1.0), "decay": (-0.01, 0.0)},
    "keys of any length": {"key_length": None, "beta": (0.0, 0.3)},
    "shared keys": {"heads": 4, "key_heads": 2},
}


@pytest.mark.parametrize("hard", HARD.values(), ids=HARD)
@pytest.mark.parametrize(("length", "chunk"), [(1, 32), (5, 4), (64, 32), (77, 32), (77, 64), (100, 100)])
def test_the_chunked_form_equals_the_naive_recurrence(hard: dict[str, object], length: int, chunk: int) -> None:
    inputs = tokens(length, **hard)  # type: ignore[arg-type]
    expected = with_gradients(naive(inputs), inputs)
    assert_close(with_gradients(chunk_gated_delta_rule(*inputs, chunk=chunk), inputs), expected, 1e-10)
    single: Tokens = tuple(None if x is None else x.detach().float().requires_grad_() for x in inputs)  # type: ignore[assignment]
    found = with_gradients(chunk_gated_delta_rule(*single, chunk=chunk), single)
    assert_close(found[:2], expected[:2], 1e-5)
    assert_close(found[2:], expected[2:], 1e-4)


@pytest.mark.parametrize("decay", [None, (-2.0, 0.0)], ids=["undecayed", "decayed"])
def test_segments_change_nothing(decay: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tokens(90, decay=decay)
    whole = with_gradients(chunk_gated_delta_rule(*inputs, chunk=8), inputs)
    monkeypatch.setattr(delta_core, "segment_tokens", lambda rows, features: 27)
    assert_close(with_gradients(chunk_gated_delta_rule(*inputs, chunk=8), inputs), whole, 1e-12)


@pytest.mark.parametrize("unit", [False, True], ids=["any length", "unit"])
@pytest.mark.parametrize("decay", [None, (-2.0, 0.0)], ids=["undecayed", "decayed"])
def test_the_written_gradients_are_those_of_differences(decay: tuple[float, float] | None, unit: bool) -> None:
    inputs = tokens(11, batch=1, heads=2, key_heads=1, features=(3, 2), key_length=None, beta=(0.1, 0.4), decay=decay)
    rest = [x for x in inputs if x is not None]

    def run(*given: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, *others = given
        g = None if decay is None else others[0]
        return chunk_gated_delta_rule(q, k, v, g, others[-1], chunk=4, unit=unit)

    assert torch.autograd.gradcheck(run, rest)


def test_unit_vectors_are_formed_inside_as_outside() -> None:
    q, k, v, g, beta = tokens(40, key_length=None)
    q_, k_ = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    inside = with_gradients(chunk_gated_delta_rule(q, k, v, g, beta, chunk=16, unit=True), (q, k, v, g, beta))
    outside = with_gradients(chunk_gated_delta_rule(q_, k_, v, g, beta, chunk=16), (q, k, v, g, beta))
    assert_close(inside, outside, 1e-12)


def test_a_key_that_comes_again_replaces_its_value() -> None:
    q, k, v, _, beta = tokens(50, repeat=True, beta=(1.0, 1.0), decay=None)
    _, memory_BHKV = chunk_gated_delta_rule(q, k, v, None, beta, chunk=16)
    answer_BHV = torch.einsum("bhk,bhkv->bhv", k[:, -1], memory_BHKV)
    torch.testing.assert_close(answer_BHV, v[:, -1], rtol=0, atol=1e-12)


def test_a_half_precision_sequence_is_computed_in_single() -> None:
    inputs = tokens(100, dtype=torch.bfloat16)
    out, memory = chunk_gated_delta_rule(*inputs, chunk=32)
    single = [None if x is None else x.float() for x in inputs]
    expected, expected_memory = chunk_gated_delta_rule(*single, chunk=32)  # type: ignore[arg-type]
    assert out.dtype == torch.bfloat16 and memory.dtype == torch.float32
    torch.testing.assert_close(out, expected.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(memory, expected_memory, rtol=0, atol=0)


def test_autocast_does_not_reach_the_memories() -> None:
    inputs = tokens(100, dtype=torch.float32)
    expected = with_gradients(chunk_gated_delta_rule(*inputs, chunk=32), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(chunk_gated_delta_rule(*inputs, chunk=32), inputs)
    assert_close(found, expected, 1e-6)


def test_training_keeps_no_more_than_the_inputs_and_a_memory_for_each_segment() -> None:
    inputs = tokens(2048, batch=1, heads=4, key_heads=4, features=(64, 64), dtype=torch.float32)
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // 4
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        chunk_gated_delta_rule(*inputs, chunk=32)
    given = sum(x.numel() for x in inputs if x is not None)
    segments = 2048 // segment_tokens(4, 64)
    assert segments > 1
    assert sum(kept.values()) == given + (segments - 1) * 4 * 64 * 64


@pytest.mark.parametrize("gated", [False, True])
def test_the_norm_has_the_gradients_of_its_formula(gated: bool) -> None:
    torch.manual_seed(0)
    norm = HeadNorm(5).double()
    torch.nn.init.normal_(norm.weight)
    x, gate = torch.randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_().unbind()
    formula = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * norm.weight
    expected = formula * torch.nn.functional.silu(gate) if gated else formula
    torch.testing.assert_close(norm(x, gate if gated else None), expected, rtol=0, atol=1e-12)
    leaves = [y.detach().requires_grad_() for y in (x, gate)]
    assert torch.autograd.gradcheck(
        lambda a, b, w: torch.func.functional_call(norm, {"weight": w}, (a, b if gated else None)) + 0 * b,
        (*leaves, norm.weight.detach().requires_grad_()),
    )


def gated_delta(**options: int | bool) -> GatedDeltaNet:
    spec = specs.GatedDeltaNet()
    defaults = {name: key.default for name, key in spec.keys.items() if key.default is not None}
    complete = spec.complete({**defaults, **options}, AROUND)
    assert not list(spec.broken_rules(complete, AROUND))
    return GatedDeltaNet(MixerConfig(options=complete, around=AROUND))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("heads", "key_heads", "length"), [(4, 4, 1), (4, 2, 150), (6, 2, 70)])
def test_gated_delta_is_the_gated_delta_net_of_transformers(heads: int, key_heads: int, length: int) -> None:
    pytest.importorskip("transformers")
    from transformers import DynamicCache, Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    torch.manual_seed(0)
    config = Qwen3NextConfig(
        hidden_size=WIDTH,
        linear_num_value_heads=heads,
        linear_num_key_heads=key_heads,
        linear_key_head_dim=8,
        linear_value_head_dim=12,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    theirs = Qwen3NextGatedDeltaNet(config, 0)
    mine = gated_delta(heads=heads, key_heads=key_heads, key_dim=8, value_dim=12)
    with torch.no_grad():
        torch.nn.init.normal_(theirs.norm.weight)
        copy_weights(theirs, mine)
    x_BLD, rest_BLD = torch.randn(2, length, WIDTH), torch.randn(2, 20, WIDTH)
    found, expected = mine(x_BLD), theirs(x_BLD)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    direction = torch.randn_like(found)
    shared = ["A_log", "dt_bias"]
    for name in shared:
        pair = [torch.autograd.grad(y, getattr(m, name), direction, retain_graph=True)[0] for y, m in
                ((found, mine), (expected, theirs))]  # fmt: skip
        torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-3)
    cache = DynamicCache(config=config)
    float32 = torch.float32
    state = mine.new_state(2, 256, cache_dtype=float32, recurrent_dtype=float32, device=torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(mine.prefill(x_BLD, state), theirs(x_BLD, cache_params=cache), rtol=0, atol=1e-4)
        for t, x_BD in enumerate(rest_BLD.unbind(1)):
            step = theirs(x_BD[:, None], cache_params=cache)[:, 0]
            torch.testing.assert_close(mine.step(x_BD, state, length + t), step, rtol=0, atol=1e-4)


def copy_weights(theirs: torch.nn.Module, mine: GatedDeltaNet) -> None:
    """Their projections are joined, group by group of heads that share a key."""
    groups, key_dim, value_dim = mine.key_heads, mine.key_dim, mine.value_dim
    values = mine.heads // groups * value_dim
    parts = theirs.in_proj_qkvz.weight.view(groups, -1, WIDTH).split([key_dim, key_dim, values, values], 1)
    assert mine.g_proj is not None and mine.conv is not None
    for linear, part in zip((mine.q_proj, mine.k_proj, mine.v_proj, mine.g_proj), parts, strict=True):
        linear.weight.copy_(part.reshape(-1, WIDTH))
    halves = theirs.in_proj_ba.weight.view(groups, 2, -1, WIDTH).unbind(1)
    for linear, part in zip((mine.b_proj, mine.a_proj), halves, strict=True):
        linear.weight.copy_(part.reshape(-1, WIDTH))
    mine.conv.weight.copy_(theirs.conv1d.weight.unsqueeze(2))
    mine.o_norm.weight.copy_(theirs.norm.weight)
    mine.o_proj.weight.copy_(theirs.out_proj.weight)
    mine.A_log.copy_(theirs.A_log)
    mine.dt_bias.copy_(theirs.dt_bias)


def test_time_steps_start_between_a_thousandth_and_a_tenth() -> None:
    steps = torch.nn.functional.softplus(gated_delta(heads=16).dt_bias.detach())
    assert float(steps.min()) > 0.9e-3 and float(steps.max()) < 0.11


@pytest.mark.parametrize(
    ("options", "key", "numbers"),
    [
        ({"heads": 5}, "heads", ("5", "48")),
        ({"heads": 5, "key_dim": 8}, "heads", ("5", "48")),
        ({"heads": 4, "key_heads": 3}, "key_heads", ("3", "4")),
        ({"heads": 2, "key_heads": 4}, "key_heads", ("4", "2")),
    ],
)
def test_broken_rules_name_the_key_and_both_numbers(
    options: dict[str, int], key: str, numbers: tuple[str, str]
) -> None:
    spec = specs.DeltaNet()
    (broken,) = spec.broken_rules(spec.complete(options, AROUND), AROUND)
    assert broken.key == key
    assert all(number in broken.text for number in numbers)


def test_heads_need_not_divide_the_width_when_both_dims_are_given() -> None:
    spec = specs.DeltaNet()
    assert not list(spec.broken_rules(spec.complete({"heads": 5, "key_dim": 8, "value_dim": 9}, AROUND), AROUND))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or find_spec("fla") is None, reason="needs CUDA and fla")
@pytest.mark.parametrize("decay", [None, (-0.2, 0.0)], ids=["undecayed", "decayed"])
def test_the_kernels_of_flash_linear_attention_agree(
    decay: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tokens(300, heads=4, key_heads=2, features=(64, 64), decay=decay, dtype=torch.bfloat16)
    inputs: Tokens = tuple(None if x is None else x.detach().cuda().requires_grad_() for x in made)  # type: ignore[assignment]
    monkeypatch.delenv("NAS_KERNELS", raising=False)
    found = delta_rule(*inputs, unit=True)
    monkeypatch.setenv("NAS_KERNELS", "plain")
    expected = delta_rule(*inputs, unit=True)
    leaves = [x for x in inputs if x is not None]
    pairs = [(found, expected)]
    pairs += [tuple(torch.autograd.grad(y[0].float().square().sum(), leaves) for y in (found, expected))]  # type: ignore[list-item]
    for mine, theirs in pairs:
        assert_close(list(mine), list(theirs), 0.05)
