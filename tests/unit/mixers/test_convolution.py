from __future__ import annotations

import pytest
import torch

from nas.mixers.convolution import ShortConvolution

CPU = torch.device("cpu")


def convolution(kernel: int) -> ShortConvolution:
    torch.manual_seed(0)
    return ShortConvolution(6, kernel).double()


@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_the_parallel_form_is_a_weighted_sum_of_the_last_inputs(kernel: int, length: int) -> None:
    module = convolution(kernel)
    x_BLD = torch.randn(2, length, 6, dtype=torch.float64)
    weight_DK = module.weight[:, 0, 0]
    expected = torch.zeros_like(x_BLD)
    for t in range(length):
        for back in range(min(kernel, t + 1)):
            expected[:, t] += (x_BLD[:, t - back] * weight_DK[:, kernel - 1 - back]).detach()
    torch.testing.assert_close(module(x_BLD), expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("prompt", [1, 2, 3, 9])
def test_prefill_and_steps_equal_the_parallel_form(kernel: int, prompt: int) -> None:
    module = convolution(kernel)
    x_BLD = torch.randn(2, 12, 6, dtype=torch.float64)
    state = module.new_state(2, dtype=torch.float64, device=CPU)
    with torch.no_grad():
        parts = [module.prefill(x_BLD[:, :prompt], state)]
        parts += [module.step(x_BD, state)[:, None] for x_BD in x_BLD[:, prompt:].unbind(1)]
        torch.testing.assert_close(torch.cat(parts, 1), module(x_BLD), rtol=0.0, atol=1e-12)


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
