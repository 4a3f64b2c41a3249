"""The model card: what an exported network is, how it was made, what it scores, what it takes.

In: the facts of a trial. Out: Markdown, the README.md of a bundle. Paths of the user's machine
stay out of it: a card is made to be shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath
from typing import Any

from nas.cost.estimate import count_parameters, estimate
from nas.cost.state import RECURRENT_DTYPE
from nas.records import Measurement, TaskReference
from nas.space.architecture import Architecture
from nas.specs import task_spec
from nas.specs.base import Value
from nas.units import format_bytes, format_count

SERVING_DTYPES = ("bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a model card is written from.

    Attributes:
        study: its name.
        trial: the candidate's number in the study.
        fingerprint: of the architecture.
        architecture: the network, bound to its task.
        training: hyperparameters by name.
        task: what the network was trained on, with the version of the data.
        tokens: trained on.
        flops: spent on training, by formula.
        measurements: of the exported weights, on both held-out parts of the data.
        baselines: what a trivial guesser scores on the test part, by metric.
        versions: of Python and the packages, by name.
    """

    study: str
    trial: int
    fingerprint: str
    architecture: Architecture
    training: Mapping[str, float]
    task: TaskReference
    tokens: int
    flops: float
    measurements: Sequence[Measurement]
    baselines: Mapping[str, float]
    versions: Mapping[str, str]

    @property
    def scores_text(self) -> bool:
        """Whether the network is a language model: then something was measured per byte."""
        return any(found.unit.endswith("/byte") for found in self.measurements)

    @property
    def classifies_text(self) -> bool:
        """Whether the network tells labels of texts."""
        return self.task.name == "classification"


def model_card(facts: CardFacts) -> str:
    """The model card of an exported network, Markdown.

    Raises:
        InputError: the task is unknown.
    """
    sections = (
        _introduction(facts),
        _architecture(facts.architecture),
        _training(facts),
        _quality(facts),
        _memory(facts.architecture),
        _use(facts),
        _limits(facts),
        "## Versions\n\n" + _table(("package", "version"), sorted(facts.versions.items())),
    )
    return "\n\n".join(sections) + "\n"


def _introduction(facts: CardFacts) -> str:
    architecture = facts.architecture
    return (
        f"# {facts.study}, trial {facts.trial}\n\n"
        f"A {architecture.family} of {format_count(count_parameters(architecture))} parameters with a context of "
        f"{architecture.max_context} tokens, trained on the task `{facts.task.name}`. "
        f"Its architecture was found by a search for good quality in little memory (`nas`, distributed as "
        f"`context-nas`).\n\n"
        f"Fingerprint of the architecture: `{facts.fingerprint}`"
    )


def _architecture(architecture: Architecture) -> str:
    whole = [(key, value) for key, value in architecture.to_mapping().items() if key != "layers"]
    # mlp_ratio says the same as mlp_hidden.
    layers = [{"mixer": layer.mixer, **layer.values, "mlp_ratio": None} for layer in architecture.all_layers]
    keys = [key for key in dict.fromkeys(key for layer in layers for key in layer) if key != "mlp_ratio"]
    rows, first = [], 1
    for layer, run in groupby(layers):
        last = first + len(list(run)) - 1
        rows.append((str(first) if first == last else f"{first}–{last}", *(_shown(layer.get(key)) for key in keys)))
        first = last + 1
    return (
        "## Architecture\n\n"
        + _table(("", ""), [(key, _shown(value)) for key, value in whole])
        + "\n\nLayers, the first next to the embedding:\n\n"
        + _table(("layer", *keys), rows)
    )


def _training(facts: CardFacts) -> str:
    seeds = sorted({found.seed for found in facts.measurements})
    steps = sorted({found.step for found in facts.measurements})
    rows = [
        ("task", f"`{facts.task.name}`"),
        *((name, _option(value)) for name, value in facts.task.options),
        ("version of the data", f"`{facts.task.data_version}`" if facts.task.data_version else "–"),
        ("tokens", f"{facts.tokens:,}"),
        ("training FLOPs, by formula", format_count(facts.flops)),
        ("steps", ", ".join(f"{step:,}" for step in steps) or "–"),
        ("seed", ", ".join(map(str, seeds)) or "–"),
        *((name, f"{value:.6g}") for name, value in sorted(facts.training.items())),
    ]
    return "## Training\n\n" + _table(("", ""), rows)


def _quality(facts: CardFacts) -> str:
    known = task_spec(facts.task.name).metrics
    better = {name: "lower" if spec.direction == "minimize" else "higher" for name, spec in known.items()}
    ordered = sorted(
        facts.measurements, key=lambda found: (found.metric, found.split == "validation", -(found.context or 0))
    )
    rows = [
        (
            found.metric,
            found.split,
            _shown(found.context),
            f"{found.value:.5g}",
            _baseline(facts, found),
            found.unit or "–",
            better.get(found.metric, "–"),
        )
        for found in ordered
    ]
    return (
        "## Quality\n\n"
        + _table(("metric", "part", "context", "value", "trivial baseline", "unit", "better"), rows)
        + "\n\nThe validation part chose this network among others, so its figures flatter; the test part had no say. "
        "The trivial baseline is that of the test part, from a guesser that knows little more than frequencies."
    )


def _baseline(facts: CardFacts, found: Measurement) -> str:
    if found.split != "test" or found.metric not in facts.baselines:
        return "–"
    return f"{facts.baselines[found.metric]:.5g}"


def _memory(architecture: Architecture) -> str:
    costs = [estimate(architecture, dtype=dtype) for dtype in SERVING_DTYPES]
    rows = [
        (cost.dtype, *(_bytes(count) for count in (cost.param_bytes, cost.state_bytes, cost.serve_bytes)))
        for cost in costs
    ]
    return (
        "## Memory\n\n"
        f"With a state for {architecture.max_context} tokens of {costs[0].batch} sequence; recurrent state, if any, "
        f"in {RECURRENT_DTYPE}. Exact, without activations.\n\n"
        + _table(("weights and cache in", "param_bytes", "state_bytes", "serve_bytes"), rows)
    )


def _use(facts: CardFacts) -> str:
    python = [
        "from nas import load_bundle",
        "",
        'bundle = load_bundle("DIR")  # this folder; dtype="bf16" takes half the memory',
    ]
    if facts.classifies_text:
        python += ['bundle.classify("a text")  # the probability of each label']
        return "## Use\n\n" + _fenced("python", python) + "\n\n" + _fenced("sh", ['nas predict DIR "a text"'])
    if facts.architecture.head == "span":
        python += ['bundle.answer("a context", question="a question")']
        return (
            "## Use\n\n"
            + _fenced("python", python)
            + "\n\n"
            + _fenced("sh", ['nas predict DIR "a context" --question "a question"'])
        )
    if not facts.scores_text:
        python += ["bundle.model, bundle.architecture, bundle.metrics"]
        return "## Use\n\n" + _fenced("python", python)
    python += [
        'for piece in bundle.generate_text("prompt", max_new_tokens=100, temperature=0.8, seed=0):',
        '    print(piece, end="", flush=True)',
        'bundle.bits_per_byte("a text")',
    ]
    return "## Use\n\n" + _fenced("python", python) + "\n\n" + _fenced("sh", ['nas generate DIR "prompt"'])


def _limits(facts: CardFacts) -> str:
    longest = facts.architecture.max_context
    limits = [
        f"At most {longest} tokens at once, prompt and continuation together.",
        "It knows its training data alone: expect little on data of another kind.",
    ]
    if facts.scores_text:
        limits.append("It continues text and follows no instructions; what it says may be false or offensive.")
    if not any(found.split == "test" for found in facts.measurements):
        limits.append("It was not scored on the test part: its quality on new data is unknown.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _option(value: Any) -> str:
    return _shown(PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value)


def _bytes(count: int) -> str:
    return f"{count:,} ({format_bytes(count)})"


def _shown(value: Value | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def _fenced(language: str, lines: Sequence[str]) -> str:
    return "\n".join((f"```{language}", *lines, "```"))
