"""Classic recurrent networks: LSTM, GRU and the plain tanh network (torch's, one layer each).

In: features of a sequence. Out: features of the same shape. What a token leaves to later ones is
a vector of `hidden` numbers (two for an LSTM), whatever the length; it is squashed at each token,
so there is no parallel form: time is linear in length, but the tokens wait for each other.

Where the model looks ahead, half of the hidden features come from a second network with weights
of its own, which reads the prefix backwards (Schuster and Paliwal 1997). Beyond the prefix they
are zero, and decoding leaves that network out: a state is the first network's alone.

With weights below float32 the recurrence is computed in float32, where small updates of a state
that hardly decays are not lost.

Shapes: B batch, L length, D width, H hidden features of one direction, P longest prefix.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from nas.mixers import recurrent_core
from nas.mixers.base import CAUSAL, Layout, Mixer, MixerConfig, MixerState


class RecurrentState(MixerState):
    """What a recurrent network knows of the tokens so far: (B, H) each."""

    def __init__(self, kept: tuple[Tensor, ...]) -> None:
        self.kept = kept

    def tensors(self) -> tuple[Tensor, ...]:
        """The output and, of an LSTM, the cell."""
        return self.kept

    def take(self, kept: tuple[Tensor, ...]) -> None:
        """Replaces what is known."""
        for old, new in zip(self.kept, kept, strict=True):
            old.copy_(new.detach())


class Recurrent(Mixer[RecurrentState]):
    """What the three networks share; a subclass says how one of them runs and steps.

    Weights have torch's names under `rnn` and `rnn_reverse`; `o_proj` follows, without bias.

    Options: hidden (of both directions together).
    """

    kept = 1
    """Vectors that a state holds."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        width, hidden = config.around.width, int(config.options["hidden"])
        self.hidden = hidden // 2 if config.around.looks_ahead else hidden
        self.rnn = self._network(width, self.hidden)
        self.rnn_reverse = self._network(width, self.hidden) if config.around.looks_ahead else None
        self.o_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BLD: Tensor, layout: Layout = CAUSAL) -> Tensor:
        """All positions at once, (B, L, D) to (B, L, D)."""
        causal_BLH, _ = self._scan(self.rnn, x_BLD)
        return self._project(causal_BLH, x_BLD, layout)

    def new_state(
        self,
        batch: int,
        context: int,
        *,
        cache_dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
    ) -> RecurrentState:
        """An empty state: one vector of H per sequence, two for an LSTM, in the recurrent dtype."""
        zeros = (torch.zeros(batch, self.hidden, dtype=recurrent_dtype, device=device) for _ in range(self.kept))
        return RecurrentState(tuple(zeros))

    def prefill(self, x_BLD: Tensor, state: RecurrentState, layout: Layout = CAUSAL) -> Tensor:
        """`forward` that also leaves in `state` what is known after each last token."""
        causal_BLH, kept = self._scan(self.rnn, x_BLD, layout.lengths_B)
        state.take(kept)
        return self._project(causal_BLH, x_BLD, layout)

    def step(self, x_BD: Tensor, state: RecurrentState, position: int | Tensor, turn: Tensor | None = None) -> Tensor:
        """The next token, (B, D) to (B, D); it lies beyond the prefix, so nothing is read backwards."""
        weights = _weights(self.rnn)
        dtype = weights[0].dtype
        kept = self._cell(x_BD.to(dtype), tuple(tensor.to(dtype) for tensor in state.kept), weights)
        state.take(kept)
        return functional.linear(kept[0].to(x_BD.dtype), self.o_proj.weight[:, : self.hidden])

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The output projection."""
        return (self.o_proj,)

    @abstractmethod
    def _network(self, width: int, hidden: int) -> nn.RNNBase:
        """One direction, initialised."""

    @abstractmethod
    def _run(
        self, x: Tensor, sizes: Tensor | None, kept: tuple[Tensor, ...], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """All tokens; `x` is (B, L, D), or packed where its batch `sizes` are given.

        Returns:
            The outputs, then what is kept after each last token, (1, B, H) each.
        """

    @abstractmethod
    def _cell(self, x_BD: Tensor, kept: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """One token: what is kept after it; the first of it is the output."""

    def _scan(
        self, rnn: nn.RNNBase, x_BLD: Tensor, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs (B, L, H) and what is kept after the last token before the padding, (B, H) each."""
        weights = _weights(rnn)
        zero_1BH = weights[0].new_zeros(1, len(x_BLD), self.hidden)
        start = (zero_1BH,) * self.kept
        x_BLD = x_BLD.to(weights[0].dtype)
        if lengths_B is None:
            y_BLH, *kept = self._run(x_BLD, None, start, weights)
            return y_BLH, tuple(tensor[0] for tensor in kept)
        packed = pack_padded_sequence(x_BLD, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        y, *kept = self._run(packed.data, packed.batch_sizes, start, weights)
        unpacked = PackedSequence(y, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        y_BLH, _ = pad_packed_sequence(unpacked, batch_first=True, total_length=x_BLD.shape[1])
        return y_BLH, tuple(tensor[0][packed.unsorted_indices] for tensor in kept)

    def _project(self, causal_BLH: Tensor, x_BLD: Tensor, layout: Layout) -> Tensor:
        y_BLH = causal_BLH
        if self.rnn_reverse is not None:
            backwards_BPH = self._backwards(self.rnn_reverse, x_BLD, layout.prefix)
            beyond = x_BLD.shape[1] - backwards_BPH.shape[1]
            if beyond:
                backwards_BPH = functional.pad(backwards_BPH, (0, 0, 0, beyond))
            y_BLH = torch.cat([causal_BLH, backwards_BPH], dim=-1)
        return self.o_proj(y_BLH.to(x_BLD.dtype))  # type: ignore[no-any-return]

    def _backwards(self, rnn: nn.RNNBase, x_BLD: Tensor, prefix: int | Tensor) -> Tensor:
        """Outputs of the reading from a prefix's last token to its first; zeros behind it."""
        longest = prefix if isinstance(prefix, int) else int(prefix.max())
        if longest == 0:
            return x_BLD.new_zeros(len(x_BLD), 0, self.hidden)
        if isinstance(prefix, int):
            y_BPH, _ = self._scan(rnn, x_BLD[:, :longest].flip(1))
            return y_BPH.flip(1)
        # Each prefix is turned round in its place. What follows it in the other order is read
        # after it, so it changes nothing that is kept.
        places_BP1 = (prefix[:, None] - 1 - torch.arange(longest, device=prefix.device))[..., None]
        turned_BP1 = places_BP1.clamp(min=0)
        y_BPH, _ = self._scan(rnn, _picked(x_BLD, turned_BP1))
        return _picked(y_BPH, turned_BP1).masked_fill(places_BP1 < 0, 0)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

        i, f, o = σ(W x + U h + b)    g = tanh(W_g x + U_g h + b_g)    c ← f ⊙ c + i ⊙ g    h = o ⊙ tanh(c)

    Forget gates start with a bias of exactly 1, so that a state lasts some tokens before anything
    is learnt (Jozefowicz et al. 2015); the rest starts as torch's: uniform in ±1/√H.
    """

    kept = 2

    def _network(self, width: int, hidden: int) -> nn.RNNBase:
        made = nn.LSTM(width, hidden, batch_first=True)
        with torch.no_grad():
            made.get_parameter("bias_ih_l0")[hidden : 2 * hidden] = 1
            made.get_parameter("bias_hh_l0")[hidden : 2 * hidden] = 0
        return made

    def _run(
        self, x: Tensor, sizes: Tensor | None, kept: tuple[Tensor, ...], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        keeps = torch.is_grad_enabled()
        if sizes is None:
            return torch.lstm(x, kept, weights, True, 1, 0.0, keeps, False, True)
        return torch.lstm(x, sizes, kept, weights, True, 1, 0.0, keeps, False)

    def _cell(self, x_BD: Tensor, kept: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.lstm_cell(x_BD, kept, *weights)


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014), in torch's form, whose reset comes after the product.

        r, z = σ(W x + U h + b)    n = tanh(W_n x + b_n + r ⊙ (U_n h + b'_n))    h ← (1 − z) ⊙ n + z ⊙ h

    It starts as torch's: uniform in ±1/√H.
    """

    def _network(self, width: int, hidden: int) -> nn.RNNBase:
        return nn.GRU(width, hidden, batch_first=True)

    def _run(
        self, x: Tensor, sizes: Tensor | None, kept: tuple[Tensor, ...], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        keeps = torch.is_grad_enabled()
        if sizes is None and keeps and x.device.type == "cpu":
            y_BLH = recurrent_core.gru(x, weights)
            return y_BLH, y_BLH[None, :, -1]
        if sizes is None:
            return torch.gru(x, kept[0], weights, True, 1, 0.0, keeps, False, True)
        return torch.gru(x, sizes, kept[0], weights, True, 1, 0.0, keeps, False)

    def _cell(self, x_BD: Tensor, kept: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        return (torch.gru_cell(x_BD, kept[0], *weights),)


class RNN(Recurrent):
    """Plain recurrent network (Elman 1990): h ← tanh(W x + U h + b). It starts as torch's: uniform in ±1/√H."""

    def _network(self, width: int, hidden: int) -> nn.RNNBase:
        return nn.RNN(width, hidden, batch_first=True)

    def _run(
        self, x: Tensor, sizes: Tensor | None, kept: tuple[Tensor, ...], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        keeps = torch.is_grad_enabled()
        if sizes is None and keeps and x.device.type == "cpu":
            y_BLH = recurrent_core.rnn(x, weights)
            return y_BLH, y_BLH[None, :, -1]
        if sizes is None:
            return torch.rnn_tanh(x, kept[0], weights, True, 1, 0.0, keeps, False, True)
        return torch.rnn_tanh(x, sizes, kept[0], weights, True, 1, 0.0, keeps, False)

    def _cell(self, x_BD: Tensor, kept: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        return (torch.rnn_tanh_cell(x_BD, kept[0], *weights),)


def _picked(x_BLF: Tensor, places_BP1: Tensor) -> Tensor:
    """Tokens at the given places; `take_along_dim` would keep a place for each feature, twice what they hold."""
    return x_BLF.gather(1, places_BP1.expand(-1, -1, x_BLF.shape[2]))


def _weights(rnn: nn.RNNBase) -> list[Tensor]:
    """Weights and biases of one direction as torch's functions take them, in float32 or better."""
    found: list[Tensor] = [getattr(rnn, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    if found[0].dtype not in (torch.bfloat16, torch.float16):
        return found
    # One piece of memory for all, as cuDNN wants it.
    whole = torch.cat([tensor.flatten() for tensor in found]).float()
    pieces = torch.split(whole, [tensor.numel() for tensor in found])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, found, strict=True)]
