"""Text from a decoder, one token at a time.

In: a prompt of tokens and how to sample. Out: a stream of tokens. The prompt is read once in
parallel; each further token costs one step with the model's state.

Shapes: B batch, L length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set

import torch
from torch import Tensor

from nas.errors import InputError
from nas.models.decoder import Decoder

Sampler = Callable[[Tensor], Tensor]


def generate(
    model: Decoder,
    prompt_BL: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: Set[int] = frozenset(),
    seed: int | None = None,
    cache_dtype: torch.dtype | None = None,
) -> Iterator[Tensor]:
    """Continues a prompt; prompt and continuation together never exceed max_context.

    Args:
        model: what to sample from.
        prompt_BL: tokens on the model's device; the sequences of a batch are equally long.
        max_new_tokens: at most so many are generated.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keep the k most likely tokens only.
        top_p: keep the fewest most likely tokens that together have this probability
            (Holtzman et al. 2019, nucleus sampling).
        stop_tokens: a sequence ends with one of these, and repeats it while others go on; the
            stream ends when all have ended.
        seed: of the sampling, from 0 to 2**63 - 1; the global random state is used where none is given.
        cache_dtype: of the state's cache; that of the weights by default.

    Returns:
        Tokens (B,), one tensor for each position.

    Raises:
        InputError: at the call, when an argument breaks its rule.
    """
    _check(model, prompt_BL, max_new_tokens, temperature, top_k, top_p)
    if seed is not None and not 0 <= seed < 2**63:
        raise InputError(f"seed must be between 0 and 2**63 - 1, not {seed}")
    random = None if seed is None else torch.Generator(prompt_BL.device).manual_seed(seed)

    def sample(logits_BV: Tensor) -> Tensor:
        return _sample(logits_BV, temperature, top_k, top_p, random)

    count = min(max_new_tokens, model.max_context - prompt_BL.shape[1])
    return _stream(model, prompt_BL, sample, count, stop_tokens, cache_dtype)


def _stream(
    model: Decoder,
    prompt_BL: Tensor,
    sample: Sampler,
    count: int,
    stop_tokens: Set[int],
    cache_dtype: torch.dtype | None,
) -> Iterator[Tensor]:
    batch, length = prompt_BL.shape
    stops = torch.tensor(sorted(stop_tokens), dtype=prompt_BL.dtype, device=prompt_BL.device)
    # Inference mode must not leak into the consumer's code, hence one block for each piece of work.
    with torch.inference_mode():
        weights = model.embed_tokens.weight.dtype
        state = model.new_state(batch, length + count, cache_dtype=weights if cache_dtype is None else cache_dtype)
        tokens_B = sample(model.prefill(prompt_BL, state))
        ended_B = torch.isin(tokens_B, stops)
    yield tokens_B.clone()
    for _ in range(count - 1):
        if bool(ended_B.all()):
            return
        with torch.inference_mode():
            tokens_B = torch.where(ended_B, tokens_B, sample(model.step(tokens_B, state)))
            ended_B = ended_B | torch.isin(tokens_B, stops)
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


def _check(
    model: Decoder,
    prompt_BL: Tensor,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> None:
    if prompt_BL.dim() != 2 or prompt_BL.is_floating_point():
        raise InputError(f"a prompt is a batch of tokens (B, L) of integers, not {tuple(prompt_BL.shape)}")
    if not prompt_BL.numel():
        raise InputError("the prompt is empty: give at least one token")
    if prompt_BL.shape[1] >= model.max_context:
        raise InputError(
            f"a prompt of {prompt_BL.shape[1]} tokens leaves no room for new ones: "
            f"max_context is {model.max_context}, so at most {model.max_context - 1}"
        )
    vocabulary = model.embed_tokens.num_embeddings
    if int(prompt_BL.min()) < 0 or int(prompt_BL.max()) >= vocabulary:
        raise InputError(f"tokens of the prompt must be from 0 to {vocabulary - 1}")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature must be a number from 0 (most likely token) up, not {temperature}")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must be above 0 and at most 1, not {top_p}")
