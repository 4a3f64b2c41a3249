from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from nas.mixers.base import MixerConfig
from nas.mixers.convolution import GatedConvolution, ShortConvolution
from nas.mixers.nothing import NoMixer
from nas.specs.base import Surroundings

CPU = torch.device("cpu")


def convolution(kernel: int, *, bias: bool = False) -> ShortConvolution:
    torch.manual_seed(0)
    module = ShortConvolution(6, kernel, bias=bias).double()
    if module.bias is not None:
        nn.init.normal_(module.bias)
    return module


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_the_parallel_form_is_a_weighted_sum_of_the_last_inputs(kernel: int, length: int, bias: bool) -> None:
    module = convolution(kernel, bias=bias)
    x_BLD = torch.randn(2, length, 6, dtype=torch.float64)
    weight_DK = module.weight[:, 0, 0]
    expected = torch.zeros_like(x_BLD)
    if module.bias is not None:
        expected += module.bias.detach()
    for t in range(length):
        for back in range(min(kernel, t + 1)):
            expected[:, t] += (x_BLD[:, t - back] * weight_DK[:, kernel - 1 - back]).detach()
    torch.testing.assert_close(module(x_BLD), expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("prompt", [1, 2, 3, 9])
def test_prefill_and_steps_equal_the_parallel_form(kernel: int, prompt: int, bias: bool) -> None:
    module = convolution(kernel, bias=bias)
    x_BLD = torch.randn(2, 12, 6, dtype=torch.float64)
    state = module.new_state(2, dtype=torch.float64, device=CPU)
    with torch.no_grad():
        parts = [module.prefill(x_BLD[:, :prompt], state)]
        parts += [module.step(x_BD, state)[:, None] for x_BD in x_BLD[:, prompt:].unbind(1)]
        torch.testing.assert_close(torch.cat(parts, 1), module(x_BLD), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_a_state_holds_the_last_inputs_before_the_padding_and_zeros_before_the_start(kernel: int) -> None:
    module = convolution(kernel)
    x_BLD, lengths_B = torch.randn(4, 7, 6, dtype=torch.float64), torch.tensor([1, 7, 3, 2])
    state = module.new_state(4, dtype=torch.float64, device=CPU)
    with torch.no_grad():
        module.prefill(x_BLD, state, lengths_B)
        following = torch.randn(4, 6, dtype=torch.float64)
        found = module.step(following, state)
        for row, length in enumerate(lengths_B.tolist()):
            alone = torch.cat([x_BLD[row, :length], following[row, None]])[None]
            torch.testing.assert_close(found[row], module(alone)[0, -1], rtol=0.0, atol=1e-12)


def test_it_starts_as_the_identity_plus_a_uniform_share_of_each_tap() -> None:
    torch.manual_seed(0)
    module = ShortConvolution(4096, 4, bias=True)
    weight_DK = module.weight[:, 0, 0]
    assert weight_DK[:, :3].abs().max() <= 0.5
    assert (weight_DK[:, 3] - 1).abs().max() <= 0.5
    torch.testing.assert_close(weight_DK.mean(0), torch.tensor([0.0, 0.0, 0.0, 1.0]), rtol=0.0, atol=0.02)
    assert module.bias is not None and not module.bias.any()


def test_an_output_sees_itself_and_kernel_minus_one_earlier_inputs() -> None:
    module = convolution(3)
    x_BLD = torch.randn(1, 10, 6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x_BLD)[0, 6].sum(), x_BLD)
    assert gradient[0].abs().sum(-1).nonzero()[:, 0].tolist() == [4, 5, 6]


def test_the_state_is_kernel_minus_one_inputs_in_the_cache_dtype() -> None:
    module = convolution(4).float()
    state = module.new_state(5, dtype=torch.bfloat16, device=CPU)
    (earlier,) = state.tensors()
    assert (earlier.numel(), earlier.dtype) == (5 * 3 * 6, torch.bfloat16)
    x_BD = torch.randn(5, 6)
    assert module.step(x_BD, state).dtype == torch.float32
    assert torch.equal(earlier[:, -1], x_BD.bfloat16())


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_gated_convolution_is_that_of_lfm2(kernel: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modeling = pytest.importorskip("transformers.models.lfm2.modeling_lfm2")
        config = modeling.Lfm2Config(hidden_size=12, conv_L_cache=kernel, num_hidden_layers=1, layer_types=["conv"])
        theirs = modeling.Lfm2ShortConv(config, 0)
    around = Surroundings(width=12, max_context=64, positions="none")
    mine = GatedConvolution(MixerConfig(options={"kernel": kernel}, around=around))
    with torch.no_grad():
        mine.in_proj.weight.copy_(theirs.in_proj.weight)
        mine.out_proj.weight.copy_(theirs.out_proj.weight)
        mine.conv.weight.copy_(theirs.conv.weight[:, :, None])
        x_BLD = torch.randn(2, 20, 12)
        torch.testing.assert_close(mine(x_BLD), theirs(x_BLD), rtol=0.0, atol=1e-5)


def test_no_mixer_adds_nothing_and_keeps_nothing() -> None:
    mixer = NoMixer(MixerConfig(options={}, around=Surroundings(width=6, max_context=64, positions="none")))
    state = mixer.new_state(2, 9, cache_dtype=torch.bfloat16, recurrent_dtype=torch.float32, device=CPU)
    x_BLD = torch.randn(2, 9, 6)
    for output in (mixer(x_BLD), mixer.prefill(x_BLD, state), mixer.step(x_BLD[:, 0], state, 9)):
        assert not output.any()
    assert (state.tensors(), list(mixer.parameters())) == ((), [])
