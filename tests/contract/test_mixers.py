"""What every mixer of the catalog must do, whatever it is inside.

A mixer has three forms (parallel, prefill, one step) that equal a naive recurrence written in
plain loops (tests/references), in both directions inside a prefix, whatever stands in the padding;
and a state and parameters of exactly the size that its specification predicts.

A new mixer enters by a reference module that exports NAIVE and CASES, named in REFERENCES.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from references.case import Case
from torch import Tensor, nn

from nas import catalog
from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig, MixerState
from nas.mixers.positions import RelativeBias
from nas.specs import mixer_spec
from nas.specs.base import MixerSpec, Surroundings
from nas.specs.tape import Extent, Tape

WIDTH = 32
LENGTHS = (1, 7, 64, 65, 200)
CPU = torch.device("cpu")
EXACT, SINGLE, SINGLE_GRADIENT, COARSE = 1e-10, 1e-5, 1e-4, 0.05
"""Errors relative to the largest value: in float64, in float32, of gradients in float32, in bfloat16."""

REFERENCES = ("convolution", "delta", "latent", "linear", "recurrent", "softmax", "state_space")

Naive = Callable[[Any, Tensor, MixerConfig, Tensor], Tensor]


def references() -> tuple[Mapping[str, Naive], list[Case]]:
    naive: dict[str, Naive] = {}
    cases: list[Case] = []
    for name in REFERENCES:
        try:
            module = importlib.import_module(f"references.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"references.{name}":
                raise
            continue
        assert not set(naive) & set(module.NAIVE)
        naive.update(module.NAIVE)
        cases.extend(module.CASES)
    return naive, cases


NAIVE, CASES = references()
LOOKS_BACK_ONLY = {"gated_conv", "none"}
"""Mixers in which an earlier token sees no later one in any layout."""

every_case = pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
both_directions = pytest.mark.parametrize("looks_ahead", [False, True], ids=["causal", "ahead"])


@dataclass(frozen=True)
class Made:
    """A mixer, its specification and what it was made from."""

    mixer: Mixer[Any]
    spec: MixerSpec
    config: MixerConfig

    @property
    def leaves(self) -> list[nn.Parameter]:
        shared = self.config.relative
        return [*self.mixer.parameters(), *(shared.parameters() if shared is not None else ())]

    def to(self, dtype: torch.dtype) -> Made:
        self.mixer.to(dtype)
        if self.config.relative is not None:
            self.config.relative.to(dtype)
        return self

    def state(self, batch: int, context: int) -> Any:
        float64 = torch.float64
        return self.mixer.new_state(batch, context, cache_dtype=float64, recurrent_dtype=float64, device=CPU)

    def naive(self, case: Case, x_BLD: Tensor, prefix: int | Sequence[int] | Tensor = 0) -> Tensor:
        prefix_B = torch.full((len(x_BLD),), prefix) if isinstance(prefix, int) else torch.as_tensor(prefix)
        return NAIVE[case.mixer](self.mixer, x_BLD, self.config, prefix_B)


def make(case: Case, *, looks_ahead: bool = False, dtype: torch.dtype = torch.float64) -> Made:
    torch.manual_seed(0)
    spec = mixer_spec(case.mixer)
    around = Surroundings(
        width=WIDTH,
        max_context=256,
        positions=case.positions,
        looks_ahead=looks_ahead,
        rope_dimensions=case.rope.dimensions,
    )
    assert not list(spec.broken_rules(case.options, around))
    biased_heads = spec.relative_heads(case.options) if case.positions == "relative" else 0
    relative = RelativeBias(biased_heads, looks_ahead=looks_ahead) if biased_heads else None
    config = MixerConfig(options=case.options, around=around, rope=case.rope, relative=relative)
    made = Made(catalog.load_target(spec.implementation, what="mixer")(config), spec, config)
    projections = {id(module.weight) for module in made.mixer.modules() if isinstance(module, nn.Linear)}
    with torch.no_grad():
        for leaf in made.leaves:
            # Strong weights show mistakes that weak ones hide; decays and their like stay near what they are.
            strength = 1.5 * leaf.shape[-1] ** -0.5 if id(leaf) in projections else 0.1
            leaf.copy_(torch.randn_like(leaf) * strength + (0 if id(leaf) in projections else leaf))
    return made.to(dtype)


def inputs(batch: int, length: int) -> Tensor:
    """Numbers that float32 holds exactly."""
    return torch.randn(batch, length, WIDTH).double()


def steps(mixer: Mixer[Any], x_BLD: Tensor, state: Any, start: int | Tensor = 0) -> Tensor:
    return torch.stack([mixer.step(x_BD, state, start + t) for t, x_BD in enumerate(x_BLD.unbind(1))], 1)


def assert_equal(found: Tensor, expected: Tensor, error: float, what: str, *, floor: float = 0.0) -> None:
    """Equal to `error` of the largest expected value (or of `floor`, where that is larger)."""
    largest = float(expected.detach().abs().max()) if expected.numel() else 0.0
    scale = max(largest, floor, 1.0 if error == EXACT else 1e-30)
    assert bool(found.isfinite().all()), f"{what}: not finite"
    off = float((found.detach().double() - expected.detach().double()).abs().max()) if expected.numel() else 0.0
    assert off <= error * scale, f"{what}: off by {off:.3g} where the largest value is {largest:.3g}"


def test_every_mixer_of_the_catalog_is_under_this_contract() -> None:
    assert set(catalog.MIXERS) == set(NAIVE) == {case.mixer for case in CASES}


@every_case
def test_parallel_prefill_and_step_forms_equal_the_naive_recurrence(case: Case) -> None:
    made = make(case)
    x_BLD = inputs(2, max(LENGTHS))
    with torch.no_grad():
        # Causal: what is expected of the first tokens is the beginning of what is expected of all.
        expected = made.naive(case, x_BLD)
        assert_equal(steps(made.mixer, x_BLD, made.state(2, max(LENGTHS))), expected, EXACT, "steps")
        for length in LENGTHS:
            some, wanted = x_BLD[:, :length], expected[:, :length]
            assert_equal(made.mixer(some), wanted, EXACT, f"forward of {length}")
            assert_equal(made.mixer.prefill(some, made.state(2, length)), wanted, EXACT, f"prefill of {length}")
        made.to(torch.float32)
        for length in LENGTHS:
            some, wanted = x_BLD[:, :length].float(), expected[:, :length]
            assert_equal(made.mixer(some), wanted, SINGLE, f"float32 forward of {length}")


@dataclass(frozen=True)
class Form:
    """A layout, with its prefix as the reference takes it."""

    label: str
    length: int
    prefix: int | tuple[int, ...] = 0
    lengths: tuple[int, ...] | None = None

    @property
    def layout(self) -> Layout:
        prefix = self.prefix if isinstance(self.prefix, int) else torch.tensor(self.prefix)
        return Layout(prefix=prefix, lengths_B=None if self.lengths is None else torch.tensor(self.lengths))

    @property
    def batch(self) -> int:
        return 3 if isinstance(self.prefix, int) else len(self.prefix)

    @property
    def real_BL1(self) -> Tensor:  # noqa: N802
        """Where no padding is."""
        lengths_B = torch.tensor(self.lengths or (self.length,) * self.batch)
        return (torch.arange(self.length) < lengths_B[:, None])[..., None]


FORMS = [
    Form("nothing", 70),
    Form("one", 70, 1),
    Form("part", 70, 33),
    Form("whole", 70, 70),
    Form("whole-of-one", 1, 1),
    Form("whole-of-chunks", 128, 128),
    Form("uneven", 70, (0, 1, 70, 66, 64)),
    Form("padded", 70, (0, 0, 0), (70, 1, 64)),
    Form("whole-padded", 70, (70, 1, 2, 65), (70, 1, 2, 65)),
    Form("uneven-padded", 131, (5, 0, 1, 129, 66), (66, 3, 1, 131, 130)),
]
every_form = pytest.mark.parametrize("form", FORMS, ids=[form.label for form in FORMS])


@every_case
@every_form
def test_a_prefix_is_seen_in_both_directions_whatever_the_padding(case: Case, form: Form) -> None:
    made = make(case, looks_ahead=True)
    x_BLD, garbage = inputs(form.batch, form.length), 30 * inputs(form.batch, form.length)
    real_BL1 = form.real_BL1
    with torch.no_grad():
        expected = made.naive(case, x_BLD, form.prefix) * real_BL1
        for padding, name in ((x_BLD, "tokens"), (garbage, "garbage")):
            padded = torch.where(real_BL1, x_BLD, padding)
            found = made.mixer(padded, form.layout)
            assert found.isfinite().all()
            assert_equal(found * real_BL1, expected, EXACT, f"forward with {name} in the padding")
            found = made.mixer.prefill(padded, made.state(form.batch, form.length), form.layout)
            assert found.isfinite().all()
            assert_equal(found * real_BL1, expected, EXACT, f"prefill with {name} in the padding")
        single = made.to(torch.float32).mixer(x_BLD.float(), form.layout)
    assert_equal(single * real_BL1, expected, SINGLE, "float32")


def gradients(output: Tensor, direction: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    if not output.requires_grad:  # a mixer that does nothing
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(output, leaves, direction.to(output.dtype), allow_unused=True, materialize_grads=True)
    return list(found)


GRADIENT_FORMS = [
    (False, Form("causal", 7)),
    (False, Form("causal", 130)),
    (True, Form("whole", 70, 70)),
    (True, Form("uneven-padded", 70, (5, 0, 1, 65), (66, 3, 1, 70))),
]


@every_case
@pytest.mark.parametrize(
    ("looks_ahead", "form"), GRADIENT_FORMS, ids=[f"{form.label}{form.length}" for _, form in GRADIENT_FORMS]
)
def test_gradients_equal_those_of_the_naive_recurrence(case: Case, looks_ahead: bool, form: Form) -> None:
    made = make(case, looks_ahead=looks_ahead)
    x_BLD = inputs(form.batch, form.length).requires_grad_()
    # Nothing flows back from the padding: a loss leaves it out.
    direction = inputs(form.batch, form.length) * form.real_BL1
    layout = form.layout if looks_ahead else CAUSAL
    names = ["x", *(name for name, _ in made.mixer.named_parameters()), "relative"]
    wanted = made.naive(case, x_BLD, form.prefix)
    expected = gradients(wanted, direction, [x_BLD, *made.leaves])
    output = made.mixer(x_BLD, layout)
    # With gradients on a mixer may go another way than without.
    assert_equal(output * form.real_BL1, wanted * form.real_BL1, EXACT, "forward with gradients on")
    found = gradients(output, direction, [x_BLD, *made.leaves])
    for name, mine, theirs in zip(names, found, expected, strict=False):
        assert_equal(mine, theirs, EXACT, f"gradient of {name}")
    made.to(torch.float32)
    single = x_BLD.detach().float().requires_grad_()
    found = gradients(made.mixer(single, layout), direction, [single, *made.leaves])
    floor = 1e-2 * max(float(theirs.abs().max()) for theirs in expected)
    for name, mine, theirs in zip(names, found, expected, strict=False):
        assert_equal(mine, theirs, SINGLE_GRADIENT, f"float32 gradient of {name}", floor=floor)


@every_case
@both_directions
def test_memory_of_any_layout_gives_the_same_outputs_and_gradients(case: Case, looks_ahead: bool) -> None:
    made = make(case, looks_ahead=looks_ahead)
    layout = Layout(prefix=70 if looks_ahead else 0)
    plain = inputs(2, 70).requires_grad_()
    strided = plain.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    leaves = list(made.leaves)
    expected, found = made.mixer(plain, layout), made.mixer(strided, layout)
    assert_equal(found, expected, EXACT, "forward")
    ones = torch.ones_like(expected)
    wanted = gradients(expected, ones, [plain, *leaves])
    # The gradient of a sum has one number in memory.
    given = gradients(found, ones[:1, :1, :1].expand_as(ones), [strided, *leaves])
    for mine, theirs in zip(given, wanted, strict=True):
        assert_equal(mine, theirs, EXACT, "gradient")


@every_case
def test_analytic_and_numeric_derivatives_agree(case: Case) -> None:
    made = make(case, looks_ahead=True)
    names = [name for name, _ in made.mixer.named_parameters()]
    layout = Layout(prefix=torch.tensor([0, 3]), lengths_B=torch.tensor([5, 4]))

    def run(x_BLD: Tensor, *weights: Tensor) -> Tensor:
        values = dict(zip(names, weights, strict=True))
        output = torch.func.functional_call(made.mixer, values, (x_BLD, layout))
        return torch.where((torch.arange(5) < torch.tensor([[5], [4]]))[..., None], output, 0 * x_BLD)

    weights = [parameter.detach().clone().requires_grad_() for parameter in made.mixer.parameters()]
    assert torch.autograd.gradcheck(run, (inputs(2, 5).requires_grad_(), *weights), fast_mode=True)


@every_case
@pytest.mark.parametrize("prompt", [1, 6, 70, 140])
def test_steps_continue_a_prefilled_state(case: Case, prompt: int) -> None:
    made = make(case)
    x_BLD = inputs(2, 150)
    with torch.no_grad():
        state = made.state(2, 150)
        start = made.mixer.prefill(x_BLD[:, :prompt], state)
        found = torch.cat([start, steps(made.mixer, x_BLD[:, prompt:], state, prompt)], 1)
        assert_equal(found, made.mixer(x_BLD), EXACT, "prefill and steps")


@every_case
@pytest.mark.parametrize("prefixes", [None, (0, 20, 1, 64)], ids=["causal", "prefix"])
def test_prompts_of_unequal_length_go_on_as_each_alone(case: Case, prefixes: tuple[int, ...] | None) -> None:
    made = make(case, looks_ahead=prefixes is not None)
    lengths_B, more = torch.tensor([1, 37, 70, 64]), 8
    whole = inputs(4, 70 + more)
    layout = Layout(prefix=0 if prefixes is None else torch.tensor(prefixes), lengths_B=lengths_B)
    real_BL1 = (torch.arange(70) < lengths_B[:, None])[..., None]
    prompts = torch.where(real_BL1, whole[:, :70], 30 * inputs(4, 70))
    with torch.no_grad():
        state = made.state(4, 70 + more)
        start = made.mixer.prefill(prompts, state, layout)
        rest = torch.stack([row[length : length + more] for row, length in zip(whole, lengths_B.tolist(), strict=True)])
        end = steps(made.mixer, rest, state, lengths_B)
        for row, length in enumerate(lengths_B.tolist()):
            alone = whole[row, None, : length + more]
            expected = made.mixer(alone, Layout(prefix=0 if prefixes is None else prefixes[row]))[0]
            assert_equal(start[row, :length], expected[:length], EXACT, f"prompt {row}")
            assert_equal(end[row], expected[length:], EXACT, f"what follows prompt {row}")


@every_case
def test_a_state_goes_on_with_other_sequences_of_the_batch(case: Case) -> None:
    made = make(case)
    x_BLD, rows_B = inputs(3, 80), torch.tensor([2, 0, 0])
    with torch.no_grad():
        state = made.state(3, 80)
        made.mixer.prefill(x_BLD[:, :70], state)
        state.select(rows_B)
        following = inputs(3, 80)[:, 70:]
        found = steps(made.mixer, following, state, 70)
        expected = made.mixer(torch.cat([x_BLD[rows_B, :70], following], 1))[:, 70:]
    assert_equal(found, expected, EXACT, "after select")


@every_case
def test_given_positions_serve_all_three_forms_alike(case: Case) -> None:
    made = make(case)
    x_BLD, dimensions = inputs(2, 80), case.rope.dimensions
    shape = (2, 80) if dimensions == 1 else (2, 80, dimensions)
    positions = torch.randint(1, 4, shape).cumsum(1)
    with torch.no_grad():
        expected = made.mixer(x_BLD, Layout(positions=positions))
        state = made.state(2, 80)
        start = made.mixer.prefill(x_BLD[:, :70], state, Layout(positions=positions[:, :70]))
        assert_equal(start, expected[:, :70], EXACT, "prefill")
        for t in range(70, 80):
            found = made.mixer.step(x_BLD[:, t], state, t, positions[:, t])
            assert_equal(found, expected[:, t], EXACT, f"step {t}")


@every_case
def test_a_changed_token_changes_no_earlier_output(case: Case) -> None:
    made = make(case)
    x_BLD = inputs(1, 200)
    with torch.no_grad():
        before = made.mixer(x_BLD)
        for place in (0, 1, 63, 64, 65, 131, 199):
            changed = x_BLD.clone()
            changed[:, place] += 1.0
            after = made.mixer(changed)
            assert_equal(after[:, :place], before[:, :place], 0.01 * EXACT, f"before {place}", floor=1.0)
            assert case.mixer == "none" or not torch.allclose(after[:, place], before[:, place])


@every_case
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_changed_token_changes_earlier_outputs_inside_a_prefix_only(case: Case, as_tensor: bool) -> None:
    made = make(case, looks_ahead=True)
    x_BLD = inputs(1, 150)
    layout = Layout(prefix=torch.tensor([100]) if as_tensor else 100)
    with torch.no_grad():
        before = made.mixer(x_BLD, layout)
        for place in (1, 64, 99, 100, 101, 149):
            changed = x_BLD.clone()
            changed[:, place] += 1.0
            after = made.mixer(changed, layout)
            if place >= 100:
                assert_equal(after[:, :place], before[:, :place], 0.01 * EXACT, f"before {place}", floor=1.0)
            elif case.mixer not in LOOKS_BACK_ONLY and case.options.get("window") != 1:
                assert not torch.allclose(after[:, place - 1], before[:, place - 1]), f"before {place}"


@every_case
@both_directions
@pytest.mark.parametrize("context", [1, 4, 64, 300])
def test_a_state_holds_exactly_the_elements_of_the_specification(case: Case, looks_ahead: bool, context: int) -> None:
    made = make(case, looks_ahead=looks_ahead, dtype=torch.float32)
    for cache, recurrent in ((torch.bfloat16, torch.float32), (torch.float32, torch.float64)):
        state = made.mixer.new_state(3, context, cache_dtype=cache, recurrent_dtype=recurrent, device=CPU)
        assert isinstance(state, MixerState)
        counted = dict.fromkeys((cache, recurrent), 0)
        for tensor in state.tensors():
            assert tensor.shape[0] == 3
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
            counted[tensor.dtype] += tensor.numel()
        assert counted[cache] == 3 * made.spec.cache_elements(case.options, made.config.around, context)
        assert counted[recurrent] == 3 * made.spec.recurrent_elements(case.options, made.config.around)


@every_case
def test_a_state_does_not_grow_while_it_is_used(case: Case) -> None:
    made = make(case)
    state = made.state(2, 150)
    before = [(tensor.data_ptr(), tensor.shape) for tensor in state.tensors()]
    # With gradients on: what is kept must not hold a graph.
    made.mixer.prefill(inputs(2, 140), state)
    steps(made.mixer, inputs(2, 10), state, 140)
    assert [(tensor.data_ptr(), tensor.shape) for tensor in state.tensors()] == before
    assert not any(tensor.requires_grad for tensor in state.tensors())


@every_case
@pytest.mark.parametrize(
    ("weights", "cache"),
    [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def test_weights_and_cache_may_have_different_dtypes(case: Case, weights: torch.dtype, cache: torch.dtype) -> None:
    made = make(case, looks_ahead=True, dtype=weights)
    x_BLD = inputs(2, 80).to(weights)
    layout = Layout(prefix=torch.tensor([0, 40]), lengths_B=torch.tensor([70, 70]))
    with torch.no_grad():
        state = made.mixer.new_state(2, 80, cache_dtype=cache, recurrent_dtype=torch.float32, device=CPU)
        start = made.mixer.prefill(x_BLD[:, :70], state, layout)
        found = torch.cat([start, steps(made.mixer, x_BLD[:, 70:], state, 70)], 1)
        parallel = made.mixer(x_BLD, Layout(prefix=layout.prefix))
        expected = made.to(torch.float64).mixer(x_BLD.double(), Layout(prefix=layout.prefix))
    assert found.dtype == parallel.dtype == weights
    assert_equal(parallel, expected, COARSE if weights == torch.bfloat16 else SINGLE, "forward")
    assert_equal(found, expected, COARSE, "prefill and steps")


@every_case
@both_directions
def test_parameters_are_as_many_as_the_specification_says(case: Case, looks_ahead: bool) -> None:
    made = make(case, looks_ahead=looks_ahead)
    parameters = sum(parameter.numel() for parameter in made.mixer.parameters())
    assert parameters == made.spec.parameters(case.options, made.config.around)
    assert not list(made.mixer.buffers())
    assert all(isinstance(projection, nn.Linear) for projection in made.mixer.residual_projections())


@every_case
@both_directions
@pytest.mark.parametrize("length", [64, 200])
def test_backward_keeps_the_elements_of_the_specification(case: Case, looks_ahead: bool, length: int) -> None:
    made = make(case, looks_ahead=looks_ahead, dtype=torch.float32)
    layout = Layout(prefix=length if looks_ahead else 0)
    # The difference of two batches: what is kept once, such as a mask, drops out.
    few, many = (saved_elements(made.mixer, torch.randn(batch, length, WIDTH), layout) for batch in (2, 5))
    fewer, more = (
        kept_by_the_tape(made, case, Extent(batch, length, length if looks_ahead else 0)) for batch in (2, 5)
    )
    predicted = (more - fewer) / (3 * length)
    found = (many - few) / (3 * length)
    assert found == pytest.approx(predicted, rel=case.saved_tolerance), f"{found:.1f}, predicted {predicted:.1f}"


def kept_by_the_tape(made: Made, case: Case, extent: Extent) -> float:
    """Elements that the specification's sketch keeps for the way back."""
    tape = Tape(4)
    x = tape.source(extent.tokens * WIDTH)
    y = made.spec.sketch(tape, x, case.options, made.config.around, extent)
    saved = {id(storage): storage.bytes for node in tape.nodes for storage in node.saved if storage is not None}
    del y
    return sum(saved.values()) / 4


def saved_elements(mixer: Mixer[Any], x_BLD: Tensor, layout: Layout) -> float:
    """Bytes that autograd keeps for backward, parameters left out, counted in float32."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in mixer.parameters()}
    storages: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = mixer(x_BLD.requires_grad_(), layout)
    del kept
    return sum(storages.values()) / 4
