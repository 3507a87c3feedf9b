"""The checker's former place: `python -m solvers.check` forwards to `ufm_check`, which stands alone."""

import sys

from ufm_check.check import check, main, script

__all__ = ["check", "main", "script"]

if __name__ == "__main__":
    sys.exit(script())
