"""nas estimate --trace: what a trace on fake tensors says of a network's peaks, beside what the formulas say."""

from __future__ import annotations

from nas.cost.estimate import Estimate
from nas.errors import InputError
from nas.units import format_bytes


def refuse_untraced(cost: Estimate) -> None:
    """Raises InputError for a context that the network cannot be built for, and settings that no trace follows."""
    limit = cost.architecture.max_context
    if cost.context > limit:
        raise InputError(
            f"--trace builds the network: {cost.context:,} tokens are beyond max_context, nearest {limit:,}"
        )
    if cost.cache_dtype != cost.dtype or cost.recurrent_dtype != "fp32" or cost.optimizer != "adamw":
        raise InputError("--trace follows AdamW, a cache of the weights' dtype and recurrent state in fp32")


def print_traced(cost: Estimate) -> None:
    """Traces a training step and a prefill at the settings of an estimate."""
    from nas.measure.trace import trace_prefill, trace_training

    network, context, batch = cost.architecture, cost.context, cost.batch
    print(f"traced at context {context:,}, batch {batch}:")
    prefill = trace_prefill(network, context=context, batch=batch, dtype=cost.dtype)
    training = trace_training(
        network, context=context, batch=batch, dtype=cost.train_dtype, checkpointing=cost.checkpointing
    ).total
    for name, traced in (("prefill_peak_bytes", prefill), ("train_peak_bytes", training)):
        off = getattr(cost, name) / traced - 1
        print(f"  {name:<19} {traced:,} ({format_bytes(traced)}), the formula is {off:+.3%} off")
