"""Optuna Dashboard on the store itself.

In: a store. Out: a web server on this machine. It shows the mirror of our studies that Optuna's
samplers use; the objectives bear our names there.

The dashboard knows no passwords: whoever reaches it can rename, change and delete what Optuna
knows of the studies. It therefore listens on loopback unless another host is named.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna
from optuna.storages import BaseStorage, RDBStorage

from nas.errors import MissingExtraError, StudyError
from nas.search.mirror import silent
from nas.store import Store

LARGEST_PORT = 65_535


def serve_dashboard(
    store: Store, *, host: str = "127.0.0.1", port: int = 8080, announce: Callable[[str], None] = print
) -> None:
    """Serves Optuna Dashboard until Ctrl-C.

    Args:
        store: whose studies are shown.
        host: address to listen on; anything but loopback is open to others, without a password.
        port: to listen on; 0 for any that is free.
        announce: told in one or two lines where the dashboard is.

    Raises:
        MissingExtraError: optuna-dashboard is not installed.
        StudyError: the port is in use (the message names a free one), or there is no such host.
    """
    with dashboard_server(store, host=host, port=port) as server:
        for line in _announcement(host, server.server_port):
            announce(line)
            # Whoever reads the address from a log must not wait for a buffer.
            sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            announce("the dashboard has stopped")


@contextmanager
def dashboard_server(store: Store, *, host: str, port: int) -> Iterator[WSGIServer]:
    """A bound server that does not serve yet; closed with the block. Raises as `serve_dashboard` does."""
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise MissingExtraError("the dashboard", "dashboard") from None
    server = _bind(host, port)
    try:
        with silent():
            storage = RDBStorage(store.url, engine_kwargs=dict(store.engine_kwargs))
        try:
            name_objectives(store, storage)
            server.set_app(wsgi(storage))
            yield server
        finally:
            storage.engine.dispose()
    finally:
        server.server_close()


def name_objectives(store: Store, storage: BaseStorage) -> list[str]:
    """Gives Optuna's studies the names of our objectives, where they lack them.

    Returns:
        The studies that were changed; none when it was done before.
    """
    theirs = {study.study_name: study for study in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    changed = []
    for study in store.studies():
        names = [objective.name for objective in study.objectives]
        twin = theirs.get(study.name)
        if twin is None or len(twin.directions) != len(names):
            continue
        with silent():
            loaded = optuna.load_study(study_name=study.name, storage=storage)
            if loaded.metric_names != names:
                loaded.set_metric_names(names)
                changed.append(study.name)
    return changed


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request: a slow one holds up nobody."""

    daemon_threads = True


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    """Requests are not printed."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _bind(host: str, port: int) -> WSGIServer:
    if not 0 <= port <= LARGEST_PORT:
        raise StudyError(f"a port is a number from 0 to {LARGEST_PORT}, not {port}: the usual one is 8080")
    kind = _ServerV6 if ":" in host else _Server
    try:
        return kind((host, port), _QuietHandler)
    except socket.gaierror:
        raise StudyError(f"there is no host '{host}': 127.0.0.1 is this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StudyError(f"port {port} is in use: {_free_port(host, port)} is free") from None
        if error.errno == errno.EACCES:
            raise StudyError(f"port {port} needs more rights than you have: 8080 does not") from None
        raise StudyError(f"host '{host}' is no address of this machine: 127.0.0.1 is") from None


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidate: int
    for candidate in chain(range(port + 1, LARGEST_PORT + 1), range(1024, port)):
        with socket.socket(family) as probe, suppress(OSError):
            probe.bind((host, candidate))
            return candidate
    raise StudyError(f"no port of '{host}' is free")


def _announcement(host: str, port: int) -> list[str]:
    address = f"[{host}]" if ":" in host else host
    lines = [f"Optuna Dashboard: http://{address}:{port}/ (Ctrl-C ends it)"]
    if not _is_loopback(host):
        lines.append(f"It has no passwords: whoever reaches {address}:{port} can change and delete studies there.")
    return lines


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
