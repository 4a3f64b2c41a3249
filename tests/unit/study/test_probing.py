"""What was measured of a network is kept with each of its trials, beside what is predicted."""

from __future__ import annotations

from pathlib import Path

from nas.cli import main
from nas.measure.probe import Probe, Probed, Work
from nas.records import Candidate
from nas.space import Architecture
from nas.store import Store, StoredObjective
from nas.study.probing import keep, memory_figures


def candidate(width: int, rate: float = 1e-3) -> Candidate:
    layers = [{"mixer": "full", "heads": 2}]
    words = {"family": "decoder", "width": width, "max_context": 16, "vocabulary": 64, "head": "causal_lm"}
    return Candidate(Architecture.from_mapping({**words, "layers": layers}), (("learning_rate", rate),))


def probed(**works: Work) -> Probed:
    work = Work(milliseconds=1.0, tokens_per_second=1.0, peak_bytes=100, resident_bytes=120)
    return Probed(
        probe=Probe(context=16, batch=2),
        device="CPU",
        training=works.get("training", work),
        prefill=works.get("prefill", work),
        decoding=None,
        state_bytes=64,
    )


def test_figures_bear_the_names_of_their_predictions_and_their_circumstances() -> None:
    figures = {found.figure: found for found in memory_figures(probed())}
    assert set(figures) == {
        "train_peak_bytes",
        "train_resident_bytes",
        "prefill_peak_bytes",
        "prefill_resident_bytes",
        "state_bytes",
    }
    assert all(found.kind == "measured" and (found.batch, found.context) == (2, 16) for found in figures.values())
    assert figures["train_peak_bytes"].dtype == "fp32" and figures["prefill_peak_bytes"].dtype == "bf16"
    on_cuda = probed(training=Work(milliseconds=1.0, tokens_per_second=1.0, peak_bytes=1, reserved_bytes=2))
    assert "train_reserved_bytes" in {found.figure for found in memory_figures(on_cuda)}


def test_every_trial_of_the_network_gets_them_and_no_other(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/nas.db", create=True) as store:
        for name in ("one", "two"):
            objectives = [StoredObjective(name="loss", direction="minimize")]
            study = store.add_study(name, resolved={}, objectives=objectives)
            for found in (candidate(8), candidate(16), candidate(16, rate=2e-3)):
                store.add_trial(study, found, seed=0, known={}, reason="")
        assert keep(store, candidate(16).architecture, probed()) == [("one", 1), ("one", 2), ("two", 1), ("two", 2)]
        frame = store.memory(store.study("one"))
        assert set(frame["trial"]) == {1, 2} and set(frame["kind"]) == {"measured"}
        assert keep(store, candidate(32).architecture, probed()) == []


def test_the_command_line_measures_and_keeps(tmp_path: Path) -> None:
    network = candidate(8).architecture
    (tmp_path / "network.json").write_text(network.to_json())
    url = f"sqlite:///{tmp_path}/nas.db"
    with Store.open(url, create=True) as store:
        study = store.add_study("s", resolved={}, objectives=[StoredObjective(name="loss", direction="minimize")])
        store.add_trial(study, candidate(8), seed=0, known={}, reason="")
    arguments = ["estimate", str(tmp_path / "network.json"), "--measure", "--device", "cpu", "--store", url]
    assert main(arguments) == 0
    with Store.open(url) as store:
        assert "train_peak_bytes" in set(store.memory(store.study("s"))["figure"])


def test_a_space_of_many_networks_is_not_measured() -> None:
    assert main(["estimate", "decoder", "--measure"]) == 2
    assert main(["estimate", "decoder", "--store", "sqlite:///x.db"]) == 2
