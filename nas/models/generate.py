"""Tokens from a model, one at a time.

In: prompts and how to sample. Out: a stream of tokens. The prompts are read once in parallel, and
so is a source; each further token costs one step with the model's state.

Shapes: B batch, L length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set

import torch
from torch import Tensor

from nas.errors import InputError
from nas.models.base import Model
from nas.models.prompts import checked_prompt
from nas.tasks.inputs import Inputs

Sampler = Callable[[Tensor], Tensor]
Decode = Callable[[Sequence[int]], str]

# Tokens looked at beyond the bytes of a stop string, since some begin or end inside a character.
_MARGIN = 16


def generate(
    model: Model,
    prompt: Tensor | Inputs,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: Set[int] = frozenset(),
    stop_strings: Sequence[str] = (),
    decode: Decode | None = None,
    attention_mask_BL: Tensor | None = None,
    pad_token: int | None = None,
    seed: int | None = None,
    cache_dtype: torch.dtype | None = None,
) -> Iterator[Tensor]:
    """Continues prompts; the longest and its continuation together never exceed max_context.

    Prompts of unequal length are continued as each would be alone. Tell their lengths by
    `Inputs.lengths_B` (padding on the right), by a mask or by the pad token (padding on either side).

    Args:
        model: what to sample from.
        prompt: tokens (B, L) on the model's device, alone or with what the family reads besides;
            of an encoder–decoder, its source and the token that begins a target.
        max_new_tokens: at most so many are generated.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keep the k most likely tokens only.
        top_p: keep the fewest most likely tokens that together have this probability
            (Holtzman et al. 2019, nucleus sampling).
        stop_tokens: a sequence ends with one of these.
        stop_strings: a sequence ends with the token that completes one of these texts.
        decode: tokens to text, needed for stop strings; a token stands for at least one byte.
        attention_mask_BL: true at tokens of the prompt, false at its padding.
        pad_token: what the prompt is padded with, instead of a mask.
        seed: of the sampling, from 0 to 2**63 - 1; the global random state is used where none is given.
        cache_dtype: of the state's cache; that of the weights by default.

    Returns:
        Tokens (B,), one tensor for each position. A sequence that has ended repeats its last token
        while others go on; the stream ends when all have.

    Raises:
        InputError: at the call, when an argument breaks its rule.
    """
    inputs, longest = checked_prompt(model, prompt, attention_mask_BL, pad_token)
    _check(max_new_tokens, temperature, top_k, top_p, seed)
    ends = Ends(stop_tokens, stop_strings, decode)
    random = None if seed is None else torch.Generator(inputs.tokens_BL.device).manual_seed(seed)

    def sample(logits_BV: Tensor) -> Tensor:
        return _sample(logits_BV, temperature, top_k, top_p, random)

    count = min(max_new_tokens, model.max_context - longest)
    return _stream(model, inputs, sample, longest, count, ends, model.dtype if cache_dtype is None else cache_dtype)


class Ends:
    """Where sequences end: at a token, or with a text.

    Args:
        stop_tokens: any of them ends a sequence.
        stop_strings: likewise.
        decode: tokens to text.
    """

    def __init__(self, stop_tokens: Set[int], stop_strings: Sequence[str], decode: Decode | None) -> None:
        strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        if "" in strings:
            raise InputError("a stop string must not be empty: leave it out to generate without one")
        if strings and decode is None:
            raise InputError("stop strings need `decode`, which turns tokens into text")
        self._tokens = sorted(stop_tokens)
        self._strings = strings
        self._decode = decode
        self._seen: list[list[int]] = []
        self._reach = max((len(string.encode()) for string in strings), default=0) + _MARGIN

    def reached(self, tokens_B: Tensor) -> Tensor:
        """Which sequences end with their newest token, bool (B,)."""
        ended_B = torch.isin(tokens_B, torch.tensor(self._tokens, dtype=tokens_B.dtype, device=tokens_B.device))
        if self._decode is None or not self._strings:
            return ended_B
        newest = tokens_B.tolist()
        self._seen = [
            [*seen[1 - self._reach :], token]
            for seen, token in zip(self._seen or [[]] * len(newest), newest, strict=True)
        ]
        texts = [self._decode(seen) for seen in self._seen]
        spoken = [any(string in text for string in self._strings) for text in texts]
        return ended_B | torch.tensor(spoken, device=tokens_B.device)


def _stream(
    model: Model, inputs: Inputs, sample: Sampler, longest: int, count: int, ends: Ends, cache_dtype: torch.dtype
) -> Iterator[Tensor]:
    # Inference mode must not leak into the consumer's code, hence one block for each piece of work.
    with torch.inference_mode():
        source_context = None if inputs.source_BS is None else inputs.source_BS.shape[1]
        state = model.new_state(
            inputs.tokens_BL.shape[0], longest + count, source_context=source_context, cache_dtype=cache_dtype
        )
        tokens_B = sample(model.prefill(inputs, state))
        ended_B = ends.reached(tokens_B)
    yield tokens_B.clone()
    for _ in range(count - 1):
        if bool(ended_B.all()):
            return
        with torch.inference_mode():
            tokens_B = torch.where(ended_B, tokens_B, sample(model.step(tokens_B, state)))
            ended_B = ended_B | ends.reached(tokens_B)
        yield tokens_B.clone()


def _sample(
    logits_BV: Tensor, temperature: float, top_k: int | None, top_p: float | None, random: torch.Generator | None
) -> Tensor:
    if temperature == 0:
        return logits_BV.argmax(-1)
    scores_BV, order_BV = (logits_BV.float() / temperature).sort(descending=True, stable=True)
    if top_k is not None:
        scores_BV[:, top_k:] = -torch.inf
    shares_BV = scores_BV.softmax(-1)
    if top_p is not None:
        # A token stays when those before it have not reached top_p: the first one always does.
        shares_BV = shares_BV.masked_fill(shares_BV.cumsum(-1) - shares_BV >= top_p, 0.0)
    drawn_B1 = torch.multinomial(shares_BV, 1, generator=random)
    return order_BV.gather(1, drawn_B1)[:, 0]


def _check(max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None, seed: int | None) -> None:
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature must be a number from 0 (most likely token) up, not {temperature}")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must be above 0 and at most 1, not {top_p}")
    if seed is not None and not 0 <= seed < 2**63:
        raise InputError(f"seed must be between 0 and 2**63 - 1, not {seed}")
