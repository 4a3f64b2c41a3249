"""Optuna Dashboard over a real socket on loopback."""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage

from nas.errors import MissingExtraError, StudyError
from nas.report.dashboard import dashboard_server, name_objectives, serve_dashboard
from nas.store import Store, StoredStudy


@contextmanager
def storage_of(store: Store) -> Iterator[RDBStorage]:
    storage = RDBStorage(store.url, engine_kwargs=dict(store.engine_kwargs))
    try:
        yield storage
    finally:
        storage.engine.dispose()


@pytest.fixture
def mirrored(store: Store, study: StoredStudy) -> StoredStudy:
    """The study, which Optuna knows too."""
    with storage_of(store) as storage:
        made = optuna.create_study(storage=storage, study_name="small", directions=["minimize", "minimize"])
        made.add_trial(optuna.trial.create_trial(values=[2.9, 262144.0]))
    return study


@contextmanager
def serving(store: Store) -> Iterator[str]:
    with dashboard_server(store, host="127.0.0.1", port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def get(url: str) -> Any:
    # No proxy: the server is this process.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
        return answer.read().decode()


def test_it_answers_and_calls_the_objectives_by_our_names(store: Store, mirrored: StoredStudy) -> None:
    with serving(store) as address:
        assert "Optuna Dashboard" in get(f"{address}/dashboard")
        (summary,) = json.loads(get(f"{address}/api/studies"))["study_summaries"]
        assert summary["study_name"] == "small"
        detail = json.loads(get(f"{address}/api/studies/{summary['study_id']}"))
        assert detail["objective_names"] == ["bits_per_byte", "serve_bytes"]
        assert [trial["values"] for trial in detail["trials"]] == [[2.9, 262144.0]]


def test_a_study_that_optuna_does_not_know_yet_is_no_obstacle(store: Store, study: StoredStudy) -> None:
    with serving(store) as address:
        assert json.loads(get(f"{address}/api/studies"))["study_summaries"] == []


def test_names_are_written_once(store: Store, mirrored: StoredStudy) -> None:
    with storage_of(store) as storage:
        assert name_objectives(store, storage) == ["small"]
        assert name_objectives(store, storage) == []
        assert optuna.load_study(study_name="small", storage=storage).metric_names == ["bits_per_byte", "serve_bytes"]


def test_a_study_of_somebody_else_with_other_objectives_is_left_alone(store: Store, study: StoredStudy) -> None:
    with storage_of(store) as storage:
        theirs = optuna.create_study(storage=storage, study_name="small", direction="minimize")
        assert name_objectives(store, storage) == []
        assert theirs.metric_names is None


def test_a_port_in_use_names_one_that_is_free(store: Store) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StudyError, match=rf"port {port} is in use: \d+ is free") as caught:
            serve_dashboard(store, port=port)
    free = int(str(caught.value).split()[-3])
    assert free != port
    with dashboard_server(store, host="127.0.0.1", port=free) as server:
        assert server.server_port == free


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70_000, "0 to 65535, not 70000"),
        ("192.0.2.1", 8080, r"192\.0\.2\.1.*no address of this machine"),
    ],
)
def test_a_place_that_cannot_be_listened_at_is_an_error(store: Store, host: str, port: int, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        serve_dashboard(store, host=host, port=port)


@pytest.mark.parametrize(("host", "warns"), [(None, False), ("0.0.0.0", True)])
def test_it_listens_on_loopback_and_says_that_there_are_no_passwords_elsewhere(
    store: Store, monkeypatch: pytest.MonkeyPatch, host: str | None, warns: bool
) -> None:
    listening: list[str] = []

    def interrupted(server: Any) -> None:
        listening.append(server.server_address[0])
        raise KeyboardInterrupt

    monkeypatch.setattr("wsgiref.simple_server.WSGIServer.serve_forever", interrupted)
    said: list[str] = []
    if host is None:
        serve_dashboard(store, port=0, announce=said.append)
    else:
        serve_dashboard(store, host=host, port=0, announce=said.append)
    assert listening == [host or "127.0.0.1"]
    assert "http://" in said[0]
    assert any("no passwords" in line for line in said) is warns
    assert said[-1] == "the dashboard has stopped"


def test_a_missing_package_names_the_extra(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(MissingExtraError, match=r"context-nas\[dashboard\]"):
        serve_dashboard(store)
