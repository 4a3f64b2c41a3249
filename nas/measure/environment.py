"""What a study ran on: versions, device, and the commit of the user's working tree."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from nas.measure.trainer import device_in_words
from nas.records import Environment

PACKAGES = ("context-nas", "torch", "lightning", "torchmetrics", "optuna", "sqlalchemy", "numpy", "pandas")


def current_environment() -> Environment:
    """The environment of this process."""
    versions = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            # Run from a source tree that was never installed.
            versions[package] = "not installed"
    return Environment(versions=versions, device=device_in_words(), git_commit=_git_commit())


def _git_commit() -> str:
    """The commit of the working directory, "+changes" appended when tracked files differ; "" outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
