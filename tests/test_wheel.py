"""Wheel and source distribution: built, installed in a fresh environment, and used from an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import ufm

ROOT = Path(__file__).parents[1]
PACKAGES = ("ufm", "ufm_check", "solvers", "networks", "experiments", "figures")
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
TINY = ["--R", "2", "--k", "3", "--n-min", "2", "--d", "4", "--inits", "2"]
LEFT_OUT = (".git", ".venv*", "build", "dist", "runs", "*.egg-info", "__pycache__", ".*_cache")
pytestmark = pytest.mark.slow


def run(*command, folder, status=0):
    """What a command prints, started where nothing of the checkout is in reach."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "UFM_"))
    }
    ended = subprocess.run([str(word) for word in command], cwd=folder, env=clean, capture_output=True, text=True)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution of a copy of the checkout, and the wheel made from it."""
    root = tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, root / "checkout", ignore=shutil.ignore_patterns(*LEFT_OUT))
    run(sys.executable, "-m", "venv", "maker", folder=root)
    run(root / "maker/bin/pip", "install", "--quiet", "setuptools>=77", folder=root)
    make = f"import setuptools.build_meta as made; made.build_sdist({str(root)!r})"
    run(root / "maker/bin/python", "-c", make, folder=root / "checkout")
    (source,) = root.glob("*.tar.gz")
    run(root / "maker/bin/pip", "wheel", "--no-deps", "--no-build-isolation", "-w", root, source, folder=root)
    (wheel,) = root.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def fresh(distributions, tmp_path_factory):
    """A new environment with the wheel; what it depends on is lent by this one."""
    root = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "venv", folder=root)
    (site_packages,) = root.glob("venv/lib/*/site-packages")
    (site_packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(root / "venv/bin/pip", "install", "--no-deps", "--no-index", distributions[1], folder=root)
    (root / "empty").mkdir()
    return root / "venv/bin", root / "empty"


def test_what_is_in_them(distributions):
    source, wheel = distributions
    assert source.name == f"ufm_scl-{ufm.__version__}.tar.gz"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} | {"experiments/reports/templates/report.html"} <= names
    assert {name.split("/")[0] for name in names} == {*PACKAGES, f"ufm_scl-{ufm.__version__}.dist-info"}
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"} <= held


def test_the_packages_are_those_of_the_wheel(fresh):
    programs, empty = fresh
    for package in PACKAGES:
        place = run(programs / "python", "-c", f"import {package}; print({package}.__file__)", folder=empty)
        assert Path(place.strip()).is_relative_to(programs.parent)


@pytest.mark.parametrize("script", SCRIPTS)
def test_console_commands_answer(fresh, script):
    programs, empty = fresh
    if script == "ufm-check":
        assert "usage: " in run(programs / script, folder=empty, status=2)
    else:
        assert "--out" in run(programs / script, "--help", folder=empty)


@pytest.mark.parametrize("by_module", [False, True])
def test_a_sweep_and_its_certificates(fresh, by_module):
    programs, empty = fresh
    out = empty / f"runs-{by_module}"
    sweep = (
        [programs / "python", "-m", "experiments.sweep_imbalance"] if by_module else [programs / "ufm-sweep-imbalance"]
    )
    run(*sweep, *TINY, "--out", out, folder=empty)
    assert (out / "report.html").stat().st_size > 10_000
    certificates = sorted(out.rglob("certificate*.json")) or sorted(out.rglob("*certificate*/*.json"))
    assert len(certificates) == 2
    assert run(programs / "ufm-check", *certificates, folder=empty).count("PROVED") == 2


def test_the_smallest_gallery(fresh):
    programs, empty = fresh
    run(programs / "ufm-gallery", "--only", "F10", "--out", empty / "gallery", folder=empty)
    assert (empty / "gallery" / "F10_certificate.png").stat().st_size > 10_000
