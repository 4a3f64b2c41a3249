from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.mixers import recurrent, recurrent_core
from nas.mixers.base import Layout, MixerConfig
from nas.specs import mixer_spec
from nas.specs.base import Surroundings

CPU = torch.device("cpu")
WIDTH, HIDDEN = 6, 8
CLASSES = {"lstm": recurrent.LSTM, "gru": recurrent.GRU, "rnn": recurrent.RNN}
TORCHS: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}

every_network = pytest.mark.parametrize("name", list(CLASSES))


def make(name: str, *, looks_ahead: bool = False, hidden: int = HIDDEN) -> recurrent.Recurrent:
    torch.manual_seed(0)
    around = Surroundings(width=WIDTH, max_context=64, positions="none", looks_ahead=looks_ahead)
    return CLASSES[name](MixerConfig(options={"hidden": hidden}, around=around)).double()


def torchs(name: str, mixer: recurrent.Recurrent) -> nn.RNNBase:
    """torch's own network, in both directions where the mixer looks ahead, with the same weights."""
    bidirectional = mixer.rnn_reverse is not None
    theirs: Any = TORCHS[name](WIDTH, mixer.hidden, batch_first=True, bidirectional=bidirectional).double()
    weights = dict(mixer.rnn.state_dict())
    if mixer.rnn_reverse is not None:
        weights.update({f"{key}_reverse": value for key, value in mixer.rnn_reverse.state_dict().items()})
    theirs.load_state_dict(weights)
    return theirs  # type: ignore[no-any-return]


@every_network
@pytest.mark.parametrize("looks_ahead", [False, True])
@pytest.mark.parametrize("length", [1, 2, 30])
def test_outputs_and_gradients_are_those_of_torch(name: str, looks_ahead: bool, length: int) -> None:
    mixer = make(name, looks_ahead=looks_ahead)
    theirs = torchs(name, mixer)
    x_BLD = torch.randn(3, length, WIDTH, dtype=torch.float64, requires_grad=True)
    found = mixer(x_BLD, Layout(prefix=length if looks_ahead else 0))
    expected = theirs(x_BLD)[0] @ mixer.o_proj.weight.T
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)
    direction = torch.randn_like(found)
    mine = [x_BLD, *mixer.rnn.parameters(), *(mixer.rnn_reverse.parameters() if mixer.rnn_reverse else ())]
    for one, other in zip(
        torch.autograd.grad(found, mine, direction),
        torch.autograd.grad(expected, [x_BLD, *theirs.parameters()], direction),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@every_network
def test_padded_sequences_are_read_as_torch_reads_packed_ones(name: str) -> None:
    mixer = make(name, looks_ahead=True)
    theirs = torchs(name, mixer)
    lengths_B = torch.tensor([5, 12, 1])
    x_BLD = torch.randn(3, 12, WIDTH, dtype=torch.float64)
    packed = nn.utils.rnn.pack_padded_sequence(x_BLD, lengths_B, batch_first=True, enforce_sorted=False)
    y_BLH, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found = mixer(x_BLD, Layout(prefix=lengths_B, lengths_B=lengths_B))
    real_BL1 = (torch.arange(12) < lengths_B[:, None])[..., None]
    torch.testing.assert_close(found * real_BL1, (y_BLH @ mixer.o_proj.weight.T) * real_BL1, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(("core", "gates"), [(recurrent_core.gru, 3), (recurrent_core.rnn, 1)])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 5)])
def test_cores_have_the_gradients_of_their_outputs(core: Any, gates: int, batch: int, length: int) -> None:
    torch.manual_seed(0)
    shapes = [(gates * 3, 4), (gates * 3, 3), (gates * 3,), (gates * 3,)]
    weights = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x_BLD = torch.randn(batch, length, 4, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *given: Tensor) -> Tensor:
        return core(x, list(given))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(run, (x_BLD, *weights))


@pytest.mark.parametrize("name", ["gru", "rnn"])
def test_a_saturated_network_has_finite_gradients(name: str) -> None:
    mixer = make(name).float()
    with torch.no_grad():
        for parameter in mixer.rnn.parameters():
            parameter.mul_(1000)
    x_BLD = torch.randn(2, 40, WIDTH, requires_grad=True)
    mixer(x_BLD).sum().backward()
    assert x_BLD.grad is not None and bool(x_BLD.grad.isfinite().all())


def test_a_forget_gate_starts_open_and_stays_so_when_linear_maps_are_drawn_again() -> None:
    mixer = make("lstm", looks_ahead=True)
    assert mixer.rnn_reverse is not None
    for network in (mixer.rnn, mixer.rnn_reverse):
        forget = slice(mixer.hidden, 2 * mixer.hidden)
        bias = network.get_parameter("bias_ih_l0") + network.get_parameter("bias_hh_l0")
        assert torch.equal(bias[forget], torch.ones_like(bias[forget]))
    assert [module for module in mixer.modules() if isinstance(module, nn.Linear)] == [mixer.o_proj]


@every_network
def test_low_precision_weights_run_a_single_precision_recurrence(name: str) -> None:
    mixer = make(name).bfloat16()
    x_BLD = torch.randn(2, 50, WIDTH).bfloat16()
    state = mixer.new_state(2, 50, cache_dtype=torch.bfloat16, recurrent_dtype=torch.float32, device=CPU)
    with torch.no_grad():
        for x_BD in x_BLD.unbind(1):
            found = mixer.step(x_BD, state, 0)
        exact = make(name)
        for ours, theirs in zip(exact.parameters(), mixer.parameters(), strict=True):
            ours.copy_(theirs)
        wanted = exact.new_state(2, 50, cache_dtype=torch.float64, recurrent_dtype=torch.float64, device=CPU)
        exact.prefill(x_BLD.double(), wanted)
    assert found.dtype == torch.bfloat16
    for kept, expected in zip(state.tensors(), wanted.tensors(), strict=True):
        torch.testing.assert_close(kept.double(), expected, rtol=0.0, atol=1e-5)


@every_network
def test_a_step_beyond_a_prefix_leaves_the_backward_features_out(name: str) -> None:
    mixer = make(name, looks_ahead=True)
    x_BLD = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    state = mixer.new_state(2, 9, cache_dtype=torch.float64, recurrent_dtype=torch.float64, device=CPU)
    with torch.no_grad():
        mixer.prefill(x_BLD[:, :8], state, Layout(prefix=8))
        found = mixer.step(x_BLD[:, 8], state, 8)
        assert mixer.rnn_reverse is not None
        for parameter in mixer.rnn_reverse.parameters():
            parameter.zero_()
        torch.testing.assert_close(found, mixer(x_BLD, Layout(prefix=8))[:, 8], rtol=0.0, atol=1e-12)


@every_network
def test_hidden_is_the_width_and_even_where_the_model_looks_ahead(name: str) -> None:
    spec = mixer_spec(name)
    ahead = Surroundings(width=7, max_context=64, positions="none", looks_ahead=True)
    causal = Surroundings(width=7, max_context=64, positions="none")
    assert spec.complete({}, causal) == {"hidden": 7}
    assert spec.complete({"hidden": 3}, causal) == {"hidden": 3}
    assert not list(spec.broken_rules({"hidden": 7}, causal))
    (rule,) = spec.broken_rules({"hidden": 7}, ahead)
    assert (rule.key, "7" in rule.text) == ("hidden", True)
