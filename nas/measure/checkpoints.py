"""Checkpoints between rungs: one safetensors file with everything that training needs to go on.

In: the state of a training. Out: a `CheckpointReference` with the file's SHA-256, and from it the
same state again, to the bit. The weights, their running average and the optimizer's moments are
tensors of the file; the plain values stand as JSON in its header.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from nas.errors import CheckpointError
from nas.files import Files
from nas.records import CheckpointReference

FORMAT = "nas-checkpoint-1"

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything that a training needs to go on.

    Attributes:
        step: training steps taken.
        weights: by parameter name.
        average: the averaged weights, by parameter name.
        optimizer: the optimizer's state, by parameter name and kind ("exp_avg.layers.0.…").
        key: of the candidate that it belongs to.
        architecture: JSON of the network, so that the file can be read by itself.
    """

    step: int
    weights: Tensors
    average: Tensors
    optimizer: Tensors
    key: str
    architecture: str


def write_checkpoint(state: TrainingState, files: Files, folder: str) -> CheckpointReference:
    """Writes a state, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    groups = {"weights": state.weights, "average": state.average, "optimizer": state.optimizer}
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    header = {"format": FORMAT, "step": state.step, "key": state.key, "architecture": state.architecture}
    data = safetensors.torch.save(tensors, {"nas": json.dumps(header, sort_keys=True)})
    path = f"{folder}/step-{state.step}.safetensors"
    sha256, size = files.write_bytes(path, data)
    return CheckpointReference(path=path, sha256=sha256, bytes=size, step=state.step)


def read_checkpoint(reference: CheckpointReference, files: Files) -> TrainingState:
    """The state that was written.

    Raises:
        CheckpointError: the file is missing, damaged or of another version.
    """
    data = files.read_bytes(reference)
    try:
        tensors = safetensors.torch.load(data)
        header = read_header(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"checkpoint '{reference.path}' is no safetensors file of ours: {error}") from None
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint '{reference.path}' has format '{header.get('format')}'; this version reads '{FORMAT}'"
        )
    groups: dict[str, Tensors] = {"weights": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        group, _, member = name.partition("/")
        groups[group][member] = tensor
    return TrainingState(
        step=int(header["step"]), key=str(header["key"]), architecture=str(header["architecture"]), **groups
    )


def read_header(data: bytes) -> Mapping[str, str | int]:
    """The plain values in the header of a safetensors file (its format: a length, JSON, tensors)."""
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    header: Mapping[str, str | int] = json.loads(metadata["nas"])
    return header
