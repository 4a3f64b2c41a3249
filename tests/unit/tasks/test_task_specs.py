"""What the specification of language modelling says for each family and objective."""

import pytest

from nas.specs import family_spec, task_spec
from nas.specs.base import EVERY_FAMILY
from nas.specs.tasks import NATURAL_OBJECTIVES, TEXT_OBJECTIVES, shortest_context

TEXT = task_spec("language_modeling")
GIVEN = {"corpus": "a.txt"}


def test_every_family_is_served_and_has_a_natural_objective():
    assert TEXT.families == EVERY_FAMILY == set(NATURAL_OBJECTIVES)


@pytest.mark.parametrize("objective", TEXT_OBJECTIVES)
def test_the_families_of_an_objective_have_its_head(objective):
    options = {**GIVEN, "objective": objective}
    for family in TEXT.families_for(options):
        assert TEXT.head_for(options) in family_spec(family).heads


@pytest.mark.parametrize(("family", "objective"), NATURAL_OBJECTIVES.items())
def test_auto_is_decided_by_the_family(family, objective):
    for given in (GIVEN, {**GIVEN, "objective": "auto"}):
        options = TEXT.objective_for(family, given)
        assert options == {**GIVEN, "objective": objective}
        assert family in TEXT.families_for(TEXT.complete(options))
    chosen = {**GIVEN, "objective": "prefix"}
    assert TEXT.objective_for(family, chosen) == chosen


def test_causal_modelling_has_the_options_that_it_always_had():
    for given in (GIVEN, {**GIVEN, "objective": "auto"}, {**GIVEN, "objective": "causal"}):
        assert TEXT.complete(given) == {**GIVEN, "evaluation_bytes": 65_536}
    assert TEXT.head_for(GIVEN) == "causal_lm" and TEXT.families_for(GIVEN) == {"decoder"}


def test_an_objective_is_completed_with_its_own_keys_alone():
    base = {**GIVEN, "evaluation_bytes": 65_536}
    assert TEXT.complete({**GIVEN, "objective": "masked"}) == {**base, "objective": "masked", "mask_rate": 0.15}
    assert TEXT.complete({**GIVEN, "objective": "span_corruption", "mean_span": 5.0}) == {
        **base,
        "objective": "span_corruption",
        "mask_rate": 0.15,
        "mean_span": 5.0,
        "sentinels": 100,
    }
    assert set(TEXT.complete({**GIVEN, "objective": "infilling"})) - set(base) == {
        "objective",
        "mask_rate",
        "mean_span",
        "generation_share",
    }
    for objective in TEXT_OBJECTIVES:
        complete = TEXT.complete({**GIVEN, "objective": objective})
        assert TEXT.complete(complete) == complete
        assert not list(TEXT.broken_rules(complete))


def test_scores_of_different_losses_have_different_names():
    names = [set(TEXT.metrics_for({**GIVEN, "objective": objective})) for objective in TEXT_OBJECTIVES]
    assert set.union(*names) == set(TEXT.metrics)
    for one, first in zip(TEXT_OBJECTIVES, names, strict=True):
        for other, second in zip(TEXT_OBJECTIVES, names, strict=True):
            # What is scored behind a prefix is what is scored of a decoder.
            same = one == other or {one, other} == {"causal", "prefix"}
            assert first == second if same else not first & second


def test_the_directions_of_all_metrics_are_those_of_the_plain_ones():
    for name, metric in TEXT.metrics.items():
        plain = next(
            TEXT.metrics[found] for found in ("bits_per_byte", "perplexity", "token_accuracy") if found in name
        )
        assert (metric.direction, metric.unit, metric.best) == (plain.direction, plain.unit, plain.best)
        assert metric.doc.startswith(plain.doc)


def test_a_context_must_hold_the_longest_span():
    assert shortest_context(TEXT.complete(GIVEN)) == 1
    assert shortest_context(TEXT.complete({**GIVEN, "objective": "infilling"})) == 32
    assert shortest_context(TEXT.complete({**GIVEN, "objective": "infilling", "mean_span": 5.5})) == 52


CLASSES = task_spec("classification")
RIVALS = {"data": "a.csv", "too_long": "truncate", "evaluation_examples": 2_000}


def test_every_family_classifies_in_a_form_of_its_own():
    natural = {"decoder": None, "encoder": None, "prefix_lm": "prefix", "encoder_decoder": "seq2seq"}
    assert CLASSES.families == EVERY_FAMILY == set(natural)
    for family, form in natural.items():
        for given in ({}, {"form": "auto"}):
            options = CLASSES.complete(CLASSES.objective_for(family, {"data": "a.csv", **given}))
            assert options == ({**RIVALS, "form": form} if form else RIVALS)
            assert family in CLASSES.families_for(options) and not list(CLASSES.broken_rules(options))
            assert CLASSES.head_for(options) in family_spec(family).heads
            assert CLASSES.complete(options) == options


def test_a_label_may_be_said_by_every_family_that_says_something():
    said = {"decoder": "causal", "prefix_lm": "prefix", "encoder_decoder": "seq2seq"}
    for family, form in said.items():
        options = CLASSES.objective_for(family, {"data": "a.csv", "form": "text_to_text"})
        assert options["form"] == form and CLASSES.families_for(CLASSES.complete(options)) == {family}
    asked = CLASSES.complete(CLASSES.objective_for("encoder", {"data": "a.csv", "form": "text_to_text"}))
    assert CLASSES.families_for(asked) == set(said)


def test_a_task_without_objectives_is_the_same_for_every_option():
    recall = task_spec("recall")
    assert recall.objective_for("decoder", {"pairs": 3}) == {"pairs": 3}
    assert recall.head_for({}) == recall.head and recall.families_for({}) == recall.families
    assert set(recall.metrics_for({})) == {"recall_accuracy", "recall_loss"}
