"""The command that confirms a front: confirm."""

from __future__ import annotations

import argparse
import sys

from nas.cli.running import be_a_good_neighbour, run_seconds


def confirm(arguments: argparse.Namespace) -> int:
    """nas confirm STUDY"""
    be_a_good_neighbour()
    from nas.cli.progress import Display
    from nas.report.tables import render_front
    from nas.study import Study

    seconds = run_seconds(arguments)
    with Study.load(arguments.study, store=arguments.store, files=arguments.files) as study:
        try:
            with Display(quiet=arguments.quiet) as display:
                study.confirm(
                    seeds=arguments.seeds,
                    budget=arguments.budget,
                    dominated=arguments.dominated,
                    seconds=seconds,
                    workers=arguments.workers,
                    dask=arguments.dask,
                    progress=display.show,
                )
        except KeyboardInterrupt:
            print("nas: stopped; finished replicates are kept, and the same command goes on", file=sys.stderr)
            return 130
        print(render_front(study.store, study.store.study(study.name)))
    return 0
