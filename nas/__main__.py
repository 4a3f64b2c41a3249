"""`python -m nas` is the command `nas`."""

from __future__ import annotations

import sys

from nas.cli import main

sys.exit(main())
