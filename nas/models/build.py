"""The only factory: from an architecture to its network."""

from __future__ import annotations

import torch
from torch import nn

from nas import catalog
from nas.cost.estimate import bound
from nas.space.architecture import Architecture
from nas.specs import family_spec


def build(architecture: Architecture, *, seed: int | None = None) -> nn.Module:
    """The network of an architecture, with fresh weights, on the CPU or the current default device.

    Args:
        architecture: one that no task has bound counts as a byte-level language model.
        seed: of the weights; the global random state is then neither used nor changed. Without
            it the weights are drawn from the global random state.
    """
    architecture = bound(architecture)
    if seed is None:
        return _make(architecture)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        return _make(architecture)


def _make(architecture: Architecture) -> nn.Module:
    made = catalog.load_target(family_spec(architecture.family).implementation, what="family")(architecture)
    assert isinstance(made, nn.Module)
    return made
