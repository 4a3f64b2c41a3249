"""The page of the mixers' benchmark: figures to Markdown.

In: figures by key (`_bench_plan`). Out: docs/benchmarks.md. Every target is marked as met or missed,
every figure that a peer wins is listed again, and so is what was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from _bench_measure import Figures
from _bench_ours import GROWING, SAME_KERNEL
from _bench_plan import Plan, Results

NOTE = "<!-- Made by scripts/bench_mixers --write; do not edit. -->\n"
WHOLE, WHOLE_SAME_KERNEL, CORE = 1.0, 0.95, 1.2
GATED_DELTA = {2_048: 1.3, 8_192: 2.0, 16_384: 2.0}
WINDOW = {
    "SDPA with a mask": {8_192: 6.0, 16_384: 12.0},
    "SDPA over everything before": {8_192: 2.5, 16_384: 5.0},
}
GROWTH, DECODE_GROWTH = 4.8, 1.2
QUADRUPLE = 4
"""Growth targets are for four times the length, and for decoding at 32 times the context."""


def page(plan: Plan, results: Results) -> str:
    """The whole page."""
    parts = [
        NOTE,
        "# Speed and memory of the mixers\n",
        introduction(plan, results),
        training(plan, results),
        cores(plan, results),
        growing(plan, results),
        decoding(plan, results),
        memories(plan, results),
        lost(plan, results),
        unmeasured(results),
    ]
    return "\n".join(part for part in parts if part)


def introduction(plan: Plan, results: Results) -> str:
    found = results.environment
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    load = max((float(figures["load"]) for figures in results.figures.values()), default=0.0)
    return f"""\
Each mixer at width 256 with 4 heads of 64, batch 1, float32, {plan.limits.threads} threads, on
{found["machine"]}; {versions}.
Made by `scripts/bench_mixers --write`; of a stopped run the next one measures the rest.

- A time is that of one forward and backward pass, or of one decoded token. Ours and the peer's run in turns in one
  process; a ratio is the median over the pairs of what the peer takes over what ours takes, so above 1 ours is faster.
  In brackets the lowest and the highest of the pairs, of which there are at most {plan.limits.repeats} (of decoding ten
  times as many).
- The C library keeps what is freed, for ours and the peer's alike, as it does where candidates train: else passes over
  16,384 tokens spend up to half their time on page faults.
- The peer is the fastest that was found in pure PyTorch, at its fastest chunk size: layers of transformers,
  x-transformers and torch; where they have none, the published layer around a naive function of
  flash-linear-attention (FLA), whose kernels need a GPU. What a peer's model makes once for all its layers, masks and
  rotary tables, was made beforehand and is not counted. Ours is.
- That cores compute the same is checked before they are timed; that whole modules compute the same as those of
  transformers and torch is checked by `tests/parity`.
- Memory is the growth of the peak resident set of a fresh process over one pass, the kernel's own high-water mark:
  torch's memory tracker does not see what C++ kernels allocate for themselves. A peer's mask is not counted.
- Every measurement has a process of its own. A pass over {plan.limits.pass_seconds:.0f} s is left out, and listed at
  the end with the peers that were too far behind to be tried at a greater length.
- Highest load average seen beside a measurement: {load:.1f} (the benchmark itself makes {plan.limits.threads}).
"""


def training(plan: Plan, results: Results) -> str:
    rows = []
    for mixer in plan.mixers:
        for length in plan.lengths:
            target = WHOLE_SAME_KERNEL if mixer in SAME_KERNEL else WHOLE
            rows.append(_versus(results.figures.get(f"whole/{mixer}/{length}"), mixer, length, target))
    targets = (
        f"{WHOLE}, or {WHOLE_SAME_KERNEL} where both spend their time in the same kernel ({', '.join(SAME_KERNEL)})"
    )
    return _table(
        "Whole modules, forward and backward",
        f"Targets: {targets}.",
        ["mixer", "tokens", "nas tokens/s", "peer tokens/s", "ratio", "target", "", "peer"],
        rows,
    )


def cores(plan: Plan, results: Results) -> str:
    rows = []
    for mixer in plan.mixers:
        for length in plan.lengths:
            if mixer == "sliding_window":
                for peer, targets in WINDOW.items():
                    figures = results.figures.get(f"core/{mixer}/{length}/{peer}")
                    rows.append(_versus(figures, "sliding_window (256)", length, targets.get(length)))
            elif f"core/{mixer}/{length}" in results.figures:
                target = GATED_DELTA.get(length, CORE) if mixer == "gated_delta" else CORE
                rows.append(_versus(results.figures[f"core/{mixer}/{length}"], mixer, length, target))
    return _table(
        "Core functions, forward and backward",
        "What lies between the projections: queries, keys, values and decays in, reads out.",
        ["mixer", "tokens", "nas tokens/s", "peer tokens/s", "ratio", "target", "", "peer"],
        rows,
    )


def growing(plan: Plan, results: Results) -> str:
    short, long = plan.growth_lengths
    rows = []
    for mixer in plan.mixers:
        if mixer in GROWING:
            continue
        time = results.figures.get(f"growth/{mixer}", {}).get("ratio")
        both = [results.figures.get(f"memory/{mixer}/{length}/nas", {}).get("bytes") for length in (short, long)]
        grown = both[1] / both[0] if all(both) else None
        rows.append(
            [mixer, _ratio(time), _mark(time, GROWTH, most=True), _ratio(grown), _mark(grown, GROWTH, most=True)]
        )
    return _table(
        f"Growth from {short:,} to {long:,} tokens",
        f"Target: at most {GROWTH} times as much time and memory for {QUADRUPLE} times as many tokens; full and latent "
        "attention grow with the square of the length and are left out.",
        ["mixer", "time", "", "memory", ""],
        rows,
    )


def decoding(plan: Plan, results: Results) -> str:
    rows = [
        _versus(results.figures.get(f"decode/{mixer}/{length}"), mixer, 1, None, shown=length)
        for mixer in plan.mixers
        for length in plan.decode_lengths
    ]
    first, last = plan.decode_lengths[0], plan.decode_lengths[-1]
    grown = []
    for mixer in plan.mixers:
        if mixer not in GROWING:
            ratio = results.figures.get(f"decode-growth/{mixer}", {}).get("ratio")
            grown.append([mixer, _ratio(ratio), _mark(ratio, DECODE_GROWTH, most=True)])
    speed = _table(
        "Decoding, one token at a time",
        "A peer whose state does not grow was given a short context.",
        ["mixer", "context", "nas tokens/s", "peer tokens/s", "ratio", "target", "", "peer"],
        rows,
    )
    return speed + _table(
        f"Time of a decoded token at {last:,} over that at {first:,}",
        f"Target: at most {DECODE_GROWTH}; full and latent attention read their whole context and are left out.",
        ["mixer", "ratio", ""],
        grown,
    )


def memories(plan: Plan, results: Results) -> str:
    rows = []
    for mixer in plan.mixers:
        for length in plan.lengths:
            mine = results.figures.get(f"memory/{mixer}/{length}/nas", {})
            theirs = results.figures.get(f"memory/{mixer}/{length}/peer", {})
            share = theirs["bytes"] / mine["bytes"] if "bytes" in mine and "bytes" in theirs else None
            rows.append([mixer, f"{length:,}", _mib(mine), _mib(theirs), _ratio(share), str(theirs.get("peer", "–"))])
    return _table(
        "Peak memory of a forward and backward pass",
        "Ratio: the peer's over ours.",
        ["mixer", "tokens", "nas", "peer", "ratio", "peer"],
        rows,
    )


def lost(plan: Plan, results: Results) -> str:
    """Every figure that a peer wins."""
    lines = []
    words = {"whole": "training", "core": "core", "decode": "decoding"}
    for key, figures in results.figures.items():
        kind, mixer, *rest = key.split("/")
        if kind in words and mixer in plan.mixers and figures.get("ratio", 1.0) < 1:
            ratio = figures["ratio"]
            lines.append(f"- {words[kind]}, {mixer}, {int(rest[0]):,} tokens: {figures['peer']} ({ratio:.2f})")
        if kind == "memory" and mixer in plan.mixers and rest[1] == "peer" and "bytes" in figures:
            mine = results.figures.get(f"memory/{mixer}/{rest[0]}/nas", {}).get("bytes", 0)
            if mine > figures["bytes"]:
                share = figures["bytes"] / mine
                lines.append(f"- memory, {mixer}, {int(rest[0]):,} tokens: {figures['peer']} ({share:.2f})")
    return "\n".join(["## Where a peer wins\n", *([WHY, "", *lines] if lines else ["Nowhere."]), ""])


WHY = (
    "A ratio of 0.95 to 1.00 is within what a repetition changes. Full attention and LSTMs spend their time in the\n"
    "same kernel of torch as their peers (SDPA, nn.LSTM); a decoded token of a window or of gated linear attention\n"
    "costs the same few operations in both; less than 0.95 would be a loss."
)


def unmeasured(results: Results) -> str:
    """What was left out, and why."""
    lines = []
    for key, figures in results.figures.items():
        if "skipped" in figures:
            lines.append(f"- {key.removeprefix('alone/').replace('/', ', ')}: {figures['skipped']}")
    return "\n".join(["## Not measured\n", *(lines or ["Nothing was left out."]), ""])


def missed(text: str) -> Iterator[str]:
    """Rows of a page whose target is missed."""
    yield from (line for line in text.splitlines() if "| missed |" in line)


def _versus(
    figures: Figures | None, mixer: str, tokens: int, target: float | None, shown: int | None = None
) -> list[str]:
    named = [mixer, f"{shown or tokens:,}"]
    goal = "–" if target is None else f"{target:g}"
    if figures is None or "ratio" not in figures:
        why = "no peer finished" if figures is None else str(figures["skipped"])
        return [*named, "–", "–", "–", goal, "–", why]
    ratio = figures["ratio"]
    spread = f"{ratio:.2f} ({figures['lowest']:.2f}–{figures['highest']:.2f})"
    speeds = [f"{tokens / figures[f'{which}_seconds']:,.0f}" for which in ("first", "second")]
    return [*named, *speeds, spread, goal, _mark(ratio, target), str(figures["peer"])]


def _mark(value: float | None, target: float | None, *, most: bool = False) -> str:
    if value is None or target is None:
        return "–"
    return "met" if (value <= target if most else value >= target) else "missed"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _mib(figures: dict[str, Any]) -> str:
    return f"{figures['bytes'] / 2**20:,.0f} MiB" if "bytes" in figures else "–"


def _table(title: str, about: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numbers = {"tokens", "context", "nas tokens/s", "peer tokens/s", "ratio", "target", "time", "memory", "nas"}
    rule = "|".join("---:" if head in numbers else "---" for head in heads)
    lines = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    return "\n".join([f"## {title}\n", f"{about}\n", lines[0], f"|{rule}|", *lines[1:], ""]) + "\n"
