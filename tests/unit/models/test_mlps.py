from __future__ import annotations

import pytest
import torch
from torch import nn

from nas import catalog
from nas.models.mlps import GEGLU, GELU, MLP, NoMLP, SwiGLU
from nas.specs import mlp_spec
from nas.specs.tape import Tape


def test_swiglu_is_a_gated_silu() -> None:
    mlp = SwiGLU(4, 6)
    x = torch.randn(3, 4)
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    expected = (torch.sigmoid(x @ gate.T) * (x @ gate.T) * (x @ up.T)) @ down.T
    torch.testing.assert_close(mlp(x), expected)


def exact_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.special.ndtr(x)


def test_geglu_is_a_gated_gelu() -> None:
    mlp = GEGLU(4, 6).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    torch.testing.assert_close(mlp(x), (exact_gelu(x @ gate.T) * (x @ up.T)) @ down.T)


def test_gelu_is_exact() -> None:
    mlp = GELU(4, 6).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(mlp(x), exact_gelu(x @ mlp.up_proj.weight.T) @ mlp.down_proj.weight.T)


EVERY = [("swiglu", SwiGLU), ("geglu", GEGLU), ("gelu", GELU), ("none", NoMLP)]


@pytest.mark.parametrize(("name", "make"), EVERY)
def test_the_specification_names_its_network(name: str, make: type[MLP]) -> None:
    assert catalog.load_target(mlp_spec(name).implementation, what="mlp") is make


@pytest.mark.parametrize(("name", "make"), EVERY[:-1])
def test_the_last_map_adds_to_the_residual_stream(name: str, make: type[MLP]) -> None:
    mlp = make(8, 20)
    assert mlp.residual_projections() == (mlp.down_proj,)


@pytest.mark.parametrize(("name", "make"), EVERY)
def test_parameters_are_as_many_as_the_specification_says(name: str, make: type[MLP]) -> None:
    made = make(8, 20)
    assert sum(parameter.numel() for parameter in made.parameters()) == mlp_spec(name).parameters(8, 20)


@pytest.mark.parametrize(("name", "make"), EVERY)
def test_backward_keeps_exactly_the_elements_of_the_specification(name: str, make: type[MLP]) -> None:
    mlp, x = make(8, 20), torch.randn(5, 8, requires_grad=True)
    tape = Tape(4)
    y = mlp_spec(name).sketch(tape, tape.source(5 * 8), 8, 20)
    kept = {id(storage): storage.bytes for node in tape.nodes for storage in node.saved if storage is not None}
    assert 4 * saved_elements(mlp, x) == sum(kept.values())
    assert y.elements == 5 * 8


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
