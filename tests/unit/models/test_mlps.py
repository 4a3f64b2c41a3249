from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.models.mlps import MLP, NoMLP, SwiGLU
from nas.specs import mlp_spec


def test_swiglu_is_a_gated_silu() -> None:
    mlp = SwiGLU(4, 6)
    x = torch.randn(3, 4)
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    expected = (torch.sigmoid(x @ gate.T) * (x @ gate.T) * (x @ up.T)) @ down.T
    torch.testing.assert_close(mlp(x), expected)


@pytest.mark.parametrize(("name", "made"), [("swiglu", SwiGLU(8, 20)), ("none", NoMLP(8, 20))])
def test_parameters_are_as_many_as_the_specification_says(name: str, made: MLP) -> None:
    assert sum(parameter.numel() for parameter in made.parameters()) == mlp_spec(name).parameters(8, 20)


def test_backward_keeps_exactly_the_elements_of_the_specification() -> None:
    mlp, x = SwiGLU(8, 20), torch.randn(5, 8, requires_grad=True)
    assert saved_elements(mlp, x) == 5 * mlp_spec("swiglu").saved_elements(8, 20)


def test_no_mlp_adds_nothing() -> None:
    assert torch.equal(NoMLP(4, 0)(torch.randn(2, 4)), torch.zeros(2, 4))


def saved_elements(module: nn.Module, x: torch.Tensor) -> int:
    parameters = {parameter.data_ptr() for parameter in module.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(x)
    del output
    return sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values())
