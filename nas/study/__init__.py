"""The loop that joins the rooms: suggest, check, train, record, tell; then report and export.

In: a study file, a stored study, or a user's own evaluator. Out: a front in SQL.
"""

from __future__ import annotations

from nas.study.study import DEFAULT_STORE, Study, parse_limits

__all__ = ["DEFAULT_STORE", "Study", "parse_limits"]
