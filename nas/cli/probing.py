"""nas estimate --measure: what a device says of an architecture, beside what the formulas say."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nas.cost.estimate import bound
from nas.errors import InputError
from nas.space.architecture import Architecture
from nas.units import format_bytes, format_count

if TYPE_CHECKING:
    from nas.measure.probe import Probed, Work


def refuse_unmeasured(arguments: argparse.Namespace) -> None:
    """Raises InputError for settings that are predicted and cannot be measured."""
    plain = {"train_dtype": "fp32", "optimizer": "adamw", "checkpointing": False, "cache_dtype": None}
    for name, value in {**plain, "recurrent_dtype": "fp32"}.items():
        if getattr(arguments, name) not in (value, arguments.dtype if name == "cache_dtype" else value):
            raise InputError(
                f"--measure trains in fp32 with AdamW and caches in --dtype: leave out --{name.replace('_', '-')}"
            )


def measure(architecture: Architecture, context: int | None, arguments: argparse.Namespace) -> None:
    """Prints what the device says, and keeps it where a store is named."""
    from nas.measure.probe import probe

    print("measuring in a process of its own ...", file=sys.stderr, flush=True)
    found = probe(architecture, context=context, batch=arguments.batch, dtype=arguments.dtype, device=arguments.device)
    _print(found)
    if arguments.store is not None:
        print(_kept(architecture, found, arguments.store))


def _kept(architecture: Architecture, found: Probed, url: str) -> str:
    from nas.store import Store
    from nas.study.probing import keep

    with Store.open(url) as store:
        trials = keep(store, bound(architecture), found)
        names = ", ".join(f"{study} {number}" for study, number in trials)
        return f"kept with {names}" if trials else f"nothing kept: no trial in '{store.label}' is of this network"


def _print(found: Probed) -> None:
    asked = found.probe
    print(f"measured on {found.device}: context {asked.context:,}, batch {asked.batch}")
    _print_work("training", "fp32", found.training)
    _print_work("prefill", asked.dtype, found.prefill)
    if found.decoding is not None:
        _print_work("decoding", asked.dtype, found.decoding)
        print(f"  state               {found.state_bytes:,} ({format_bytes(found.state_bytes)})")


def _print_work(name: str, dtype: str, work: Work) -> None:
    figures = (("", work.peak_bytes), (" reserved", work.reserved_bytes), (" resident", work.resident_bytes))
    shown = [f"{format_bytes(size)}{what}" for what, size in figures if size is not None]
    shown += [f"{work.milliseconds:.4g} ms", f"{format_count(work.tokens_per_second)} tokens/s"]
    print(f"  {name:<10} {dtype:<8} {', '.join(shown)}")
