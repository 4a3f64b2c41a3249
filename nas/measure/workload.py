"""What an architecture is asked to do when its memory and speed are measured: train a step, read prompts, decode.

In: an architecture and the sizes of a batch. Out: functions that each do one piece of work on a device. Tokens are
random, for what is measured does not depend on them.

Shapes: B batch, L length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nas.models.base import Model
from nas.models.build import build
from nas.models.state import ModelState
from nas.space.architecture import Architecture
from nas.tasks.inputs import Inputs
from nas.tasks.metrics import summed_nats


class TrainingWork:
    """Training steps in fp32 with AdamW, and the running average of the weights that trainings here keep.

    Args:
        architecture: bound.
        context: tokens of each sequence, and of each source.
        batch: sequences.
        device: where it is done.
    """

    def __init__(self, architecture: Architecture, *, context: int, batch: int, device: torch.device) -> None:
        self._model = _built(architecture, device, torch.float32)
        self._weights = list(self._model.parameters())
        self._average = [weight.detach().clone() for weight in self._weights]
        self._optimizer = torch.optim.AdamW(self._weights, fused=True)
        self._inputs = random_inputs(architecture, context=context, batch=batch, device=device)
        self._once = architecture.head == "sequence_classification"

    def step(self) -> None:
        """One step: forward, backward, AdamW, the running average."""
        features = self._model.features(self._inputs)
        logits = self._model.head(features.flatten(0, -2))
        # Any label will do: each head has the first one.
        targets = logits.new_zeros(logits.shape[0], dtype=torch.int64)
        nats, _ = summed_nats(logits, targets)
        (nats / targets.numel()).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(self._average, list[Tensor](self._weights), 0.5)


class InferenceWork:
    """Prompts taken in, and tokens decoded, in a dtype; recurrent state is in fp32.

    Args:
        architecture: bound.
        context: tokens that a sequence has in the end, and of each source.
        batch: sequences.
        dtype: of weights and cache.
        device: where it is done.
    """

    def __init__(
        self, architecture: Architecture, *, context: int, batch: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._model = _built(architecture, device, dtype).eval()
        self._inputs = random_inputs(architecture, context=context, batch=batch, device=device)
        self._context, self._batch, self._dtype = context, batch, dtype
        self._state: ModelState | None = None

    @property
    def decodes(self) -> bool:
        """Whether tokens can be decoded; else reading is a forward pass."""
        return self._model.generates

    @torch.no_grad()
    def read(self, tokens: int | None = None) -> int:
        """Takes in so many tokens of each prompt, all by default; returns the bytes of the state."""
        # The earlier state goes first: never are there two.
        self._state = None
        if not self.decodes:
            self._model(self._inputs)
            return 0
        self._state = self._model.new_state(
            self._batch, self._context, source_context=self._context, cache_dtype=self._dtype
        )
        self._model.prefill(Inputs(self._inputs.tokens_BL[:, :tokens], source_BS=self._inputs.source_BS), self._state)
        return self._state.bytes

    @torch.no_grad()
    def decode(self) -> None:
        """Takes in one further token of each sequence."""
        assert self._state is not None
        self._model.step(self._inputs.tokens_BL[:, -1], self._state)


def random_inputs(architecture: Architecture, *, context: int, batch: int, device: torch.device) -> Inputs:
    """Sequences of full length, with a source as long where one is read."""
    assert architecture.vocabulary is not None
    drawn = torch.Generator().manual_seed(0)
    tokens_BL = torch.randint(architecture.vocabulary, (batch, context), generator=drawn)
    return Inputs(tokens_BL, source_BS=tokens_BL.clone() if architecture.encoder_layers else None).to(device)


def _built(architecture: Architecture, device: torch.device, dtype: torch.dtype) -> Model:
    model = build(architecture, seed=0)
    assert isinstance(model, Model)
    return model.to(device, dtype)
