"""`python -m figures`: draw the gallery. See `experiments.gallery`."""

import sys

from experiments import command_line, gallery

if __name__ == "__main__":
    command_line.run(lambda: gallery.main(sys.argv[1:]))
