"""`python -m ufm_check FILE.json [FILE.json ...]`: see `ufm_check.check`."""

import sys

from ufm_check.check import script

sys.exit(script())
