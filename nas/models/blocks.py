"""One layer of a model: pre-norm residual branches (Xiong et al. 2020), as in Llama.

    x + mixer(conv(norm(x)))    then    x + cross(norm(x), source)    then    x + mlp(norm(x))

In and out: the residual stream. The middle branch is there only in a decoder that reads a source.
A layer whose mixer or MLP is "none" lacks that branch and its norm; one whose `short_conv` is 0
has no convolution.

Shapes: B batch, L length, S length of a source, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas import catalog
from nas.errors import SpaceError
from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig, MixerState, NoState
from nas.mixers.convolution import ConvolutionState, ShortConvolution
from nas.mixers.softmax import CrossAttention, CrossMemory
from nas.models.mlps import MLP, NoMLP
from nas.space.layers import Layer
from nas.specs import mixer_spec, mlp_spec
from nas.specs.base import Rope, Surroundings

RMS_EPSILON = 1e-6
LAYER_EPSILON = 1e-5


def make_norm(kind: str, width: int) -> nn.Module:
    """RMSNorm ("rms"; Zhang and Sennrich 2019) or LayerNorm without bias ("layer"; Ba et al. 2016)."""
    if kind == "layer":
        return nn.LayerNorm(width, eps=LAYER_EPSILON, bias=False)
    assert kind == "rms", kind
    return nn.RMSNorm(width, eps=RMS_EPSILON)


@dataclass(frozen=True)
class Source:
    """What a decoder attends to besides its own tokens.

    Attributes:
        features_BSD: the encoder's output.
        lengths_B: int64 tokens of each source before the padding; None: all S.
    """

    features_BSD: Tensor
    lengths_B: Tensor | None = None


class BlockState:
    """What decoding keeps of one layer."""

    def __init__(self, mixer: MixerState, convolution: ConvolutionState | None, memory: CrossMemory | None) -> None:
        self.mixer = mixer
        self.convolution = convolution
        self.memory = memory

    def parts(self, *, sources: bool = True) -> tuple[MixerState, ...]:
        """The states that this one consists of, without that of the source if so wished."""
        parts = (self.mixer, self.convolution, self.memory if sources else None)
        return tuple(part for part in parts if part is not None)

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor kept."""
        return tuple(tensor for part in self.parts() for tensor in part.tensors())

    def take_over(self, other: BlockState, rows_B: Tensor) -> None:
        """Makes row b of this empty state what row rows_B[b] of `other` is."""
        for tensor, theirs in zip(self.tensors(), other.tensors(), strict=True):
            tensor.copy_(theirs.index_select(0, rows_B))
        if self.memory is not None and other.memory is not None:
            self.memory.lengths_B = None if other.memory.lengths_B is None else other.memory.lengths_B[rows_B]


class Block(nn.Module):
    """A mixer, perhaps an attention to a source, and an MLP around the residual stream.

    Args:
        layer: the mixer, the MLP and their options.
        around: width, max_context and positions of the model.
        rope: of rotary positions.
        norm: "rms" or "layer".
        relative: the biases that the layers of a stack share; they stay the stack's.
        has_mixer_norm: false where the input is normalised already.
    """

    def __init__(
        self,
        layer: Layer,
        around: Surroundings,
        *,
        rope: Rope,
        norm: str = "rms",
        relative: nn.Module | None = None,
        has_mixer_norm: bool = True,
    ) -> None:
        super().__init__()
        width, options = around.width, layer.values
        has_mixer, kernel = layer.mixer != "none", int(options["short_conv"])
        self.mixer_norm = make_norm(norm, width) if has_mixer and has_mixer_norm else None
        self.convolution = ShortConvolution(width, kernel) if has_mixer and kernel else None
        self.mixer = _make_mixer(layer, around, rope, relative) if has_mixer else None
        self.cross_norm = make_norm(norm, width) if around.has_source else None
        self.cross = _make_cross(options, width) if around.has_source else None
        mlp = _make_mlp(layer, width)
        has_mlp = not isinstance(mlp, NoMLP)
        self.mlp_norm = make_norm(norm, width) if has_mlp else None
        self.mlp = mlp if has_mlp else None

    def forward(self, x_BLD: Tensor, layout: Layout = CAUSAL, source: Source | None = None) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        if self.mixer is not None:
            h_BLD = self._mixer_input(x_BLD)
            if self.convolution is not None:
                h_BLD = self.convolution(h_BLD)
            x_BLD = x_BLD + self.mixer(h_BLD, layout)
        if self.cross is not None and self.cross_norm is not None:
            assert source is not None, "this layer reads a source"
            memory = self.cross.remember(source.features_BSD, source.lengths_B)
            x_BLD = x_BLD + self.cross(self.cross_norm(x_BLD), memory)
        return self._add_mlp(x_BLD)

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        source_context: int = 0,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> BlockState:
        """An empty state with room for `context` tokens of `batch` sequences, and their sources."""
        mixer: MixerState = NoState()
        convolution = memory = None
        if self.mixer is not None:
            mixer = self.mixer.new_state(
                batch, context, cache_dtype=cache_dtype, recurrent_dtype=recurrent_dtype, device=device
            )
        if self.convolution is not None:
            convolution = self.convolution.new_state(batch, dtype=cache_dtype, device=device)
        if self.cross is not None:
            memory = self.cross.new_memory(batch, source_context, dtype=cache_dtype, device=device)
        return BlockState(mixer, convolution, memory)

    def prefill(
        self, x_BLD: Tensor, state: BlockState, layout: Layout = CAUSAL, source: Source | None = None
    ) -> Tensor:
        """`forward` that also fills `state`, which must be empty, with the tokens before the padding."""
        if self.mixer is not None:
            h_BLD = self._mixer_input(x_BLD)
            if self.convolution is not None and state.convolution is not None:
                h_BLD = self.convolution.prefill(h_BLD, state.convolution, layout.lengths_B)
            x_BLD = x_BLD + self.mixer.prefill(h_BLD, state.mixer, layout)
        if self.cross is not None and self.cross_norm is not None:
            assert source is not None and state.memory is not None, "this layer reads a source"
            memory = self.cross.remember(source.features_BSD, source.lengths_B)
            state.memory.fill(memory)
            x_BLD = x_BLD + self.cross(self.cross_norm(x_BLD), memory)
        return self._add_mlp(x_BLD)

    def step(self, x_BD: Tensor, state: BlockState, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next position, (B, D) to (B, D); takes the token into `state`."""
        if self.mixer is not None:
            h_BD = self._mixer_input(x_BD)
            if self.convolution is not None and state.convolution is not None:
                h_BD = self.convolution.step(h_BD, state.convolution)
            x_BD = x_BD + self.mixer.step(h_BD, state.mixer, position, turn)
        if self.cross is not None and self.cross_norm is not None:
            assert state.memory is not None
            x_BD = x_BD + self.cross.step(self.cross_norm(x_BD), state.memory)
        return self._add_mlp(x_BD)

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The linear maps whose output is added to the residual stream."""
        parts = (self.mixer, self.cross, self.mlp)
        return tuple(linear for part in parts if part is not None for linear in part.residual_projections())

    def _mixer_input(self, x: Tensor) -> Tensor:
        return x if self.mixer_norm is None else self.mixer_norm(x)

    def _add_mlp(self, x: Tensor) -> Tensor:
        if self.mlp is None or self.mlp_norm is None:
            return x
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


def _make_mixer(layer: Layer, around: Surroundings, rope: Rope, relative: nn.Module | None) -> Mixer[Any]:
    spec = mixer_spec(layer.mixer)
    # A canonical layer may leave out what has its default.
    defaults = {key: known.default for key, known in spec.keys.items() if known.default is not None}
    options = defaults | {key: layer.values[key] for key in spec.keys if key in layer.values}
    made = catalog.load_target(spec.implementation, what="mixer")(
        MixerConfig(options=options, around=around, rope=rope, relative=relative)
    )
    if not isinstance(made, Mixer):
        raise SpaceError(f"mixer '{layer.mixer}': {spec.implementation} must derive from nas.mixers.base.Mixer")
    return made


def _make_cross(options: dict[str, Any], width: int) -> CrossAttention:
    heads, kv_heads, head_dim = (int(options[key]) for key in ("cross_heads", "cross_kv_heads", "cross_head_dim"))
    return CrossAttention(width, heads, kv_heads, head_dim)


def _make_mlp(layer: Layer, width: int) -> MLP:
    spec = mlp_spec(str(layer.values["mlp"]))
    made = catalog.load_target(spec.implementation, what="mlp")(width, int(layer.values.get("mlp_hidden", 0)))
    if not isinstance(made, MLP):
        raise SpaceError(f"mlp '{layer.values['mlp']}': {spec.implementation} must derive from nas.models.mlps.MLP")
    return made
