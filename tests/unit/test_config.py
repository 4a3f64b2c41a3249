"""The study file: its rules, its resolved form, and settings of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nas.config import StudyConfig, changed_keys, config_from_resolved, load_study_config
from nas.errors import InputError
from nas.space.load import shipped_folder

SPACE = """\
name: test
family: decoder
width: {choice: [32, 64]}
depth: {range: [1, 3]}
max_context: {choice: [64, 128]}
layers:
  mixer: full
  heads: {choice: [2, 4]}
constraints:
  - serve_bytes <= 4 MiB
"""

LINES = {
    "name": "name: mine",
    "space": "space: space.yaml",
    "task": "task: {name: recall, length: 64, pairs: 4}",
    "objectives": "objectives: [recall_accuracy, serve_bytes]",
    "budget": "budget: {tokens: 40_960, rungs: 3, tokens_per_step: 1024}",
    "trials": "trials: 8",
    "sampler": "sampler: {name: nsga2, population: 8}",
    "seed": "seed: 3",
    "trainer": "trainer: {precision: auto}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def load(folder: Path, settings: dict[str, str] | None = None, **changed: str) -> StudyConfig:
    """The study with some lines written otherwise ("" leaves one out)."""
    path = folder / "study.yaml"
    path.write_text("\n".join(line for line in {**LINES, **changed}.values() if line))
    return load_study_config(path, settings)


def refusal(folder: Path, settings: dict[str, str] | None = None, **changed: str) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, settings, **changed)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert "pydantic" not in text
    return text.replace(f"{folder}/", "")


def test_a_study_says_what_its_file_says(folder: Path) -> None:
    config = load(folder)
    assert (config.name, config.trials, config.seed) == ("mine", 8, 3)
    assert config.space.size == 2 * 3 * 2 * 2
    assert dict(config.task.options)["length"] == 64
    assert dict(config.task.options)["vocabulary"] == 128, "defaults are filled in"
    assert [objective.name for objective in config.objectives] == ["recall_accuracy", "serve_bytes"]
    assert (config.sampler.name, config.sampler.population) == ("nsga2", 8)
    assert config.trainer == (("precision", "auto"),)


def test_what_may_be_left_out_has_a_default(folder: Path) -> None:
    config = load(folder, sampler="", seed="", trainer="", budget="budget: {tokens: 1e6}")
    assert (config.sampler.name, config.seed, config.trainer) == ("frontier", 0, ())
    assert config.budget.tokens == 1_000_000
    assert (config.budget.rungs, config.budget.tokens_per_step) == (1, 4096)


# The space


def test_the_space_may_be_written_in_the_study(folder: Path) -> None:
    inside = "space:\n" + "".join(f"  {line}\n" for line in SPACE.splitlines())
    assert load(folder, space=inside).space == load(folder).space
    broken = inside.replace("heads", "headss")
    assert refusal(folder, space=broken).startswith("study.yaml:10: unknown key 'layers.headss'")
    broken = inside.replace("  name: test\n", "")
    assert refusal(folder, space=broken) == "study.yaml:2: 'name' is missing"


def test_the_space_is_found_beside_the_study_then_in_the_working_directory_then_among_the_shipped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = folder / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    assert load(folder).space.name == "test"
    (work / "other.yaml").write_text(SPACE.replace("name: test", "name: other"))
    assert load(folder, space="space: other.yaml").space.name == "other"
    (work / "space.yaml").write_text(SPACE.replace("name: test", "name: farther"))
    assert load(folder).space.name == "test"
    larger = "budget: {tokens: 1e6, tokens_per_step: 4096}"
    assert load(folder, space="space: hybrid_decoder", budget=larger).space.name == "hybrid_decoder"
    assert load(folder, space="space: search_spaces/hybrid_decoder.yaml", budget=larger).space.name == "hybrid_decoder"


def test_a_study_may_bear_the_name_of_the_shipped_space_that_it_searches(folder: Path) -> None:
    larger = "budget: {tokens: 1e6, tokens_per_step: 4096}"
    load(folder, space="space: decoder", budget=larger)
    (folder / "decoder.yaml").write_text((folder / "study.yaml").read_text())
    assert load(folder, space="space: decoder", budget=larger).space.name == "decoder"


def test_a_missing_space_names_the_nearest(folder: Path) -> None:
    text = refusal(folder, space="space: hybrid_decodr")
    assert text == "study.yaml:2: space: no file 'hybrid_decodr': did you mean 'hybrid_decoder'?"


def test_an_override_takes_the_place_of_words_of_the_space(folder: Path) -> None:
    override = (
        "override:\n  width: 96\n  layers:\n    heads: {choice: [3], per: layer}\n    short_conv: 3\n  constraints: []"
    )
    space = load(folder, space=f"{LINES['space']}\n{override}").space
    architecture = space.sample(0)
    assert (architecture.width, architecture.layers[0].heads, architecture.layers[0].short_conv) == (96, 3, 3)
    assert space.constraints == ()
    assert space.globals["max_context"] == load(folder).space.globals["max_context"]


def test_an_override_of_one_draw_replaces_it_whole(folder: Path) -> None:
    space = load(folder, space=f"{LINES['space']}\noverride: {{width: {{range: [32, 96], step: 32}}}}").space
    assert space.globals["width"].domain.grid == (32, 64, 96)


def test_an_error_in_an_override_stands_in_the_study_and_others_in_the_space(folder: Path) -> None:
    text = refusal(folder, space=f"{LINES['space']}\noverride:\n  layers:\n    headss: 2")
    assert text.startswith("study.yaml:5: unknown key 'layers.headss'")
    (folder / "space.yaml").write_text(SPACE.replace("heads", "headss"))
    assert refusal(folder).startswith("space.yaml:8: unknown key 'layers.headss'")
    assert refusal(folder, space=f"{LINES['space']}\noverride: {{width: 32}}").startswith("space.yaml:8: unknown key")


def test_constraints_of_the_study_join_those_of_the_space(folder: Path) -> None:
    config = load(folder, trials="trials: 8\nconstraints:\n  - depth <= 2")
    assert [rule.text for rule in config.space.constraints] == ["serve_bytes <= 4 MiB", "depth <= 2"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("serve_byts <= 3", "study.yaml:8: unknown name 'serve_byts': did you mean 'serve_bytes'?"),
        ("count(mixer=ful) <= 3", "study.yaml:8: no layer has mixer 'ful': did you mean 'full'?"),
        ("serve_bytes@context=0 <= 3", "study.yaml:8: context must be a whole number of at least 1, not '0'"),
    ],
)
def test_a_constraint_of_the_study_is_checked_like_one_of_the_space(folder: Path, rule: str, words: str) -> None:
    assert refusal(folder, trials=f"trials: 8\nconstraints:\n  - {rule}").startswith(words)


# The task


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("task: recal", "study.yaml:3: unknown task 'recal': did you mean 'recall'?"),
        ("task: {name: recal}", "study.yaml:3: unknown task 'recal'"),
        (
            "task: {length: 64}",
            "study.yaml:3: task: 'name' is missing: valid: classification, language_modeling, ",
        ),
        ("task: {name: recall, lenght: 64}", "study.yaml:3: task 'recall' takes no 'lenght': did you mean 'length'?"),
        ("task: {name: recall, length: many}", "study.yaml:3: length must be an integer, not 'many'"),
        ("task: {name: recall, length: 2}", "study.yaml:3: length must be at least 4, not 2"),
        (
            "task: {name: recall, length: 64, pairs: 20}",
            "study.yaml:3: length must be at least 4 x pairs = 80, not 64: nearest 80",
        ),
        ("task: language_modeling", "study.yaml:3: task 'language_modeling' needs 'corpus'"),
        ("task: 3", "study.yaml:3: task must be text or a mapping, not 3"),
        ("", "study.yaml: 'task' is missing"),
    ],
)
def test_a_task_and_its_options_are_checked(folder: Path, line: str, words: str) -> None:
    assert refusal(folder, task=line).startswith(words)


def test_a_task_that_does_not_serve_the_family_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "own_task.py").write_text(
        "from nas.specs.tasks import Recall\n\nclass Mine(Recall):\n    families = frozenset({'encoder'})\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    text = refusal(folder, task="task: 'own_task:Mine'")
    assert text == "study.yaml:3: task 'own_task:Mine' does not serve family 'decoder': encoder"


@pytest.mark.parametrize(
    ("task", "family", "served"),
    [
        ("{name: classification, data: a, form: text_to_text}", "encoder", "decoder, encoder_decoder, prefix_lm"),
        ("{name: classification, data: a, form: head}", "prefix_lm", "decoder, encoder"),
        ("{name: classification, data: a, form: seq2seq}", "decoder", "encoder_decoder"),
        ("{name: translation, data: a}", "encoder", "decoder, encoder_decoder, prefix_lm"),
    ],
)
def test_a_form_that_does_not_serve_the_family_names_those_that_it_serves(
    folder: Path, task: str, family: str, served: str
) -> None:
    (folder / "space.yaml").write_text(
        SPACE.partition("constraints")[0].replace("family: decoder", f"family: {family}")
    )
    text = refusal(folder, task=f"task: {task}")
    assert text.endswith(f"does not serve family '{family}': {served}")


def test_a_corpus_is_a_path_beside_the_study_then_in_the_working_directory_or_a_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = folder / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def corpus(name: str) -> str:
        objectives = "objectives: [bits_per_byte, serve_bytes]"
        config = load(folder, task=f"task: {{name: language_modeling, corpus: {name}}}", objectives=objectives)
        return str(dict(config.task.options)["corpus"])

    assert corpus("sotu") == "sotu"
    (work / "mine.txt").write_text("far")
    assert corpus("mine.txt") == str(work / "mine.txt")
    (folder / "mine.txt").write_text("near")
    assert corpus("mine.txt") == str(folder / "mine.txt")
    with pytest.raises(InputError, match="corpus must not be empty"):
        corpus("''")


# Objectives


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("objectives: [recall_accuracy]", "study.yaml:4: objectives must hold at least 2 values, not 1"),
        ("objectives: []", "study.yaml:4: objectives must not be empty"),
        ("objectives: recall_accuracy", "study.yaml:4: objectives must be a list, not 'recall_accuracy'"),
        ("objectives: [recall_accuracy, 3]", "study.yaml:4: objectives[1] must be text or a mapping, not 3"),
        (
            "objectives: [recall_accuracy, {nme: x}]",
            "study.yaml:4: unknown key 'objectives[1].nme': did you mean 'name'?",
        ),
        ("objectives: [recall_accuracy, {limit: 3}]", "study.yaml:4: 'objectives[1].name' is missing"),
        (
            "objectives: [recall_acuracy, serve_bytes]",
            "study.yaml:4: unknown objective 'recall_acuracy': did you mean 'recall_accuracy'?",
        ),
        ("objectives: [bits_per_byte, serve_bytes]", "study.yaml:4: unknown objective 'bits_per_byte'"),
        (
            "objectives: [serve_bytes, param_bytes]",
            "study.yaml:4: at least one objective must be measured: recall_accuracy, recall_loss",
        ),
        ("objectives: [recall_loss, serve_bytes, recall_loss]", "study.yaml:4: objective 'recall_loss' is given twice"),
        (
            "objectives:\n  - recall_loss\n  - {name: serve_bytes, direction: maximize}",
            "study.yaml:6: objective 'serve_bytes' is one to minimize, not to maximize: leave the direction out",
        ),
        (
            "objectives:\n  - recall_loss\n  - serve_bytes@context=0",
            "study.yaml:6: context must be a whole number of at least 1, not '0'",
        ),
        ("objectives: [recall_loss, serve_bytes@dtype=int4]", "study.yaml:4: unknown dtype 'int4'"),
        (
            "objectives: [recall_loss, {name: serve_bytes, limit: 4 mib}]",
            "study.yaml:4: limit of 'serve_bytes': unknown unit 'mib'",
        ),
        (
            "objectives: [recall_loss, {name: depth, limit: 4 MiB}]",
            "study.yaml:4: limit of 'depth': '4 MiB' has a unit",
        ),
        ("objectives: [recall_loss, {name: depth, limit: .nan}]", "study.yaml:4:"),
        (
            "objectives: [serve_bytes, {name: recall_loss, limit: 2}]",
            "study.yaml:4: a limit is checked before training, so it needs a known objective; 'recall_loss' is",
        ),
    ],
)
def test_objectives_are_two_or_more_that_exist_and_one_is_measured(folder: Path, line: str, words: str) -> None:
    assert refusal(folder, objectives=line).startswith(words)


def test_a_limit_has_units_of_bytes_where_the_objective_has(folder: Path) -> None:
    line = "objectives: [recall_accuracy, {name: depth, limit: 2}, {name: serve_bytes@context=4096, limit: 2 MiB}]"
    assert [objective.limit for objective in load(folder, objectives=line).objectives] == [None, 2, 2 * 2**20]


# Budget


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("budget: {}", "study.yaml:5: budget: give exactly one of tokens, bytes, flops"),
        ("budget: {tokens: 1e6, flops: 1e9}", "study.yaml:5: budget: give exactly one of tokens, bytes, flops"),
        ("budget: 3", "study.yaml:5: budget must be a mapping, not 3"),
        ("budget: {tokns: 3}", "study.yaml:5: unknown key 'budget.tokns': did you mean 'tokens'?"),
        ("budget: {tokens: 0}", "study.yaml:5: budget.tokens must be at least 1, not 0"),
        ("budget: {tokens: 0.5}", "study.yaml:5: budget.tokens must be a whole number, not 0.5"),
        ("budget: {tokens: many}", "study.yaml:5: budget.tokens must be a whole number, not 'many'"),
        ("budget: {tokens: 1e6, rungs: 0}", "study.yaml:5: budget.rungs must be at least 1, not 0"),
        (
            "budget: {tokens: 1e6, tokens_per_step: 100}",
            "study.yaml:5: tokens_per_step must hold a whole context: 100 is below the max_context of 128",
        ),
        (
            "budget: {tokens: 2048, rungs: 3, tokens_per_step: 1024}",
            "study.yaml:5: the budget holds 2 steps of 1024 tokens, too few for 3 rungs: "
            "it needs 3 steps, 3,072 tokens",
        ),
        ("budget: {tokens: 1000, tokens_per_step: 1024}", "study.yaml:5: the budget holds 0 steps"),
    ],
)
def test_a_budget_is_one_quantity_that_fills_its_rungs(folder: Path, line: str, words: str) -> None:
    assert refusal(folder, budget=line).startswith(words)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ("{tokens: 40_960, rungs: 1, tokens_per_step: 1024}", (40,)),
        ("{tokens: 40_960, rungs: 3, tokens_per_step: 1024}", (10, 20, 40)),
        ("{bytes: 40_960, rungs: 3, tokens_per_step: 1024}", (10, 20, 40)),
        ("{tokens: 41_000, rungs: 3, rung_ratio: 3, tokens_per_step: 1024}", (5, 14, 40)),
        ("{tokens: 3072, rungs: 3, tokens_per_step: 1024}", (1, 2, 3)),
        ("{flops: 1000, rungs: 2, tokens_per_step: 1024}", (5, 10)),
    ],
)
def test_rungs_divide_the_budget_by_their_ratio(folder: Path, budget: str, steps: tuple[int, ...]) -> None:
    schedule = load(folder, budget=f"budget: {budget}").schedule(flops_per_step=100.0)
    assert schedule.rung_steps == steps
    assert schedule.tokens_per_step == 1024


def test_a_budget_of_flops_is_too_small_for_a_candidate_that_costs_more(folder: Path) -> None:
    config = load(folder, budget="budget: {flops: 1e6, rungs: 2}")
    assert config.schedule(flops_per_step=1e3).total_steps == 1000
    with pytest.raises(InputError, match="the budget holds 1 steps"):
        config.schedule(flops_per_step=1e6)


# Sampler, trainer and the rest


@pytest.mark.parametrize(
    ("key", "line", "words"),
    [
        ("sampler", "sampler: nsga3", "study.yaml:7: unknown sampler 'nsga3': did you mean 'nsga2'?"),
        (
            "sampler",
            "sampler: {name: nsga2, populaton: 8}",
            "study.yaml:7: unknown key 'sampler.populaton': did you mean 'population'?",
        ),
        ("sampler", "sampler: {population: 8}", "study.yaml:7: 'sampler.name' is missing"),
        (
            "sampler",
            "sampler: {name: nsga2, population: 1}",
            "study.yaml:7: sampler.population must be at least 2, not 1",
        ),
        ("sampler", "sampler: 3", "study.yaml:7: sampler must be text or a mapping, not 3"),
        ("trials", "trials: 0", "study.yaml:6: trials must be at least 1, not 0"),
        ("trials", "trails: 8", "study.yaml:6: unknown key 'trails': did you mean 'trials'?"),
        ("name", "name: ''", "study.yaml:1: name must not be empty"),
        ("name", "name: 2024", "study.yaml:1: name must be text, not 2024"),
        ("seed", "seed: -1", "study.yaml:8: seed must be at least 0, not -1"),
        (
            "trainer",
            "trainer: {max_epochs: 3}",
            "study.yaml:9: trainer.max_epochs is set by the study; say it in budget",
        ),
        (
            "trainer",
            "trainer: {precison: auto}",
            "study.yaml:9: trainer passes no 'precison' to lightning.Trainer: did you mean 'precision'?",
        ),
    ],
)
def test_an_unknown_name_or_a_wrong_value_is_refused_where_it_stands(
    folder: Path, key: str, line: str, words: str
) -> None:
    assert refusal(folder, **{key: line}).startswith(words)


@pytest.mark.parametrize("devices", ["2", "-1", "[0, 1]", "[]", "'2'", "true", "0", "'-1'"])
def test_a_candidate_trains_on_one_device(folder: Path, devices: str) -> None:
    text = refusal(folder, trainer=f"trainer:\n  devices: {devices}")
    assert text.startswith("study.yaml:10: trainer.devices must be 1, auto or the list of one index, not ")
    assert text.endswith("a candidate trains on one device, and --workers trains several candidates at once")


@pytest.mark.parametrize("devices", ["1", "auto", "[3]"])
def test_one_device_may_be_named(folder: Path, devices: str) -> None:
    assert "devices" in dict(load(folder, trainer=f"trainer: {{devices: {devices}}}").trainer)


# The resolved form


def test_the_resolved_study_is_plain_and_gives_the_same_study_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(
        folder,
        space=f"{LINES['space']}\noverride: {{layers: {{short_conv: 3}}}}",
        trials="trials: 8\nconstraints: [depth <= 2]",
        objectives="objectives: [recall_accuracy, {name: serve_bytes@context=64, limit: 2 MiB}]",
    )
    stored = json.loads(json.dumps(config.resolved))
    assert stored == config.resolved
    (folder / "space.yaml").unlink()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    again = config_from_resolved(stored)
    assert again == config
    assert changed_keys(config.resolved, again.resolved) == []


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({}, []),
        ({"trials": "trials: 100"}, []),
        ({"trials": "stop: {tokens: 1e9, hypervolume: {patience: 5}}"}, []),
        ({"trials": "trials: 8\ntime_limit: 10m"}, []),
        ({"seed": "seed: 4"}, ["seed"]),
        ({"budget": "budget: {tokens: 81_920, rungs: 2, tokens_per_step: 1024}"}, ["budget.rungs", "budget.tokens"]),
        ({"task": "task: {name: recall, length: 32, pairs: 4}"}, ["task.length"]),
        ({"trainer": ""}, ["trainer.precision"]),
        ({"trainer": "trainer: {precision: auto, deterministic: true}"}, ["trainer.deterministic"]),
        ({"objectives": "objectives: [recall_loss, serve_bytes]"}, ["objectives"]),
        (
            {"space": "space: space.yaml\noverride: {width: 32, layers: {heads: 2}}"},
            ["space.layers.heads", "space.layers.heads.choice", "space.width", "space.width.choice"],
        ),
    ],
)
def test_only_what_differs_and_may_not_is_a_changed_key(folder: Path, change: dict[str, str], keys: list[str]) -> None:
    before, after = load(folder).resolved, load(folder, **change).resolved
    assert changed_keys(before, after) == keys
    assert changed_keys(after, before) == keys


def test_what_is_left_out_and_its_default_are_one_study(folder: Path) -> None:
    before = load(
        folder,
        sampler="sampler: frontier",
        seed="seed: 0",
        task="task: {name: recall, length: 64, pairs: 4, filler: zero}",
    )
    after = load(folder, sampler="", seed="")
    assert changed_keys(before.resolved, after.resolved) == []


# Settings


def test_settings_take_the_place_of_the_files_words(folder: Path) -> None:
    settings = {
        "trials": "3",
        "budget.rungs": "2",
        "task.length": "32",
        "override.training.learning_rate": "1e-3",
        "objectives": "[recall_loss, param_bytes]",
    }
    config = load(folder, settings)
    assert (config.trials, config.budget.rungs, dict(config.task.options)["length"]) == (3, 2, 32)
    assert config.space.training["learning_rate"].fixed == 1e-3
    assert [objective.name for objective in config.objectives] == ["recall_loss", "param_bytes"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trials": "-3"}, "--set trials=-3: trials must be at least 1, not -3"),
        ({"trails": "3"}, "--set trails=3: unknown key 'trails': did you mean 'trials'?"),
        ({"budget.rungs": "no"}, "--set budget.rungs=no: budget.rungs must be a whole number, not False"),
        (
            {"objectives": "[recall_loss, serve_byts]"},
            "--set objectives=[recall_loss, serve_byts]: unknown objective 'serve_byts'",
        ),
        ({"trials.deeper": "3"}, "--set trials.deeper: 'trials' holds no keys"),
        ({"trials": "[1"}, "--set trials: '[1' is not a YAML value"),
    ],
)
def test_a_setting_that_breaks_a_rule_is_named(folder: Path, settings: dict[str, Any], words: str) -> None:
    assert refusal(folder, settings).startswith(words)


# Files


def test_shipped_studies_load_by_name_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = sorted(shipped_folder("studies").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert load_study_config(path.stem).name == path.stem
        assert load_study_config(f"studies/{path.name}") == load_study_config(path)


def test_a_missing_study_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no file 'quikstart': did you mean 'quickstart'\?"):
        load_study_config("quikstart")


def test_the_memory_of_the_device_is_a_constraint_on_a_training_step(folder: Path) -> None:
    config = load(folder, device="device_memory: 1 GiB\ndevice_reserve: 24 MiB")
    rule = config.space.constraints[-1]
    assert rule.limit == 1000 * 2**20
    assert rule.text.startswith(
        "train_peak_bytes of 1024 tokens <= 1048576000 B (device_memory 1 GiB, 24 MiB kept free"
    )
    assert load(folder, device="device_memory: 1 GiB").space.constraints[-1].limit == 0.9 * 2**30


def test_what_is_left_to_the_device_is_no_constraint_yet(folder: Path) -> None:
    config = load(folder, device="device_memory: auto")
    assert config.device is not None and config.device.bytes is None
    assert config.space.constraints == load(folder).space.constraints
    assert load(folder).device is None


def test_another_device_may_go_on_with_a_study(folder: Path) -> None:
    before = load(folder).resolved
    assert "device_memory" not in before
    for words in ("device_memory: auto", "device_memory: 2 GiB\ndevice_reserve: 5%"):
        config = load(folder, device=words)
        assert changed_keys(before, config.resolved) == []
        again = config_from_resolved(json.loads(json.dumps(config.resolved)))
        assert (again.device, again.space.constraints) == (config.device, config.space.constraints)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("device_memory: 8 mb", "study.yaml:10: device_memory must be 'auto' or bytes"),
        ("device_memory: 0", "above 0 bytes"),
        ("device_memory: automatic", "'auto' or bytes, such as '8 GiB'"),
        ("device_memory: auto\ndevice_reserve: 100%", "below 100%"),
        ("device_reserve: 10%", "study.yaml:10: device_reserve is of device_memory: give auto or bytes"),
        ("device_memry: auto", "did you mean 'device_memory'?"),
    ],
)
def test_words_of_the_device_that_mean_nothing_are_refused(folder: Path, words: str, message: str) -> None:
    assert message in refusal(folder, device=words)


@pytest.mark.parametrize("limit", ["0 MiB", "-4 MiB", "4 mb"])
def test_a_limit_in_bytes_is_above_nothing_and_has_a_unit_that_exists(folder: Path, limit: str) -> None:
    text = refusal(folder, objectives=f"objectives: [recall_accuracy, {{name: serve_bytes, limit: {limit}}}]")
    assert "above 0 bytes" in text or "did you mean 'MB' (1,000,000 bytes) or 'MiB' (1,048,576)?" in text


def test_a_memory_limit_is_bytes_and_may_change_when_a_study_goes_on(folder: Path) -> None:
    plain = load(folder)
    assert plain.memory_limit is None and "memory_limit" not in plain.resolved
    limited = load(folder, memory_limit="memory_limit: 2 GiB")
    assert limited.memory_limit == limited.resolved["memory_limit"] == 2 * 2**30
    assert load(folder, {"memory_limit": "2GiB"}).memory_limit == 2 * 2**30
    assert config_from_resolved(json.loads(json.dumps(limited.resolved))).memory_limit == 2 * 2**30
    assert changed_keys(plain.resolved, limited.resolved) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [("2 GIB", "did you mean 'GiB'"), ("8", "write a unit, such as '2 GiB'"), ("-1 GiB", "at least")],
)
def test_a_memory_limit_that_means_nothing_is_refused_with_its_line(folder: Path, value: str, words: str) -> None:
    with pytest.raises(InputError, match="memory_limit") as refused:
        load(folder, memory_limit=f"memory_limit: {value}")
    assert words in str(refused.value) and "study.yaml:10" in str(refused.value)


def test_early_stopping_is_off_unless_asked_for_and_part_of_what_makes_the_study(folder: Path) -> None:
    plain = load(folder)
    assert plain.early_stopping is None and "early_stopping" not in plain.resolved
    assert load(folder, early_stopping="early_stopping: false").resolved == plain.resolved
    asked = load(folder, early_stopping="early_stopping: true")
    assert asked.resolved["early_stopping"] == {"margin": 1.0, "audit": 0.05}
    assert load(folder, early_stopping="early_stopping: {audit: 0.05}").resolved == asked.resolved
    assert config_from_resolved(json.loads(json.dumps(asked.resolved))).early_stopping == asked.early_stopping
    assert changed_keys(plain.resolved, asked.resolved) == ["early_stopping.audit", "early_stopping.margin"]


@pytest.mark.parametrize(
    ("value", "words"),
    [("{audit: 2}", "audit"), ("{margin: 0}", "margin"), ("{margn: 1}", "margn"), ("soon", "early_stopping")],
)
def test_early_stopping_that_means_nothing_is_refused(folder: Path, value: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(folder, early_stopping=f"early_stopping: {value}")


def test_early_stopping_needs_a_rung_before_the_last(folder: Path) -> None:
    with pytest.raises(InputError, match=r"early_stopping.*budget\.rungs must be at least 2, not 1"):
        load(folder, {"budget.rungs": "1"}, early_stopping="early_stopping: true")


def test_confirm_is_off_unless_asked_for_and_may_change(folder: Path) -> None:
    plain = load(folder)
    assert plain.confirm is None and "confirm" not in plain.resolved
    assert load(folder, confirm="confirm: false").resolved == plain.resolved
    few = load(folder, confirm="confirm: 2")
    assert few.confirm is not None and (few.confirm.seeds, few.confirm.factor) == (2, 1.0)
    assert few.resolved["confirm"] == {"seeds": 2, "budget": "1x"}
    assert load(folder, confirm="confirm: true").resolved["confirm"] == {"seeds": 3, "budget": "1x"}
    large = load(folder, confirm="confirm: {budget: 8x, seeds: 1}")
    assert large.confirm is not None and large.confirm.factor == 8.0
    assert large.resolved["confirm"] == {"seeds": 1, "budget": "8x", "dominated": 8}
    for asked in (few, large):
        assert config_from_resolved(json.loads(json.dumps(asked.resolved))).resolved == asked.resolved
        assert changed_keys(plain.resolved, asked.resolved) == changed_keys(asked.resolved, plain.resolved) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0", r"confirm must be at least 1 further seed, not 0"),
        ("-2", r"at least 1 further seed, not -2"),
        ("many", r"confirm must be .*a whole number"),
        ("{seeds: 0}", r"confirm\.seeds must be at least 1, not 0"),
        ("{seed: 3}", r"unknown key 'confirm\.seed'.*seeds"),
        ("{budget: 0.5x}", r"confirm\.budget: a multiple must be at least 1x and finite, not '0\.5x'"),
        ("{budget: 8 MiB}", r"confirm\.budget: '8 MiB' is no multiple: write a number and an x, such as '8x'"),
        ("{budget: 2_000_000}", r"confirm\.budget: '2000000' is no multiple"),
        ("{seeds: 3, dominated: 4}", r"confirm\.dominated: .* budget above 1x"),
        ("{budget: 2x, dominated: -1}", r"confirm\.dominated must be at least 0"),
    ],
)
def test_confirm_that_means_nothing_is_refused(folder: Path, value: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"study\.yaml:\d+: .*{words}"):
        load(folder, confirm=f"confirm: {value}")
