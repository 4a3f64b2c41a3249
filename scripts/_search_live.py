"""Searches that really train, on associative recall: pairs of ours and NSGA-II, and whether small ranks survive.

In: a seed. Out: what a study came to, from its store. Both searches of a pair have the same space, seed and training
tokens; NSGA-II trains everything to the end. A study of the same words is then confirmed at a larger budget: its front
and some that its front dominates, trained longer with further seeds.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TOKENS = 24
"""A search ends when it has spent the tokens of so many whole trainings."""
PAIRS = 8
OURS, OTHER = "frontier", "nsga2"
BUDGET, SEEDS, DOMINATED = "8x", 3, 8
"""Of the confirmation."""

STUDY: Mapping[str, Any] = {
    "name": "live",
    "space": {
        "name": "live",
        "family": "decoder",
        "width": {"choice": [16, 24, 32, 48]},
        "depth": {"range": [1, 3]},
        "max_context": 32,
        "layers": {
            "mixer": {"choice": ["full", "sliding_window", "delta", "gated_delta", "gated_conv"], "per": "layer"},
            "heads": 2,
            "kv_heads": {"choice": [1, 2]},
            "window": {"choice": [4, 8, 16], "when": {"mixer": "sliding_window"}},
            "conv": 0,
            "mlp_ratio": {"choice": [1, 2]},
        },
        "training": {"learning_rate": {"log_range": [1e-3, 3e-2]}},
    },
    "task": {"name": "recall", "vocabulary": 64, "length": 32, "pairs": 8, "evaluation_examples": 512},
    "objectives": ["recall_accuracy", "serve_bytes@context=1024"],
    "budget": {"tokens": 393_216, "rungs": 6, "tokens_per_step": 1024},
}
SEARCHES: Mapping[str, Mapping[str, Any]] = {
    OURS: {"sampler": "frontier", "early_stopping": True},
    OTHER: {"sampler": {"name": "nsga2", "population": 16}},
}


def live_words(method: str, seed: int) -> dict[str, Any]:
    """The study file of a search."""
    tokens = TOKENS * STUDY["budget"]["tokens"]
    return {**STUDY, **SEARCHES[method], "seed": seed, "stop": {"tokens": tokens}}


def confirmed_words(seed: int) -> dict[str, Any]:
    """The study file of a search whose front is confirmed at a larger budget."""
    return {**live_words(OURS, seed), "confirm": {"budget": BUDGET, "seeds": SEEDS, "dominated": DOMINATED}}


def digest(words: Mapping[str, Any]) -> str:
    """Changes with every word of a study."""
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:16]


def searched(method: str, seed: int) -> dict[str, Any]:
    """What a search came to.

    Returns:
        curve: tokens spent, in whole trainings, and the hypervolume, where it grew; the final hypervolume; the tokens;
        counts of trials by state.
    """
    from nas import Store

    with tempfile.TemporaryDirectory() as folder:
        url = _run(live_words(method, seed), Path(folder))
        with Store.open(url) as store:
            study = store.study(STUDY["name"])
            fronts, trials = store.fronts(study), store.trials(study)
    whole = STUDY["budget"]["tokens"]
    curve = [
        (round(tokens / whole, 3), round(float(volume), 4))
        for tokens, volume in zip(fronts["tokens"], fronts["hypervolume"], strict=True)
    ]
    states = [trial.state for trial in trials]
    return {
        "curve": curve,
        "hypervolume": curve[-1][1] if curve else 0.0,
        "trainings": round(sum(trial.tokens for trial in trials) / whole, 3),
        "states": {state: states.count(state) for state in sorted(set(states))},
    }


def ranked(seed: int) -> dict[str, Any]:
    """How the ranks of a search stand at the larger budget.

    Returns:
        tau: Kendall's, by the measured objective; candidates, and members of the front that were trained at both
        budgets; how many of the members are on the front there.
    """
    from nas import Store
    from nas.report.confirm import scalings

    with tempfile.TemporaryDirectory() as folder:
        url = _run(confirmed_words(seed), Path(folder))
        with Store.open(url) as store:
            (found,) = scalings(store, store.study(STUDY["name"]))
    (tau,) = found.taus.values()
    return {
        "tau": None if tau is None else round(tau, 3),
        "candidates": found.candidates,
        "members": found.members,
        "kept": found.kept,
    }


def _run(words: Mapping[str, Any], folder: Path) -> str:
    from nas import Study

    path, url = folder / "study.yaml", f"sqlite:///{folder / 'nas.db'}"
    # JSON is YAML.
    path.write_text(json.dumps(words), encoding="utf-8")
    with Study.load(path, store=url) as study:
        study.run()
    return url


@dataclass(frozen=True)
class Ratio:
    """A ratio over pairs, with its interval of 95 %."""

    middle: float
    low: float
    high: float
    pairs: int


def ratio_of(ours: Sequence[float], others: Sequence[float]) -> Ratio:
    """The geometric mean of paired ratios, with the interval of Student's t on their logarithms.

    Args:
        ours: of each pair the one value, above 0.
        others: the other one.
    """
    from scipy.stats import t

    logs = np.log(np.array(ours) / np.array(others))
    middle, count = float(logs.mean()), len(logs)
    half = float(t.ppf(0.975, count - 1) * logs.std(ddof=1) / math.sqrt(count)) if count > 1 else math.inf
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half), count)
