"""Networks drawn from the shipped spaces, each predicted by formula and traced: what docs/memory.md compares.

In: how many draws, and the folder of those that are done. Out: one line of JSON for each. A draw is a pure function
of its number, so the whole can be interrupted and repeats nothing.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from nas import Architecture, build, estimate
from nas.cost.estimate import bound
from nas.errors import SpaceError
from nas.measure.trace import trace_prefill, trace_training
from nas.space.load import space_from_mapping
from nas.space.space import Space
from nas.space.yaml_lines import load_yaml

ROOT = Path(__file__).resolve().parent.parent
SPACES = ("decoder", "hybrid_decoder", "encoder", "prefix_lm", "encoder_decoder", "recurrent")
CONTEXTS = (256, 512, 1024, 2048, 4096, 8192, 16384)
ATTENTION = frozenset({"full", "sliding_window", "latent", "none"})


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One network, predicted and traced, in bytes.

    Attributes:
        number: of the draw.
        space: it was drawn from.
        fingerprint: of the network.
        mixers: of its layers.
        context: tokens.
        batch: sequences.
        train: the peak of a training step, by formula.
        train_traced: as traced.
        prefill: the peak of a prefill, by formula.
        prefill_traced: as traced.
        seconds: that both traces took.
        parameters_differ: elements that the built network has more than its formula says.
    """

    number: int
    space: str
    fingerprint: str
    mixers: tuple[str, ...]
    context: int
    batch: int
    train: int
    train_traced: int
    prefill: int
    prefill_traced: int
    seconds: float
    parameters_differ: int

    @property
    def is_attention(self) -> bool:
        """Whether all its mixers are softmax attention."""
        return set(self.mixers) <= ATTENTION

    def error(self, figure: str) -> float:
        """How far the formula is off, as a share of what was traced."""
        return abs(getattr(self, figure) / getattr(self, f"{figure}_traced") - 1)


@cache
def widened(name: str) -> Space:
    """A shipped space with contexts up to 16,384, and without the limits that would forbid them."""
    mapping, _ = load_yaml(ROOT / "search_spaces" / f"{name}.yaml", SpaceError)
    mapping["max_context"] = {"choice": list(CONTEXTS)}
    mapping.pop("constraints", None)
    return space_from_mapping(mapping)


def drawn(number: int) -> tuple[str, Architecture, int]:
    """The space, the network and the batch of a draw."""
    name = SPACES[number % len(SPACES)]
    architecture = bound(widened(name).sample(number))
    # As many sequences as make some thousand tokens, one at least.
    batch = max(1, min(4, 4096 // architecture.max_context))
    return name, architecture, batch


def compare(number: int) -> Compared:
    """Predicts and traces a draw."""
    name, architecture, batch = drawn(number)
    context = architecture.max_context
    cost = estimate(architecture, context=context, batch=batch)
    begun = time.process_time()
    train = trace_training(architecture, context=context, batch=batch).total
    prefill = trace_prefill(architecture, context=context, batch=batch)
    seconds = time.process_time() - begun
    with torch.device("meta"):
        built = sum(weight.numel() for weight in build(architecture).parameters())
    return Compared(
        number=number,
        space=name,
        fingerprint=architecture.fingerprint,
        mixers=tuple(layer.mixer for layer in architecture.all_layers),
        context=context,
        batch=batch,
        train=cost.train_peak_bytes,
        train_traced=train,
        prefill=cost.prefill_peak_bytes,
        prefill_traced=prefill,
        seconds=seconds,
        parameters_differ=built - cost.parameters,
    )


def recorded(path: Path) -> dict[int, Compared]:
    """The draws that are done, by number, predicted anew: the formulas may have changed since."""
    found = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            _, architecture, batch = drawn(values["number"])
            if architecture.fingerprint != values["fingerprint"]:
                continue
            cost = estimate(architecture, context=architecture.max_context, batch=batch)
            values |= {"train": cost.train_peak_bytes, "prefill": cost.prefill_peak_bytes}
            found[values["number"]] = Compared(**{**values, "mixers": tuple(values["mixers"])})
    return found


def run(path: Path, draws: int, share: tuple[int, int]) -> Iterator[Compared]:
    """Compares what is missing of the first draws; of `share` (i, n) every n-th from the i-th."""
    done = recorded(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    first, of = share
    for number in range(first, draws, of):
        if number not in done:
            found = compare(number)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(found)) + "\n")
            yield found


def spread(rows: Sequence[Compared], figure: str) -> tuple[float, float]:
    """Median and largest error."""
    errors = [row.error(figure) for row in rows]
    return statistics.median(errors), max(errors)
