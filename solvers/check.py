"""`python -m solvers.check` runs the checker, which is the independent package `ufm_check`."""

import sys

from ufm_check.check import check, main, script

__all__ = ["check", "main", "script"]

if __name__ == "__main__":
    sys.exit(script())
