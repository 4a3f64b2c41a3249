import re
from dataclasses import replace

import pytest

from nas.cost.estimate import estimate
from nas.export.bundle import write_bundle
from nas.export.card import CardFacts, model_card
from nas.models.build import build
from nas.records import Measurement, TaskReference
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape
from nas.tasks.tokenizers import ByteTokenizer

WINDOW = {"mixer": "sliding_window", "heads": 4, "kv_heads": 2, "window": 16, "mlp_ratio": 2}
ARCHITECTURE = Architecture.from_mapping(
    {
        "family": "decoder",
        "width": 32,
        "max_context": 64,
        "layers": [WINDOW, WINDOW, {"mixer": "full", "heads": 4, "mlp": "none"}],
    }
).bind(TaskShape(vocabulary=257, head="causal_lm"))


def measured(metric: str, value: float, split, context: int = 64, unit: str = "bit/byte") -> Measurement:
    return Measurement(metric=metric, value=value, unit=unit, step=195, context=context, split=split, seed=3)


FACTS = CardFacts(
    study="quickstart",
    trial=7,
    fingerprint=ARCHITECTURE.fingerprint,
    architecture=ARCHITECTURE,
    training={"learning_rate": 0.00375},
    task=TaskReference(
        name="language_modeling",
        options=(("corpus", "/home/someone/private/novel.txt"), ("evaluation_bytes", 32_768)),
        data_version="0123456789abcdef",
    ),
    tokens=400_000,
    flops=1.25e12,
    measurements=(
        measured("bits_per_byte", 2.71, "validation"),
        measured("bits_per_byte", 2.83, "test"),
        measured("bits_per_byte", 2.95, "test", context=32),
        measured("token_accuracy", 0.41, "test", unit=""),
    ),
    baselines={"bits_per_byte": 3.42, "token_accuracy": 0.27},
    versions={"torch": "2.13.0", "python": "3.13.1"},
)


def rows(card: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in card.splitlines() if line[:1] == "|"]


def test_the_card_names_trial_data_budget_and_versions():
    card = model_card(FACTS)
    assert card.startswith("# quickstart, trial 7\n")
    assert ARCHITECTURE.fingerprint in card
    for row in (
        ["corpus", "novel.txt"],
        ["version of the data", "`0123456789abcdef`"],
        ["tokens", "400,000"],
        ["training FLOPs, by formula", "1.25T"],
        ["steps", "195"],
        ["seed", "3"],
        ["learning_rate", "0.00375"],
        ["torch", "2.13.0"],
    ):
        assert row in rows(card)


def test_the_card_keeps_paths_of_the_machine_to_itself():
    assert "/home/someone" not in model_card(FACTS)


def test_the_card_shows_both_parts_and_the_baseline_of_the_test_part():
    table = rows(model_card(FACTS))
    assert ["bits_per_byte", "test", "64", "2.83", "3.42", "bit/byte", "lower"] in table
    assert ["bits_per_byte", "test", "32", "2.95", "3.42", "bit/byte", "lower"] in table
    assert ["bits_per_byte", "validation", "64", "2.71", "–", "bit/byte", "lower"] in table
    assert ["token_accuracy", "test", "64", "0.41", "0.27", "–", "higher"] in table


def test_the_card_shows_every_layer_and_joins_equal_ones():
    table = rows(model_card(FACTS))
    head = next(row for row in table if row[0] == "layer")
    first, second = (dict(zip(head, row, strict=True)) for row in table if len(row) == len(head) and row[0] in "1–23")
    assert (first["layer"], first["mixer"], first["window"], first["mlp_hidden"]) == (
        "1–2",
        "sliding_window",
        "16",
        "64",
    )
    assert (second["layer"], second["mixer"], second["window"], second["mlp"]) == ("3", "full", "–", "none")


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_card_shows_exact_memory_with_its_conventions(dtype):
    card = model_card(FACTS)
    cost = estimate(ARCHITECTURE, dtype=dtype)
    (row,) = (row for row in rows(card) if row[0] == dtype)
    assert [cell.split(" (")[0] for cell in row[1:]] == [
        f"{count:,}" for count in (cost.param_bytes, cost.state_bytes, cost.serve_bytes)
    ]
    assert "64 tokens of 1 sequence" in card


def test_every_table_of_the_card_is_rectangular():
    facts = replace(FACTS, task=replace(FACTS.task, options=(("corpus", "/a/odd|name.txt"),)))
    card = model_card(facts)
    for block in re.findall(r"(?:^\|.*\n?)+", card, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}) == 1


def test_the_python_of_the_card_runs(tmp_path, capsys, monkeypatch):
    card = model_card(FACTS)
    write_bundle(
        tmp_path / "DIR",
        architecture=ARCHITECTURE,
        weights=build(ARCHITECTURE, seed=0).state_dict(),
        tokenizer=ByteTokenizer(),
        metrics={},
        card=card,
    )
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out
    assert 'nas generate DIR "prompt"' in card


def test_a_classifier_is_shown_how_to_classify():
    facts = replace(
        FACTS,
        task=TaskReference(name="classification"),
        measurements=(measured("accuracy", 0.9, "validation", unit=""),),
        baselines={"accuracy": 0.5},
    )
    card = model_card(facts)
    assert "generate" not in card
    assert "bundle.classify(" in card and "nas predict DIR" in card


def test_a_network_without_text_is_not_told_to_generate():
    facts = replace(
        FACTS,
        task=TaskReference(name="recall"),
        measurements=(measured("recall_accuracy", 0.9, "validation", unit=""),),
        baselines={"recall_accuracy": 0.01},
    )
    card = model_card(facts)
    assert "generate" not in card
    assert "bundle.model" in card
    assert "not scored on the test part" in card
