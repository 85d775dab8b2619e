"""One plugin file adds a thing of each kind, and all of them are used from the command line.

The file is the page "Add your own": its examples, in their order.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradbench import metrics
from gradbench.core.registry import KINDS
from gradbench.plots.style import FAMILIES, styles

PAGE = (Path(__file__).parents[1] / "notebooks" / "guide" / "add_your_own.md").read_text()
PLUGIN = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
MINE = {
    "estimators": "my_average",
    "proxies": "my_gauss",
    "noises": "my_sech",
    "layers": "my_maxout",
    "objectives": "my_hinge",
    "data_sets": "my_ring",
    "initialisations": "my_normal",
    "optimisers": "my_lion",
    "metrics": "my_largest_bias",
    "figures": "my_mean_error",
    "problems": "my_problem",
    "suites": "my_suite",
}


TELLING = {
    **{f"list {kind}": ["list", kind] for kind in MINE},
    **{f"show {kind}": ["show", kind, name] for kind, name in MINE.items()},
    "dry run": ["run", "my_suite", "--dry-run"],
}
MEASURING = {
    "run": ["run", "my_suite", "--out", "results"],
    "table": ["table", "results", "--metrics", "rmse,my_largest_bias"],
    "rank": ["rank", "results", "--by", "my_largest_bias"],
    "report": ["report", "results"],
    "check": ["check", "my_average"],
}
# One process for all commands: each of its own would import JAX again.
DRIVER = """
import contextlib, io, json, sys
from gradbench.cli.main import main

answers = {}
for name, arguments in json.loads(sys.argv[1]).items():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*arguments, "--plugin", "mine.py"])
    answers[name] = code, out.getvalue()
print(json.dumps(answers))
"""


def answers(commands, folder):
    """What each command prints in a folder with the plugin file; all of them succeed."""
    (folder / "mine.py").write_text(PLUGIN)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: code for name, (code, _) in found.items() if code} == {}
    return {name: text for name, (_, text) in found.items()}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What is said of the plugin's things, by the commands that measure nothing."""
    return answers(TELLING, tmp_path_factory.mktemp("told"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the plugin file, in which its suite is measured."""
    return tmp_path_factory.mktemp("plugin")


@pytest.fixture(scope="module")
def measured(folder):
    """What the commands that measure have printed there."""
    return answers(MEASURING, folder)


def test_the_page_has_an_example_of_every_kind_that_users_add():
    inner = {"activations", "baselines", "weight_optimisers", "exact_routes", "formats"}
    assert set(MINE) == set(KINDS) - inner
    assert all(name in PLUGIN for name in MINE.values())
    for group in re.findall(r"`gradbench\.(\w+)`", PAGE):
        modules = ("core", "metrics", "models", "suites", "plots", "estimators")
        assert group in MINE or group in modules or importlib.import_module(f"gradbench.{group}")


@pytest.mark.parametrize("kind", MINE)
def test_a_thing_of_a_plugin_is_listed_and_shown(told, kind):
    assert MINE[kind] in told[f"list {kind}"]
    shown = told[f"show {kind}"]
    assert MINE[kind] in shown
    assert "mine.py" in shown or kind == "estimators"  # which are told by formula and source


def test_a_suite_of_the_plugin_is_described(told):
    assert "my_problem: 3-2 hidden units, epoch 2" in told["dry run"]
    assert "A ring, seen by a maxout layer" in told["list problems"]


@pytest.mark.slow
def test_a_suite_of_the_plugin_uses_all_of_it(measured):
    assert "my_average" in measured["table"] and "largest bias" in measured["table"]
    assert "my_average" in measured["rank"] and "straight_through" in measured["rank"]


@pytest.mark.slow
def test_its_figure_is_drawn_with_a_script_and_is_in_the_report(folder, measured):
    assert "figures in results/figures" in measured["run"]
    for ending in ("pdf", "svg", "png", "py"):
        assert (folder / "results" / "figures" / f"my-mean-error.{ending}").stat().st_size > 0
    page = (folder / "results" / "report.html").read_text()
    assert "Longer bars are worse." in page and "my_average" in page and "largest bias" in page


@pytest.mark.slow
def test_its_estimator_has_the_colour_of_its_family(folder, measured):
    frame = metrics.summary(folder / "results")
    assert styles(frame)["my_average"].color == FAMILIES["reinforce"].color


@pytest.mark.slow
def test_its_estimator_is_certified(measured):
    assert "unbiased" in measured["check"]


@pytest.mark.slow
def test_without_the_plugin_its_names_are_unknown_in_one_sentence(folder):
    command = [sys.executable, "-m", "gradbench.cli", "run", "my_suite"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 2 and "my_suite" in done.stderr and "Traceback" not in done.stderr
