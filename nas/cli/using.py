"""Commands that turn a study into something to use: export, generate, predict."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nas.errors import InputError, StudyError
from nas.space.yaml_lines import is_file
from nas.units import format_bytes


def export(arguments: argparse.Namespace) -> int:
    """nas export STUDY"""
    from nas.study import Study, parse_limits

    if arguments.under and arguments.best is None:
        raise StudyError("--under goes with --best: --trial already names one candidate")
    limits = parse_limits(arguments.under)
    with Study.load(arguments.study, store=arguments.store, files=arguments.files) as study:
        named = arguments.best is None
        trial = study.trial(arguments.trial) if named else study.best(arguments.best, limits)
        print(f"trial {trial.number}: scoring the test part of the data ...", file=sys.stderr, flush=True)
        written = study.export(trial, arguments.to, format_name=arguments.format)
        values = ", ".join(f"{name} {_shown(name, value)}" for name, value in trial.values.items())
        print(f"{written}: trial {trial.number}, {values}")
    return 0


def generate(arguments: argparse.Namespace) -> int:
    """nas generate DIR PROMPT"""
    from nas.export.bundle import load_bundle

    bundle = load_bundle(Path(arguments.folder))
    pieces = bundle.generate_text(
        arguments.prompt,
        max_new_tokens=arguments.tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        stop=arguments.stop,
    )
    print(arguments.prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print(flush=True)
    room = bundle.architecture.max_context - len(bundle.tokenizer.encode(arguments.prompt)) if bundle.tokenizer else 0
    if arguments.tokens > room:
        held = bundle.architecture.max_context
        print(f"nas: cut short: the model's context holds {held} tokens, prompt included", file=sys.stderr)
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """nas predict DIR TEXT"""
    from nas.export.bundle import load_bundle

    if not arguments.text:
        raise InputError("there is nothing to score: the text is empty")
    if is_file(Path(arguments.text)):
        name = arguments.text
        raise InputError(f"'{name}' is a file, and predict scores the text itself: nas predict DIR \"$(cat '{name}')\"")
    bundle = load_bundle(Path(arguments.folder))
    if bundle.labels is not None:
        for label, share in bundle.classify(arguments.text).items():
            print(f"{label} {share:.4f}")
        return 0
    if bundle.spans is not None:
        if not arguments.question:
            raise InputError("this checkpoint answers questions about a text: give one with --question")
        answer = bundle.answer(arguments.text, arguments.question)
        print(answer)
        if not answer:
            print("nas: the text holds no answer", file=sys.stderr)
        return 0
    if bundle.writes_targets:
        print(bundle.write(arguments.text, arguments.question))
        return 0
    if arguments.question:
        raise InputError("this checkpoint was not trained on questions: leave --question out")
    print(f"bits_per_byte {bundle.bits_per_byte(arguments.text):.4f}", file=sys.stdout)
    return 0


def _shown(name: str, value: float) -> str:
    return format_bytes(value) if name.partition("@")[0].endswith("_bytes") else f"{value:.5g}"
