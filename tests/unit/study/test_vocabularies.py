"""A searched vocabulary: budgets and contexts count bytes of text, and every candidate has a tokenizer of its own."""

import json
import random

import pytest

from nas import Study
from nas.errors import StudyError
from nas.space.invert import assignments
from nas.space.space import Space
from nas.study.plan import plan_from_config
from nas.study.vocabularies import draws_of

SPACE = {
    "name": "tiny",
    "family": "decoder",
    "width": 16,
    "depth": 1,
    "max_context": {"choice": [64, 128]},
    "vocabulary": {"choice": [258, 400]},
    "layers": {"mixer": {"choice": ["full", "sliding_window"], "per": "layer"}, "heads": 1, "window": 32},
    "training": {"learning_rate": 5e-3},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    words = "the state of union and congress shall have power to lay taxes on every".split()  # noqa: SIM905
    chosen = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("\n\n".join(" ".join(chosen.choices(words, k=60)) for _ in range(120)))
    return path


@pytest.fixture
def words(corpus):
    return {
        "name": "searched",
        "space": SPACE,
        "task": {"name": "language_modeling", "corpus": str(corpus), "tokenizer": "bpe", "evaluation_bytes": 512},
        "objectives": ["bits_per_byte", "serve_bytes"],
        "budget": {"bytes": 40_000, "rungs": 2, "tokens_per_step": 256},
        "trials": 4,
        "sampler": "random",
    }


def study_of(tmp_path, words) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(words))
    return Study.load(path, store=f"sqlite:///{tmp_path / 'nas.db'}")


def test_candidates_of_every_vocabulary_read_as_many_bytes(tmp_path, words):
    with study_of(tmp_path, words) as study:
        plan = plan_from_config(study._config)
        small, large = plan.cuts
        assert [small.vocabulary, large.vocabulary] == [258, 400]
        assert large.bytes_per_token > 1.5 * small.bytes_per_token > 0.9
        for seed in range(20):
            drawn = plan.space.decode(plan.space.draw(random.Random(seed)))
            network = plan.bind(drawn)
            cut = small if drawn.vocabulary == 258 else large
            assert network.vocabulary == cut.shape.vocabulary
            assert network.max_context == cut.tokens(drawn.architecture.max_context)
            seen = plan.schedule(network).total_steps * 256 * cut.bytes_per_token
            assert 40_000 - 256 * cut.bytes_per_token < seen <= 40_000
            assert plan.task_of(network) == cut.reference
            # What a sampler is told after its database was lost is a draw of the same network.
            assert any(
                plan.bind(plan.space.decode({**values, "vocabulary": vocabulary})) == network
                for unbound, vocabulary in draws_of(plan.space, network, plan.cuts)
                for values in assignments(plan.space, unbound)
            )


def test_a_study_searches_it_exports_and_goes_on(tmp_path, words):
    with study_of(tmp_path, words) as study:
        study.run()
        trials = study.store.trials(study.store.study("searched"), states=["complete"])
        assert len(trials) == 4
        assert len({trial.candidate.architecture.vocabulary for trial in trials}) == 2
        for trial in trials:
            folder = study.export(trial, tmp_path / f"out{trial.number}")
            tokenizer = json.loads((folder / "tokenizer.json").read_text())
            assert tokenizer["vocabulary"] == trial.candidate.architecture.vocabulary
    with study_of(tmp_path, words) as study:
        assert len(study.run(trials=5)) >= 1
        assert len(study.store.trials(study.store.study("searched"), states=["complete"])) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"tokens": 40_000, "tokens_per_step": 256}}, "hold unequal text: give bytes or flops"),
        ({"objectives": ["perplexity", "serve_bytes"]}, "'perplexity' counts tokens.*take one of bits_per_byte"),
        ({"objectives": ["bits_per_byte", "serve_bytes@context=32"]}, "names a context in tokens"),
        ({"constraints": ["serve_bytes@context=32 <= 1 MiB"]}, "names a context in tokens"),
        ({"task.contexts": [32]}, "contexts count tokens"),
        ({"task.tokenizer": "byte"}, r"must be one that is trained.*\{kind: bpe or unigram\}"),
        ({"task.tokenizer": {"kind": "bpe", "vocabulary": 300}}, "without a vocabulary of its own"),
        ({"space": {**SPACE, "vocabulary": {"choice": [100, 300]}}}, "at least 258, not 100"),
    ],
)
def test_whatever_would_count_tokens_is_refused(tmp_path, words, change, message):
    for key, value in change.items():
        at = words
        *parents, last = key.split(".")
        for parent in parents:
            at[parent] = dict(at[parent])
            at = at[parent]
        at[last] = value
    with pytest.raises(StudyError, match=message):
        study_of(tmp_path, words)


def test_a_space_alone_binds_its_samples_to_the_drawn_vocabulary():
    space = Space.from_mapping(SPACE)
    assert {space.sample(seed).vocabulary for seed in range(12)} == {258, 400}
    assert space.size == 2 * 2 * 2
