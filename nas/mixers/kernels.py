"""Which kernel computes attention, and the compiled FlexAttention of GPUs.

In: queries, keys and values. Out: attention under windows, prefixes and biases. On a CPU, where
FlexAttention (Dong et al. 2024) has no backward pass, and wherever NAS_KERNELS=plain asks for it,
the blocked forms of nas.mixers.attention serve instead.

PyTorch is only imported where something is computed: commands that describe never load it.

Shapes: B batch, H query heads, G key/value heads, L length, F features of a head.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nas.mixers.attention import Terms

_SMALLEST_HEAD = 16
"""The fewest features of a head that FlexAttention's kernels take."""

_MOST_FORMS = 64
"""Compiled forms kept: windows and prefixes come as tensors, but biases, dtypes and lengths make new ones."""

_CHUNKED = frozenset({"linear", "retention", "gated_linear", "mamba2"})
# Flash-linear-attention serves these in half precision; it refuses float32.
_DELTA_RULE = frozenset({"delta", "gated_delta"})

_FUSED = "sdpa (flash/efficient)"


def plain_forced() -> bool:
    """Whether the user asks for the plain forms, by NAS_KERNELS=plain."""
    return os.environ.get("NAS_KERNELS") == "plain"


def has_linear_attention_kernels() -> bool:
    """Whether flash-linear-attention is installed (Yang & Zhang 2024)."""
    return find_spec("fla") is not None


def describe(mixer_name: str, device_type: str) -> str:
    """Which kernel serves a mixer of the catalog on a kind of device, such as "cpu" or "cuda".

    What is said of "full" holds for plain causal or two-way attention; on a GPU its biases, sink
    logits and uneven prefixes take the kernel that is said of "sliding_window".
    """
    flexible = device_type == "cuda" and not plain_forced()
    if mixer_name == "sliding_window":
        return "flex_attention (compiled)" if flexible and _compiles() else "blocked sdpa"
    if mixer_name in _DELTA_RULE and flexible and has_linear_attention_kernels():
        return "flash-linear-attention"
    if mixer_name in _CHUNKED | _DELTA_RULE:
        return "chunked torch"
    named = {
        "full": _FUSED,
        "latent": _FUSED,
        **dict.fromkeys(("lstm", "gru", "rnn"), "cudnn" if device_type == "cuda" else "torch.nn"),
        "gated_conv": "torch conv1d",
        "none": "nothing to compute",
    }
    return named.get(mixer_name, "its own")


def takes_flex(x: Tensor, head_dim: int) -> bool:
    """Whether FlexAttention may compute heads of so many features, made from `x`."""
    fits = x.is_cuda and x.element_size() <= 4 and head_dim >= _SMALLEST_HEAD
    return fits and _compiles() and not plain_forced()


@cache
def _compiles() -> bool:
    return find_spec("triton") is not None


def flex(
    q_BHLF: Tensor, k_BGLF: Tensor, v_BGLF: Tensor, terms: Terms, *, window: int | None, prefix: int | Tensor
) -> Tensor:
    """Attention of a layout in one kernel, (B, H, L, F).

    Args:
        q_BHLF: queries.
        k_BGLF: keys; G divides H.
        v_BGLF: values.
        terms: what joins the scores.
        window: tokens seen on each side, oneself included; None: all.
        prefix: leading tokens that see each other in both directions, for all or (B,).
    """
    from torch.nn.attention.flex_attention import AuxRequest

    length, device = q_BHLF.shape[2], q_BHLF.device
    if isinstance(prefix, int) and 1 < prefix < length:
        prefix = q_BHLF.new_full((q_BHLF.shape[0],), prefix, dtype=_int64())
    sinks = terms.sinks if window is not None else 0
    if isinstance(prefix, int):
        visible = _block_mask(prefix > 1, length, window, sinks, device)
    else:
        visible = _block_mask_of_prefixes(prefix, length, window, sinks)
    run = _compiled_flex() if q_BHLF.is_cuda else _plain_flex()
    score = _score(terms)
    if terms.logits_H is None:
        plain_BHLF: Tensor = run(q_BHLF, k_BGLF, v_BGLF, score, visible, enable_gqa=True)
        return plain_BHLF
    y_BHLF, aux = run(q_BHLF, k_BGLF, v_BGLF, score, visible, enable_gqa=True, return_aux=AuxRequest(lse=True))
    # A key of value 0 in the denominator takes the share sigmoid(logit - sum) from all the others.
    kept_BHL = (aux.lse - terms.logits_H.to(aux.lse.dtype)[:, None]).sigmoid()
    scaled_BHLF: Tensor = y_BHLF * kept_BHL.to(y_BHLF.dtype)[..., None]
    return scaled_BHLF


def _score(terms: Terms) -> Callable[..., Tensor] | None:
    slopes_H, table_HR = terms.slopes_H, terms.table_HR
    if slopes_H is not None:

        def fall(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return score - slopes_H[h] * (query - key).abs()

        return fall
    if table_HR is not None:
        # A tensor, as in `_near`.
        zero = table_HR.new_tensor(terms.zero, dtype=_int64())

        def learned(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return score + table_HR[h, key - query + zero]

        return learned
    return None


@lru_cache(maxsize=64)
def _block_mask(both_ways: bool, length: int, window: int | None, sinks: int, device: torch.device) -> Any:
    """Which blocks of keys each block of queries sees, of any sequence; None: all."""
    if both_ways and window is None:
        return None
    near = _near(window, sinks, device)

    def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return near(query, key) if both_ways else near(query, key) & (key <= query)

    return _create(seen, None, length, device)


def _block_mask_of_prefixes(prefix_B: Tensor, length: int, window: int | None, sinks: int) -> Any:
    """The same for prefixes of their own; remembered, since all layers of a pass ask for it."""
    kept = _masks_of_prefixes().setdefault(prefix_B, {})
    key = (prefix_B._version, length, window, sinks)
    if key not in kept:
        # The mask must not keep alive what it is remembered by.
        own_B, near = prefix_B.clone(), _near(window, sinks, prefix_B.device)

        def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return near(query, key) & ((key <= query) | ((query < own_B[b]) & (key < own_B[b])))

        kept[key] = _create(seen, len(prefix_B), length, prefix_B.device)
    return kept[key]


def _near(window: int | None, sinks: int, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    if window is None:
        return lambda query, key: key >= 0
    import torch

    # As tensors: numbers would have each window compiled anew.
    window_, sinks_ = (torch.tensor(number, device=device) for number in (window, sinks))
    return lambda query, key: ((query - key < window_) & (key - query < window_)) | (key < sinks_)


def _create(seen: Callable[..., Tensor], batch: int | None, length: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    make = _compiled_mask() if device.type == "cuda" else create_block_mask
    return make(seen, batch, None, length, length, device=device)


@cache
def _masks_of_prefixes() -> Any:
    from torch.utils.weak import WeakIdKeyDictionary

    return WeakIdKeyDictionary()


@cache
def _compiled_flex() -> Callable[..., Any]:
    import torch

    # Of the full graph, since beyond its limit PyTorch would else silently go back to scores of L x L.
    options: dict[str, Any] = {"fullgraph": True, "recompile_limit": _MOST_FORMS}
    compiled: Callable[..., Any] = torch.compile(_plain_flex(), **options)
    return compiled


def _plain_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@cache
def _compiled_mask() -> Callable[..., Any]:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    options: dict[str, Any] = {"recompile_limit": _MOST_FORMS}
    compiled: Callable[..., Any] = torch.compile(create_block_mask, **options)
    return compiled


def _int64() -> torch.dtype:
    import torch

    return torch.int64
