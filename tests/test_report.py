"""The report of a sweep: its values, its figures, its certificates, and that it needs nothing but itself."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from page import Page

from experiments import sweep_imbalance
from experiments.harness import command_line
from experiments.harness.store import Store
from experiments.reports.imbalance import judged, question, rendered
from experiments.reports.page import in_words, write_report
from solvers.certification.certifier import certify
from ufm import Problem

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COLUMNS = ["R", "tau", "inits", "certified", "orthogonal_frames", "worst_excess", "seconds_compile", "seconds_solve"]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)


@pytest.fixture
def swept(tmp_path):
    """What a sweep leaves, of two ratios, one start each, made without a solver."""
    store = Store(tmp_path / "run")
    config = {"R": [10.0, 2.0], "k": 3, "d": 3, "tau": [1.0], "inits": 1, "imbalance": "step", "relu": True}
    store.write_json("config.json", {"config": config, "versions": {"python": "3.11", "ufm-scl": "0.1.0"}, "cells": 2})
    summary, inits = [], []
    for R in (10, 2):
        problem = Problem.from_class_sizes([2 * R, 2, 2], d=3)
        proof = certify(np.eye(3)[np.asarray(problem.labels)], problem, conic=False)
        proof.save(store.path(f"certificates/R{R}-tau1-start000.json"))
        summary.append(dict(zip(COLUMNS, [R, 1, 1, 1, 1, 1 / 3 * 1e-13, 1.5, 0.25], strict=True)))
        summary[-1]["seconds_certify"] = 0.125
        inits.append({"R": R, "tau": 1, "init": 0, "certified": True})
    store.write_csv("summary.csv", summary)
    store.write_csv("inits.csv", inits)
    for name in ("class_mean_gram", "convergence"):
        store.write_bytes(f"figures/{name}.png", PNG)
    return store


def test_values_are_those_of_the_summary(swept):
    page = Page(rendered(swept.root))
    assert page.shows(swept.root / "summary.csv")
    assert page.files["inits.csv"] == (swept.root / "inits.csv").read_bytes()
    heading, first, second = page.table
    assert heading == [
        "imbalance ratio R",
        "starts certified",
        "orthogonal frames",
        "largest excess",
    ]
    assert first == ["10", "1", "1", "3.3 × 10⁻¹⁴"]
    assert second[0] == "2"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("25025", "25,025"),
        (1000025, "1,000,025"),
        ("219722.4577", "219,722"),
        ("0.41666666", "0.4167"),
        ("10.0", "10"),
        ("0.0", "0"),
        ("3.3333333333333334e-14", "3.3 × 10⁻¹⁴"),
        ("-2e300", "-2.0 × 10³⁰⁰"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("True", "yes"),
        (False, "no"),
        ([0.1, 1.0, 1000.0], "0.1 1 1,000"),
        ("runs/imbalance", "runs/imbalance"),
        ("", ""),
    ],
)
def test_values_as_a_person_reads_them(value, words):
    assert in_words(value) == words


def test_the_page_needs_nothing_but_itself(swept):
    text = write_report(swept, rendered).read_text()
    page = Page(text)
    assert page.loads
    assert all(load.startswith("data:") for load in page.loads)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert not {"iframe", "object", "embed", "base"} & set(page.tags)
    assert 'name="viewport"' in text


def test_figures_have_words(swept):
    images = Page(rendered(swept.root)).images
    assert len(images) == 2
    assert all(len(image["alt"]) > 20 for image in images)


def test_certificates_have_a_status_and_a_command(swept):
    words = " ".join(Page(rendered(swept.root)).words)
    assert words.count("1 of 1 certified") == 2
    check = " ".join(command_line.program("ufm_check.check"))
    for R in (2, 10):
        assert f"{check} {swept.root}/certificates/R{R}-tau1-start000.json" in words
    assert "compilation 3.0, solving 0.5, verifying and certifying 0.2" in re.sub(r"\s*([,.])\s+", r"\1 ", words)
    assert "0.1.0" in words


def test_a_damaged_certificate_is_said_so(swept):
    (swept.root / "certificates" / "R2-tau1-start000.json").write_text("{}")
    (swept.root / "certificates" / "R10-tau1-start000.json").unlink()
    words = " ".join(Page(rendered(swept.root)).words)
    assert words.count("0 of 1 certified") == 2
    assert words.count("not a readable certificate") == 2


def test_a_figure_that_was_not_drawn_is_left_out(swept):
    shutil.rmtree(swept.root / "figures")
    page = Page(rendered(swept.root))
    assert page.images == []
    assert "No figures were drawn" in " ".join(page.words)


def test_names_are_escaped(swept):
    recorded = json.loads((swept.root / "config.json").read_text())
    recorded["config"]["out"] = "<script>alert(1)</script>&'\""
    swept.write_json("config.json", recorded)
    text = rendered(swept.root)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert Page(text).tags.count("script") == 1


@pytest.mark.parametrize(
    ("relu", "certified", "frames", "good", "says"),
    [
        (True, 4, 4, True, "Theorem 1 is reproduced: 4 of 4"),
        (True, 4, 3, False, "Theorem 1 is not reproduced: 4 of 4 starts are certified global minimisers, 3 are"),
        (True, 3, 3, False, "not reproduced"),
        (False, 4, 0, True, "4 of 4 starts are certified global minimisers of UFM"),
        (False, 1, 0, False, "1 of 4"),
    ],
)
def test_the_verdict(relu, certified, frames, good, says):
    rows = [{"certified": str(certified), "orthogonal_frames": str(frames), "inits": "4", "worst_excess": "1e-13"}]
    judgement, sentence = judged({"relu": relu}, rows)
    assert judgement is good
    assert says in sentence
    assert ("Theorem 1" in question({"relu": relu, "inits": 4})) is relu


def test_the_verdict_where_the_theorem_does_not_apply():
    row = {"orthogonal_frames": "0", "inits": "4", "worst_excess": "3.5", "best_excess": "1.25"}
    for certified in (0, 1):
        judgement, sentence = judged({"relu": True, "k": 4, "d": 3}, [row | {"certified": str(certified)}])
        assert judgement is False
        assert "Theorem 1 is not about this problem (d = 3 < k = 4" in sentence
        assert f"{certified} of 4 starts are certified" in sentence
        assert "reproduced" not in sentence
        # Of a certified point it would be false.
        assert ("at most 1.2 above. Not proved: that it is a global minimiser" in sentence) is (certified == 0)


@pytest.mark.thorough
def test_a_sweep_leaves_its_report(tmp_path):
    out = tmp_path / "run"
    small = ["--R", "1", "--k", "2", "--n-min", "2", "--d", "2", "--inits", "1"]
    assert sweep_imbalance.main([*small, "--method", "accelerated", "--out", str(out)]) == 0
    page = Page((out / "report.html").read_text())
    assert page.shows(out / "summary.csv")
    assert len(page.images) == 2
    assert "Theorem 1 is reproduced: 1 of 1" in " ".join(page.words)


PROBE = """<script>
const column = name => [...document.querySelectorAll("#results tbody tr")].map(row => row.cells[0].textContent).join();
const seen = {before: column(), orders: []};
const press = () => { document.querySelector("#results th button").click(); seen.orders.push(column()); };
addEventListener("load", () => {
  press(); press();
  seen.images = [...document.images].map(image => image.complete && image.naturalWidth > 0 && image.offsetWidth > 0);
  seen.requests = performance.getEntriesByType("resource").map(e => e.name).filter(name => !/^data:/.test(name));
  seen.wide = document.documentElement.scrollWidth > innerWidth;
  document.body.dataset.seen = JSON.stringify(seen);
});
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [500, 1200], ids=["phone", "desk"])
def test_in_a_browser(swept, width):
    probed = swept.write_bytes("probed.html", rendered(swept.root).replace("</body>", PROBE).encode())
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    switches += ["--disable-component-update", "--disable-sync", f"--user-data-dir={swept.root / 'profile'}"]
    switches += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--v=0",
        f"--window-size={width},900",
    ]
    ran = subprocess.run(
        [BROWSER, *switches, "--dump-dom", f"file://{probed}"], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in ran.stderr
    result = re.search(r'data-seen="([^"]*)"', ran.stdout)
    assert result, ran.stderr
    seen = json.loads(result.group(1).replace("&quot;", '"'))
    assert seen["before"] == "10,2"
    assert seen["orders"] == ["2,10", "10,2"]
    assert seen["images"] == [True, True]
    assert seen["requests"] == []
    assert not seen["wide"]
