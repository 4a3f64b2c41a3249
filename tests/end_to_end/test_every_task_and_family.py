"""Every task runs with every family that serves it: searched, scored along the context, exported.

Which pairs of a task's variant and a family there are is asked of the specifications. A task of the catalog
without a line in VARIANTS, a family that a task serves and no variant does, and a metric that no variant
measures each fail a test here.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nas import Study, catalog, load_bundle
from nas.records import TaskReference
from nas.specs import family_spec, task_spec
from nas.specs.tasks import EFFECTIVE_CONTEXT, TEXT_OBJECTIVES
from nas.tasks import Task, load_task

TINY_LAYER = {"mixer": "full", "heads": 2, "mlp_ratio": 2}


@dataclass(frozen=True)
class Variant:
    """A task with some of its options.

    Attributes:
        name: what tells it apart from the task's others.
        options: beside where the data lies.
        max_context: of the candidates, in tokens.
    """

    name: str
    options: dict[str, Any]
    max_context: int = 32


TEXTS = {"evaluation_examples": 8}
# A task of the catalog is picked up here by one line. Tasks with a `data` or `corpus` get the generated files.
VARIANTS: dict[str, list[Variant]] = {
    "language_modeling": [
        *(Variant(name, {"objective": name, "evaluation_bytes": 256}) for name in TEXT_OBJECTIVES),
        Variant(
            "bpe", {"objective": "causal", "evaluation_bytes": 256, "tokenizer": {"kind": "bpe", "vocabulary": 300}}
        ),
    ],
    "classification": [
        Variant("auto", TEXTS),
        Variant("said", {**TEXTS, "form": "text_to_text", "too_long": "window"}),
        Variant("multi_label", {**TEXTS, "multi_label": True, "too_long": "head_tail"}),
    ],
    "translation": [Variant("auto", {"evaluation_examples": 4})],
    "question_answering": [
        Variant("auto", {"evaluation_examples": 4}),
        Variant("span", {"evaluation_examples": 8, "form": "span", "too_long": "window"}),
    ],
    "mad": [
        Variant(kind, {"kind": kind, "evaluation_examples": 8, "training_examples": 40, **options})
        for kind, options in {
            "in_context_recall": {"length": 32},
            "fuzzy_recall": {"length": 32},
            "noisy_recall": {"length": 32},
            "selective_copying": {"length": 32, "copied_tokens": 4},
            "compression": {"length": 16},
            "memorization": {"vocabulary": 20},
        }.items()
    ],
    "listops": [Variant("short", {"shortest": 8, "longest": 30, "training_examples": 60, "evaluation_examples": 8})],
    "recall": [
        Variant("one", {"vocabulary": 16, "length": 32, "pairs": 3, "evaluation_examples": 8, "contexts": [16, 32]}),
        Variant(
            "settings",
            {
                "vocabulary": 16,
                "train_settings": [[16, 2, 40], [32, 3, 40]],
                "test_settings": [[16, 2], [32, 3]],
                "evaluation_examples": 4,
            },
        ),
    ],
    "ruler": [
        Variant(
            "kinds",
            {
                "kinds": ["niah_single", "niah_multikey", "niah_multivalue", "niah_multiquery", "variable_tracking"],
                "needles": 2,
                "hops": 2,
                "length": 48,
                "evaluation_examples": 5,
            },
            max_context=48,
        ),
        Variant(
            "words",
            {
                "kinds": ["common_words", "frequent_words"],
                "common": 2,
                "common_times": 4,
                "other_times": 1,
                "length": 64,
                "evaluation_examples": 4,
            },
            max_context=64,
        ),
    ],
}
FEWEST_CONTEXT = {"infilling": 48, "span_corruption": 48}
"""Of objectives whose spans must fit."""


def options_for(task: str, variant: Variant, family: str) -> dict[str, Any] | None:
    """The options of a variant as a study with this family has them; None where it does not serve the family."""
    spec = task_spec(task)
    places = {key: "x" for key in ("data", "corpus") if key in spec.keys}
    options = spec.complete(spec.objective_for(family, {**places, **variant.options}))
    assert not list(spec.broken_rules(options)), (task, variant)
    return options if family in spec.families_for(options) else None


def cases() -> Iterator[Any]:
    for task, variants in VARIANTS.items():
        for variant in variants:
            for family in sorted(catalog.FAMILIES):
                if options_for(task, variant, family) is not None:
                    yield pytest.param(task, variant, family, id=f"{task}-{variant.name}-{family}")


def test_every_task_of_the_catalog_has_variants() -> None:
    assert set(VARIANTS) == set(catalog.TASKS)


@pytest.mark.parametrize("task", catalog.TASKS)
def test_every_family_and_every_metric_of_a_task_has_a_variant(task: str) -> None:
    spec = task_spec(task)
    assert spec.families <= set(catalog.FAMILIES)
    served, measured = set(), set()
    for variant in VARIANTS[task]:
        for family in catalog.FAMILIES:
            options = options_for(task, variant, family)
            if options is not None:
                served.add(family)
                measured.update(spec.measured(options))
    assert served == spec.families
    # Those of sizes in papers differ in nothing but the size.
    assert {name for name in spec.metrics if not re.search(r"_\d+x\d+$", name)} <= measured


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text and a table, drawn at random."""
    place = tmp_path_factory.mktemp("every")
    chosen = random.Random(0)
    words = ["".join(chosen.choices("abcdefgh", k=chosen.randint(2, 6))) for _ in range(40)]
    lines = (" ".join(chosen.choices(words, k=9)) + "\n" for _ in range(600))
    (place / "text.txt").write_text("".join(lines))
    rows = []
    for number in range(300):
        label = chosen.choice(["x", "y", "z"])
        text = " ".join(chosen.choices(words, k=chosen.randint(1, 12)))
        rows.append(
            {
                "text": f"{label} {text}",
                "label": label,
                "labels": [label, *chosen.sample("abc", k=chosen.randint(0, 2))],
                "source": text[:12] + str(number),
                "target": text[:12].upper(),
                "question": chosen.choice(["first?", "last?"]),
                "context": f"{number} {text}",
                "answers": [text.split()[0]] if chosen.random() < 0.9 else [],
            }
        )
    (place / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


def tiny_study(folder: Path, task: str, variant: Variant, family: str) -> Path:
    """One candidate of 16 features, 4 steps in two rungs."""
    spec, name = task_spec(task), f"{task}-{variant.name}-{family}"
    places = {key: str(folder / file) for key, file in (("data", "table.jsonl"), ("corpus", "text.txt"))}
    options = {**{key: place for key, place in places.items() if key in spec.keys}, **variant.options}
    completed = options_for(task, variant, family)
    assert completed is not None
    stacks: dict[str, Any] = {"depth": 1, "layers": TINY_LAYER}
    if family == "encoder_decoder":
        stacks = {"encoder": stacks, "decoder": stacks}
    context = max(variant.max_context, FEWEST_CONTEXT.get(str(completed.get("objective")), 0))
    memory = "serve_bytes" if family_spec(family).decodes else "prefill_peak_bytes"
    words = {
        "name": name,
        "space": {
            "name": "tiny",
            "family": family,
            "width": 16,
            "max_context": context,
            **stacks,
            "training": {"learning_rate": 1e-2},
        },
        "task": {"name": task, **options},
        "objectives": [next(iter(spec.measured(completed))), memory],
        "budget": {"tokens": 4 * 256, "rungs": 2, "tokens_per_step": 256},
        "trials": 1,
        "sampler": "random",
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(words))
    return path


def loaded(study: Study) -> Task:
    resolved = study.store.study(study.name).resolved
    options = {key: value for key, value in resolved["task"].items() if key != "name"}
    version = resolved["data_version"]
    name = resolved["task"]["name"]
    return load_task(TaskReference(name=name, options=tuple(sorted(options.items())), data_version=version))


@pytest.mark.parametrize(("task", "variant", "family"), list(cases()))
def test_a_tiny_study_is_searched_scored_and_exported(folder: Path, task: str, variant: Variant, family: str) -> None:
    with Study.load(tiny_study(folder, task, variant, family), store=f"sqlite:///{folder}/nas.db") as study:
        study.run()
        trial = study.trial(0)
        assert trial.state == "complete", trial.reason
        made = loaded(study)
        options = dict(study.store.study(study.name).resolved["task"])
        metrics = set(made.spec.measured(options))
        context = trial.candidate.architecture.max_context
        named = options.get("contexts")
        contexts = {context, *(named or made.curve_contexts(context))}
        curve = {(EFFECTIVE_CONTEXT, None)} if named else set()
        expected = {(metric, place) for metric in metrics for place in contexts} | curve
        study.export(trial, folder / f"{study.name}-out")
        objectives = study.store.study(study.name).objectives
        frame = study.store.measurements(study.store.study(study.name), trial.number)

    baseline = made.baseline("validation")
    assert set(baseline) == metrics and objectives[0].reference == pytest.approx(baseline[objectives[0].name])
    last = frame[frame["step"] == trial.step].astype({"context": object}).where(lambda found: found.notna(), None)
    for split in ("validation", "test"):
        rows = last[last["split"] == split]
        assert set(zip(rows["metric"], rows["context"], strict=True)) == expected
    assert all(map(math.isfinite, frame["value"]))
    # The test part is scored when a candidate leaves, and never before; the first rung knows its own context alone.
    assert set(frame[frame["split"] == "test"]["step"]) == {trial.step}
    first = frame[frame["step"] < trial.step]
    assert set(first["metric"]) == metrics and set(first["context"]) == {context}

    bundle = load_bundle(folder / f"{study.name}-out")
    assert bundle.architecture == trial.candidate.architecture
    kept = {(row["metric"], row["context"], row["split"]) for row in bundle.metrics["measurements"]}
    assert kept == {(metric, place, split) for metric, place in expected for split in ("validation", "test")}
    values = bundle.metrics["trivial_baseline"]["values"]
    assert set(values) == metrics and all(map(math.isfinite, values.values()))
