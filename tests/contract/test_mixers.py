"""What every mixer of the catalog must do, whatever it is inside.

A mixer has three forms (parallel, prefill, one step) that equal a naive recurrence written here
in plain loops, and a state and parameters of exactly the size that its specification predicts.

A new mixer enters by a line in NAIVE and its variants in CASES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas import catalog
from nas.mixers.base import Mixer, MixerConfig
from nas.specs import mixer_spec
from nas.specs.base import MixerSpec, Surroundings, Value

WIDTH = 32
LENGTHS = (1, 7, 64, 65, 200)
CPU = torch.device("cpu")


def naive_softmax(mixer: Any, x_BLD: Tensor, config: MixerConfig) -> Tensor:
    """One query at a time over the keys that it sees, rotated as complex numbers."""
    heads, kv_heads, dim = (int(config.options[key]) for key in ("heads", "kv_heads", "head_dim"))
    window = int(config.options.get("window", x_BLD.shape[1]))
    q_BLHF = naive_rotation((x_BLD @ mixer.q_proj.weight.T).unflatten(-1, (heads, dim)), config)
    k_BLGF = naive_rotation((x_BLD @ mixer.k_proj.weight.T).unflatten(-1, (kv_heads, dim)), config)
    v_BLGF = (x_BLD @ mixer.v_proj.weight.T).unflatten(-1, (kv_heads, dim))
    shared_by = heads // kv_heads
    outputs = []
    for t in range(x_BLD.shape[1]):
        seen = slice(max(0, t - window + 1), t + 1)
        keys_BSHF, values_BSHF = (part[:, seen].repeat_interleave(shared_by, 2) for part in (k_BLGF, v_BLGF))
        weights_BSH = (q_BLHF[:, t, None] * keys_BSHF).sum(-1).div(dim**0.5).softmax(1)
        outputs.append((weights_BSH[..., None] * values_BSHF).sum(1).flatten(1) @ mixer.o_proj.weight.T)
    return torch.stack(outputs, 1)


def naive_rotation(x_BLHF: Tensor, config: MixerConfig) -> Tensor:
    if config.around.positions == "none":
        return x_BLHF
    half = x_BLHF.shape[-1] // 2
    frequencies = config.rope_theta ** (-torch.arange(half, dtype=x_BLHF.dtype) / half)
    angles_L1E = torch.outer(torch.arange(x_BLHF.shape[1], dtype=x_BLHF.dtype), frequencies)[:, None]
    turns = torch.polar(torch.ones_like(angles_L1E), angles_L1E)
    turned = torch.complex(x_BLHF[..., :half], x_BLHF[..., half:]) * turns
    return torch.cat([turned.real, turned.imag], -1)


Naive = Callable[[Any, Tensor, MixerConfig], Tensor]
NAIVE: Mapping[str, Naive] = {"full": naive_softmax, "sliding_window": naive_softmax}

CASES: list[tuple[str, dict[str, Value], str]] = [
    ("full", {"heads": 4, "kv_heads": 4, "head_dim": 8}, "rope"),
    ("full", {"heads": 4, "kv_heads": 2, "head_dim": 6}, "rope"),
    ("full", {"heads": 2, "kv_heads": 1, "head_dim": 16}, "none"),
    ("sliding_window", {"heads": 4, "kv_heads": 4, "head_dim": 8, "window": 1}, "rope"),
    ("sliding_window", {"heads": 4, "kv_heads": 2, "head_dim": 8, "window": 5}, "rope"),
    ("sliding_window", {"heads": 2, "kv_heads": 1, "head_dim": 16, "window": 64}, "none"),
    ("sliding_window", {"heads": 2, "kv_heads": 2, "head_dim": 16, "window": 130}, "rope"),
]
IDS = ["-".join([name, *(f"{key}{value}" for key, value in options.items()), pos]) for name, options, pos in CASES]

every_case = pytest.mark.parametrize(("name", "options", "positions"), CASES, ids=IDS)


def make(
    name: str, options: dict[str, Value], positions: str, dtype: torch.dtype = torch.float64
) -> tuple[Mixer[Any], MixerSpec, MixerConfig]:
    torch.manual_seed(0)
    spec = mixer_spec(name)
    around = Surroundings(width=WIDTH, max_context=256, positions=positions)
    config = MixerConfig(options=options, around=around, rope_theta=500.0)
    mixer: Mixer[Any] = catalog.load_target(spec.implementation, what="mixer")(config)
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=2 * parameter.shape[-1] ** -0.5)
    return mixer.to(dtype), spec, config


def new_state(mixer: Mixer[Any], batch: int, context: int, cache: torch.dtype = torch.float64) -> Any:
    return mixer.new_state(batch, context, cache_dtype=cache, recurrent_dtype=torch.float64, device=CPU)


def steps(mixer: Mixer[Any], x_BLD: Tensor, state: Any) -> Tensor:
    return torch.stack([mixer.step(x_BD, state) for x_BD in x_BLD.unbind(1)], 1)


def test_every_mixer_of_the_catalog_is_under_this_contract() -> None:
    assert set(catalog.MIXERS) == set(NAIVE) == {name for name, _, _ in CASES}


@every_case
@pytest.mark.parametrize("length", LENGTHS)
def test_parallel_prefill_and_step_forms_equal_the_naive_recurrence(
    name: str, options: dict[str, Value], positions: str, length: int
) -> None:
    mixer, _, config = make(name, options, positions)
    x_BLD = torch.randn(2, length, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        expected = NAIVE[name](mixer, x_BLD, config)
        exact = {"rtol": 0.0, "atol": 1e-10}
        torch.testing.assert_close(mixer(x_BLD), expected, **exact)
        torch.testing.assert_close(mixer.prefill(x_BLD, new_state(mixer, 2, length)), expected, **exact)
        torch.testing.assert_close(steps(mixer, x_BLD, new_state(mixer, 2, length)), expected, **exact)
        single = mixer.to(torch.float32)(x_BLD.float())
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@every_case
@pytest.mark.parametrize("length", [1, 7, 65, 200])
def test_gradients_equal_those_of_the_naive_recurrence(
    name: str, options: dict[str, Value], positions: str, length: int
) -> None:
    mixer, _, config = make(name, options, positions)
    x_BLD = torch.randn(2, length, WIDTH, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, length, WIDTH, dtype=torch.float64)
    leaves = [x_BLD, *mixer.parameters()]
    expected = torch.autograd.grad((NAIVE[name](mixer, x_BLD, config) * direction).sum(), leaves)
    found = torch.autograd.grad((mixer(x_BLD) * direction).sum(), leaves)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@every_case
@pytest.mark.parametrize("prompt", [1, 6, 70, 140])
def test_steps_continue_a_prefilled_state(name: str, options: dict[str, Value], positions: str, prompt: int) -> None:
    mixer, _, _ = make(name, options, positions)
    x_BLD = torch.randn(2, 150, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        state = new_state(mixer, 2, 150)
        start = mixer.prefill(x_BLD[:, :prompt], state)
        found = torch.cat([start, steps(mixer, x_BLD[:, prompt:], state)], 1)
        torch.testing.assert_close(found, mixer(x_BLD), rtol=0.0, atol=1e-10)


@every_case
def test_a_changed_token_changes_no_earlier_output(name: str, options: dict[str, Value], positions: str) -> None:
    mixer, _, _ = make(name, options, positions)
    x_BLD = torch.randn(1, 200, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        before = mixer(x_BLD)
        for place in (0, 1, 63, 64, 65, 131, 199):
            changed = x_BLD.clone()
            changed[:, place] += 1.0
            after = mixer(changed)
            torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0.0, atol=1e-12)
            assert not torch.allclose(after[:, place], before[:, place])


@every_case
@pytest.mark.parametrize("context", [1, 4, 64, 300])
def test_a_state_holds_exactly_the_elements_of_the_specification(
    name: str, options: dict[str, Value], positions: str, context: int
) -> None:
    mixer, spec, config = make(name, options, positions, torch.float32)
    cache, recurrent = torch.bfloat16, torch.float32
    state = mixer.new_state(3, context, cache_dtype=cache, recurrent_dtype=recurrent, device=CPU)
    counted = dict.fromkeys((cache, recurrent), 0)
    for tensor in state.tensors():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        counted[tensor.dtype] += tensor.numel()
    assert counted[cache] == 3 * spec.cache_elements(options, config.around, context)
    assert counted[recurrent] == 3 * spec.recurrent_elements(options, config.around)


@every_case
def test_a_state_does_not_grow_while_it_is_used(name: str, options: dict[str, Value], positions: str) -> None:
    mixer, _, _ = make(name, options, positions)
    state = new_state(mixer, 2, 150)
    before = [(tensor.data_ptr(), tensor.shape) for tensor in state.tensors()]
    with torch.no_grad():
        mixer.prefill(torch.randn(2, 140, WIDTH, dtype=torch.float64), state)
        steps(mixer, torch.randn(2, 10, WIDTH, dtype=torch.float64), state)
    assert [(tensor.data_ptr(), tensor.shape) for tensor in state.tensors()] == before
    assert not any(tensor.requires_grad for tensor in state.tensors())


@every_case
@pytest.mark.parametrize(
    ("weights", "cache"),
    [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def test_weights_and_cache_may_have_different_dtypes(
    name: str, options: dict[str, Value], positions: str, weights: torch.dtype, cache: torch.dtype
) -> None:
    mixer, _, _ = make(name, options, positions, weights)
    x_BLD = torch.randn(2, 80, WIDTH).to(weights)
    with torch.no_grad():
        state = mixer.new_state(2, 80, cache_dtype=cache, recurrent_dtype=torch.float32, device=CPU)
        start = mixer.prefill(x_BLD[:, :70], state)
        found = torch.cat([start, steps(mixer, x_BLD[:, 70:], state)], 1)
        expected = mixer(x_BLD)
    assert found.dtype == weights
    scale = float(expected.float().abs().max())
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.05 * scale)


@every_case
def test_parameters_are_as_many_as_the_specification_says(name: str, options: dict[str, Value], positions: str) -> None:
    mixer, spec, config = make(name, options, positions)
    assert sum(parameter.numel() for parameter in mixer.parameters()) == spec.parameters(options, config.around)
    assert not list(mixer.buffers())


@every_case
@pytest.mark.parametrize("length", [4, 64, 200])
def test_backward_keeps_exactly_the_elements_of_the_specification(
    name: str, options: dict[str, Value], positions: str, length: int
) -> None:
    mixer, spec, config = make(name, options, positions, torch.float32)
    # The difference of two batches: what is kept once, such as a mask, drops out.
    few, many = (saved_elements(mixer, torch.randn(batch, length, WIDTH)) for batch in (2, 5))
    assert many - few == 3 * length * spec.saved_elements(options, config.around, length)


def saved_elements(module: nn.Module, x: Tensor) -> int:
    """Elements that autograd keeps for backward, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    storages: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = module(x.requires_grad_())
    del kept
    return sum(storages.values())
