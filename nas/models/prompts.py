"""Prompts as a model takes them: checked, and padded on the right.

In: tokens that may be padded on either side. Out: `Inputs` whose padding is on the right and as
short as can be, so that each prompt is continued as if it were alone.

Shapes: B batch, L length.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nas.errors import InputError
from nas.models.base import Model
from nas.tasks.inputs import Inputs


def right_padded(
    tokens_BL: Tensor, *, attention_mask_BL: Tensor | None = None, pad_token: int | None = None
) -> tuple[Tensor, Tensor]:
    """Moves what is padded on the left to the right.

    Args:
        tokens_BL: int64.
        attention_mask_BL: true (or not 0) at tokens, false at the padding; the tokens of a sequence
            are neighbours.
        pad_token: what stands at one end or both, instead of a mask; inside a sequence it is a
            token as any other.

    Returns:
        int64 tokens, (B, longest), and int64 lengths, (B,).

    Raises:
        InputError: both a mask and a pad token, or neither; a mask of another shape or with a gap;
            a sequence of nothing but padding.
    """
    if attention_mask_BL is not None and pad_token is None:
        real_BL = attention_mask_BL.bool()
    elif attention_mask_BL is None and pad_token is not None:
        real_BL = tokens_BL.ne(pad_token)
    else:
        raise InputError("tell the padding by attention_mask_BL or by pad_token, one of them")
    if real_BL.shape != tokens_BL.shape:
        raise InputError(
            f"attention_mask_BL must have the tokens' shape: {(*real_BL.shape,)} is not {(*tokens_BL.shape,)}"
        )
    if not bool(real_BL.any(1).all()):
        raise InputError("each prompt must have at least one token that is no padding")
    first_B = real_BL.int().argmax(1)
    lengths_B = tokens_BL.shape[1] - real_BL.flip(1).int().argmax(1) - first_B
    if attention_mask_BL is not None and not torch.equal(lengths_B, real_BL.sum(1)):
        raise InputError("the tokens that attention_mask_BL marks must follow each other without a gap")
    place_BL = first_B[:, None] + torch.arange(int(lengths_B.max()), device=tokens_BL.device)
    return tokens_BL.gather(1, place_BL.clamp(max=tokens_BL.shape[1] - 1)), lengths_B


def checked_prompt(
    model: Model, prompt: Tensor | Inputs, attention_mask_BL: Tensor | None, pad_token: int | None
) -> tuple[Inputs, int]:
    """A prompt that the model can continue, and the tokens of its longest sequence.

    Raises:
        InputError: the model does not generate, or the prompt breaks a rule.
    """
    if not model.generates:
        raise InputError(f"{model.words} with this head does not generate: it needs one that continues a prompt")
    inputs = Inputs(prompt) if isinstance(prompt, Tensor) else prompt
    _check_tokens("the prompt", inputs.tokens_BL, model)
    if inputs.source_BS is not None:
        _check_tokens("the source", inputs.source_BS, model)
    if attention_mask_BL is not None or pad_token is not None:
        inputs = _moved(inputs, attention_mask_BL, pad_token)
    inputs = _trimmed(inputs)
    longest = inputs.tokens_BL.shape[1]
    if longest >= model.max_context:
        raise InputError(
            f"a prompt of {longest} tokens leaves no room for new ones: "
            f"max_context is {model.max_context}, so at most {model.max_context - 1}"
        )
    return model.checked(inputs), longest


def _check_tokens(what: str, tokens_BL: Tensor, model: Model) -> None:
    if tokens_BL.dim() != 2 or tokens_BL.is_floating_point():
        raise InputError(f"{what} must be a batch of tokens (B, L) of integers, not {tuple(tokens_BL.shape)}")
    if not tokens_BL.numel():
        raise InputError(f"{what} is empty: give at least one token")
    if int(tokens_BL.min()) < 0 or int(tokens_BL.max()) >= model.vocabulary:
        raise InputError(f"tokens of {what} must be from 0 to {model.vocabulary - 1}")


def _moved(inputs: Inputs, attention_mask_BL: Tensor | None, pad_token: int | None) -> Inputs:
    for field in ("lengths_B", "positions_BL2"):
        if getattr(inputs, field) is not None:
            raise InputError(f"{field} goes with padding on the right: leave out attention_mask_BL and pad_token")
    tokens_BL, lengths_B = right_padded(inputs.tokens_BL, attention_mask_BL=attention_mask_BL, pad_token=pad_token)
    return replace(inputs, tokens_BL=tokens_BL, lengths_B=lengths_B)


def _trimmed(inputs: Inputs) -> Inputs:
    """Without padding that all sequences have, and without lengths where all are equal."""
    lengths_B, length = inputs.lengths_B, inputs.tokens_BL.shape[1]
    if lengths_B is None:
        return inputs
    shortest, longest = int(lengths_B.min()), int(lengths_B.max())
    if lengths_B.shape != inputs.tokens_BL.shape[:1] or not 1 <= shortest <= longest <= length:
        raise InputError(f"lengths_B must be one number from 1 to {length} for each prompt, not {lengths_B.tolist()}")
    return replace(
        inputs,
        tokens_BL=inputs.tokens_BL[:, :longest],
        lengths_B=None if shortest == longest else lengths_B,
        positions_BL2=None if inputs.positions_BL2 is None else inputs.positions_BL2[:, :longest],
    )
