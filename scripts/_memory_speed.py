"""How fast memory is predicted and traced, in seconds of one core: docs/memory.md shows it.

In: the shipped spaces. Out: one JSON file. Processor time is taken, so that other work on the machine counts little.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from _memory_draws import ROOT, SPACES

from nas import Architecture, estimate
from nas.cost.estimate import bound
from nas.measure.trace import trace_prefill, trace_training
from nas.space.space import Space

DRAWS: Final = 2000
TRACED: Final = 16_384
LAYERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "full": {"mixer": "full", "heads": 4},
    "sliding_window": {"mixer": "sliding_window", "heads": 4, "window": 64},
    "latent": {"mixer": "latent", "heads": 4, "latent_dim": 32},
    "gated_delta": {"mixer": "gated_delta", "heads": 4},
    "mamba2": {"mixer": "mamba2"},
}


def measure_speed(folder: Path) -> None:
    """Draws a second, with every figure of each; predictions a second of networks that are there; seconds of traces."""
    found: dict[str, Any] = {"spaces": {}, "traces": {}}
    for name in SPACES:
        space = Space.load(ROOT / "search_spaces" / f"{name}.yaml")
        begun = time.process_time()
        networks = [space.sample(number) for number in range(DRAWS)]
        for network in networks:
            _figures(network)
        together = time.process_time() - begun
        # Again: every layer is known by now, as it is in a search after its first thousand draws.
        begun = time.process_time()
        for network in networks:
            _figures(network)
        found["spaces"][name] = [DRAWS / together, DRAWS / (time.process_time() - begun)]
    for name, layer in LAYERS.items():
        words = {"family": "decoder", "width": 128, "max_context": TRACED, "layers": [layer] * 4, "positions": "none"}
        network = bound(Architecture.from_mapping(words))
        begun = time.process_time()
        trace_training(network, context=TRACED)
        trained = time.process_time() - begun
        trace_prefill(network, context=TRACED)
        found["traces"][name] = [trained, time.process_time() - begun - trained]
    (folder / "speed.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def recorded_speed(folder: Path) -> dict[str, Any]:
    """What is done, or nothing."""
    path = folder / "speed.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _figures(network: Architecture) -> None:
    """Every figure: those of an `Estimate` are computed when they are asked for."""
    cost = estimate(network)
    _ = cost.serve_bytes, cost.prefill_peak_bytes, cost.train_peak_bytes
    _ = cost.flops_per_token, cost.prefill_flops_per_token, cost.decode_flops_per_token
