"""A sweep as its command line runs it, and the tables it leaves."""

import csv
import shlex

import pytest

from experiments.harness import command_line


def run(sweep, *arguments):
    """The exit status of the module's command."""
    with pytest.raises(SystemExit) as stopped:
        command_line.run(lambda: sweep.main([str(argument) for argument in arguments]))
    return stopped.value.code


def arguments_of(command, module):
    """The words behind the program of a command that runs a module."""
    program, words = command_line.program(module), shlex.split(command)
    assert words[: len(program)] == program
    return words[len(program) :]


def rows(path):
    """The lines of a CSV file by the names of its columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
