"""One layer of a model: pre-norm residual block (Xiong et al. 2020), as in Llama.

    x + mixer(conv(norm(x)))    then    x + mlp(norm(x))

In and out: the residual stream. A layer whose MLP is "none" ends after its first half; one whose
`short_conv` is 0 has no convolution.

Shapes: B batch, L length, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nas import catalog
from nas.errors import SpaceError
from nas.mixers.base import Mixer, MixerConfig, MixerState
from nas.mixers.convolution import ConvolutionState, ShortConvolution
from nas.models.mlps import MLP, NoMLP
from nas.space.architecture import Layer
from nas.specs import mixer_spec, mlp_spec
from nas.specs.base import Surroundings

NORM_EPSILON = 1e-6


class BlockState:
    """What decoding keeps of one layer."""

    def __init__(self, mixer: MixerState, convolution: ConvolutionState | None) -> None:
        self.mixer = mixer
        self.convolution = convolution

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return self.mixer.tensors() + (self.convolution.tensors() if self.convolution is not None else ())


class Block(nn.Module):
    """A mixer and an MLP around the residual stream.

    Args:
        layer: the mixer, the MLP and their options.
        around: width, max_context and positions of the model.
        rope_theta: base of the rotary frequencies.
    """

    def __init__(self, layer: Layer, around: Surroundings, *, rope_theta: float) -> None:
        super().__init__()
        width, options = around.width, layer.values
        kernel = int(options["short_conv"])
        self.mixer_norm = nn.RMSNorm(width, eps=NORM_EPSILON)
        self.convolution = ShortConvolution(width, kernel) if kernel else None
        self.mixer = _make_mixer(layer, around, rope_theta)
        mlp = _make_mlp(layer, width)
        has_mlp = not isinstance(mlp, NoMLP)
        self.mlp_norm = nn.RMSNorm(width, eps=NORM_EPSILON) if has_mlp else None
        self.mlp = mlp if has_mlp else None

    def forward(self, x_BLD: Tensor) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        h_BLD = self.mixer_norm(x_BLD)
        if self.convolution is not None:
            h_BLD = self.convolution(h_BLD)
        return self._add_mlp(x_BLD + self.mixer(h_BLD))

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> BlockState:
        """An empty state with room for `context` tokens of `batch` sequences."""
        mixer = self.mixer.new_state(
            batch, context, cache_dtype=cache_dtype, recurrent_dtype=recurrent_dtype, device=device
        )
        if self.convolution is None:
            return BlockState(mixer, None)
        return BlockState(mixer, self.convolution.new_state(batch, dtype=cache_dtype, device=device))

    def prefill(self, x_BLD: Tensor, state: BlockState) -> Tensor:
        """`forward` that also fills `state`, which must be empty."""
        h_BLD = self.mixer_norm(x_BLD)
        if self.convolution is not None and state.convolution is not None:
            h_BLD = self.convolution.prefill(h_BLD, state.convolution)
        return self._add_mlp(x_BLD + self.mixer.prefill(h_BLD, state.mixer))

    def step(self, x_BD: Tensor, state: BlockState) -> Tensor:
        """The next position, (B, D) to (B, D); takes the token into `state`."""
        h_BD = self.mixer_norm(x_BD)
        if self.convolution is not None and state.convolution is not None:
            h_BD = self.convolution.step(h_BD, state.convolution)
        return self._add_mlp(x_BD + self.mixer.step(h_BD, state.mixer))

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The linear maps whose output is added to the residual stream."""
        return self.mixer.residual_projections() + (self.mlp.residual_projections() if self.mlp is not None else ())

    def _add_mlp(self, x: Tensor) -> Tensor:
        if self.mlp is None or self.mlp_norm is None:
            return x
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


def _make_mixer(layer: Layer, around: Surroundings, rope_theta: float) -> Mixer[Any]:
    spec = mixer_spec(layer.mixer)
    options = {key: layer.values[key] for key in spec.keys}
    made = catalog.load_target(spec.implementation, what="mixer")(
        MixerConfig(options=options, around=around, rope_theta=rope_theta)
    )
    if not isinstance(made, Mixer):
        raise SpaceError(f"mixer '{layer.mixer}': {spec.implementation} must derive from nas.mixers.base.Mixer")
    return made


def _make_mlp(layer: Layer, width: int) -> MLP:
    spec = mlp_spec(str(layer.values["mlp"]))
    made = catalog.load_target(spec.implementation, what="mlp")(width, int(layer.values.get("mlp_hidden", 0)))
    if not isinstance(made, MLP):
        raise SpaceError(f"mlp '{layer.values['mlp']}': {spec.implementation} must derive from nas.models.mlps.MLP")
    return made
