"""The words of the command line. Nothing here imports torch: `nas --help` is quick."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from nas.cli import confirming, estimating, inspecting, running, using
from nas.cli.running import STORE
from nas.cost.estimate import OPTIMIZER, TRAIN_DTYPE
from nas.cost.peaks import OPTIMIZERS
from nas.cost.state import CACHE_WINDOW, RECURRENT_DTYPE
from nas.errors import did_you_mean


class Parser(argparse.ArgumentParser):
    """argparse, with errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the rule and leaves with 2."""
        if "invalid choice" in message and "argument COMMAND" in message:
            word = message.split("'")[1]
            message = f"unknown command '{word}': {did_you_mean(word, COMMANDS)}"
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


COMMANDS = (
    "check",
    "confirm",
    "dashboard",
    "estimate",
    "export",
    "front",
    "generate",
    "list",
    "predict",
    "report",
    "run",
    "show",
    "status",
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command; each sets `command`, a function of the parsed arguments."""
    parser = Parser(
        prog="nas",
        description="Neural architecture search for context-efficient sequence models.",
        epilog="nas COMMAND --help says more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"nas {_version()}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    _inspecting(commands)
    _running(commands)
    _using(commands)
    return parser


def _inspecting(commands: Any) -> None:
    check = _command(commands, "check", inspecting.check, "validate spaces and studies, without torch")
    check.add_argument("files", nargs="+", metavar="FILE", help="space or study files, or names of shipped ones")
    _estimating(commands)
    for name in ("status", "list"):
        status = _command(commands, name, inspecting.status, "studies in a store: progress, failures with reasons")
        _store(status)
    front = _command(commands, "front", inspecting.front, "the front of a study")
    front.add_argument("study", metavar="STUDY", help="a file or the name of a stored study")
    front.add_argument("--format", choices=("table", "csv", "json", "html"), default="table")
    _store(front)
    show = _command(commands, "show", inspecting.show, "candidates in full: architecture, metrics, memory by context")
    show.add_argument("study", metavar="STUDY")
    show.add_argument("trials", type=int, nargs="+", metavar="TRIAL", help="one or several numbers")
    show.add_argument("--plot", metavar="FILE.png", help="draw memory against context as a picture too")
    _store(show)


def _estimating(commands: Any) -> None:
    about = "predicted memory and FLOPs; of a study also the share that is feasible and the time"
    estimate = _command(commands, "estimate", estimating.estimate, about)
    estimate.add_argument("file", metavar="FILE", help="an architecture (JSON), a space or a study (YAML)")
    estimate.add_argument("--context", type=int, action="append", metavar="N", help="tokens; may be repeated")
    estimate.add_argument("--batch", type=int, default=1, metavar="N", help="sequences (default 1)")
    estimate.add_argument("--dtype", default="bf16", help="of weights (default bf16)")
    estimate.add_argument(
        "--cache-dtype",
        metavar="DTYPE",
        help="of the key/value cache; also fp8, int8, int4, int2 (default: as --dtype)",
    )
    estimate.add_argument(
        "--cache-window",
        type=int,
        default=CACHE_WINDOW,
        metavar="N",
        help=f"latest tokens that an int8, int4 or int2 cache keeps in bf16 (default {CACHE_WINDOW})",
    )
    estimate.add_argument(
        "--recurrent-dtype",
        default=RECURRENT_DTYPE,
        metavar="DTYPE",
        help=f"of recurrent states (default {RECURRENT_DTYPE})",
    )
    estimate.add_argument(
        "--train-dtype", default=TRAIN_DTYPE, metavar="DTYPE", help=f"of training (default {TRAIN_DTYPE})"
    )
    estimate.add_argument(
        "--optimizer", default=OPTIMIZER, help=f"of training: {', '.join(OPTIMIZERS)} (default {OPTIMIZER})"
    )
    estimate.add_argument(
        "--checkpointing", action="store_true", help="training runs each layer again on the way back, to keep less"
    )
    estimate.add_argument(
        "--trace",
        action="store_true",
        help="of one network: trace both peaks operation by operation, too (needs torch)",
    )
    estimate.add_argument(
        "--max-memory", metavar="SIZE", help="of one network: the longest context within so much, such as 24GiB"
    )
    estimate.add_argument(
        "--draws", type=int, default=estimating.DRAWS, metavar="N", help=f"of a space (default {estimating.DRAWS})"
    )
    estimate.add_argument(
        "--speed", metavar="FLOPS", help="of a study: FLOPs a second that training reaches, such as 40G, for the time"
    )
    estimate.add_argument(
        "--measure",
        action="store_true",
        help="of one network, its memory and speed on this device; of a study, the speed of a few training steps",
    )
    estimate.add_argument("--device", default="auto", help="with --measure: auto, cpu, cuda or cuda:N (default auto)")
    estimate.add_argument(
        "--store",
        metavar="URL",
        help="of a study, whose finished trials say how fast training is; of one network, keep what --measure finds",
    )


def _running(commands: Any) -> None:
    run = _command(commands, "run", running.run, "run a study, or go on with it")
    run.add_argument("study", metavar="STUDY", help="a study file, a shipped study's name, or a stored study's name")
    run.add_argument("--trials", type=int, metavar="N", help="distinct candidates to train, in total over all runs")
    run.add_argument("--time", metavar="T", help="begin nothing new after this long: 90s, 30m, 2h")
    run.add_argument("--tokens", metavar="N", help="begin nothing new after so many training tokens, in total: 50M")
    run.add_argument("--flops", metavar="N", help="begin nothing new after so many training FLOPs, in total: 1e15, 20T")
    run.add_argument("--name", metavar="NEW", help="another name, and so another study, in the store")
    run.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default 0: this one)")
    run.add_argument("--dask", metavar="ADDRESS", help="train on the workers of a Dask scheduler")
    run.add_argument("--seed", type=int, metavar="S", help="of everything that is drawn")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in place of the file's value")
    run.add_argument("--quiet", action="store_true", help="print the front alone")
    _store(run)
    about = "train the front again with further seeds, for its uncertainty"
    confirm = _command(commands, "confirm", confirming.confirm, about)
    confirm.add_argument("study", metavar="STUDY", help="a file or the name of a stored study")
    confirm.add_argument("--seeds", type=int, default=3, metavar="N", help="further seeds of each member (default 3)")
    confirm.add_argument(
        "--budget", default="1x", metavar="MULTIPLE", help="of each training, of the study's, such as 8x (default 1x)"
    )
    confirm.add_argument(
        "--dominated", type=int, metavar="N", help="with --budget: candidates off the front, too (default 8)"
    )
    confirm.add_argument("--time", metavar="T", help="begin nothing new after this long: 90s, 30m, 2h")
    confirm.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default 0: this one)")
    confirm.add_argument("--dask", metavar="ADDRESS", help="train on the workers of a Dask scheduler")
    confirm.add_argument("--quiet", action="store_true", help="print the front alone")
    _store(confirm)
    report = _command(commands, "report", running.report, "write a static page about a study")
    report.add_argument("study", metavar="STUDY")
    report.add_argument("--to", required=True, metavar="DIR", help="a new or empty folder")
    _store(report)
    dashboard = _command(commands, "dashboard", running.dashboard, "Optuna Dashboard on the same store")
    dashboard.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    dashboard.add_argument("--port", type=int, default=8080, metavar="N")
    _store(dashboard)


def _using(commands: Any) -> None:
    export = _command(commands, "export", using.export, "write a trained candidate as a checkpoint")
    export.add_argument("study", metavar="STUDY")
    which = export.add_mutually_exclusive_group(required=True)
    which.add_argument("--trial", type=int, metavar="N")
    which.add_argument("--best", metavar="METRIC", help="the best complete trial in this objective")
    export.add_argument("--under", action="append", default=[], metavar="LIMIT", help='with --best: "serve_bytes=8MiB"')
    export.add_argument("--to", required=True, metavar="DIR", help="a new or empty folder")
    export.add_argument("--format", default="bundle", help="bundle (default)")
    _store(export)
    generate = _command(commands, "generate", using.generate, "continue a prompt with an exported checkpoint")
    generate.add_argument("folder", metavar="DIR")
    generate.add_argument("prompt", metavar="PROMPT")
    generate.add_argument("--tokens", type=int, default=200, metavar="N", help="at most so many (default 200)")
    generate.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest (default 0.8)")
    generate.add_argument("--top-k", type=int, metavar="K")
    generate.add_argument("--top-p", type=float, metavar="P")
    generate.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end at this text")
    generate.add_argument("--seed", type=int, metavar="S")
    predict = _command(commands, "predict", using.predict, "score, classify or translate a text, or answer about it")
    predict.add_argument("folder", metavar="DIR")
    predict.add_argument("text", metavar="TEXT")
    predict.add_argument("--question", default="", metavar="TEXT", help="about the text, where that was trained")


def _command(commands: Any, name: str, call: Any, about: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + "."
    )
    made.set_defaults(command=call)
    made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return made


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", default=STORE, metavar="URL", help=f"database (default {STORE})")
    parser.add_argument("--files", metavar="DIR", help="folder or URL of checkpoints (default: beside the database)")


def _version() -> str:
    try:
        return version("context-nas")
    except PackageNotFoundError:
        return "of a source tree"
