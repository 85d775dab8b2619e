"""One plugin file adds a thing of each kind, and all of them are used from the command line.

The file is the page "Add your own": its examples, in their order.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradbench.core.registry import KINDS

PAGE = (Path(__file__).parents[1] / "notebooks" / "guide" / "add_your_own.md").read_text()
PLUGIN = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
MINE = {
    "estimators": "my_average",
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


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The path of the plugin file."""
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def call(plugin):
    """Runs a command with the plugin, in a process of its own: what it prints."""

    def call(*arguments, code=0):
        command = [sys.executable, "-m", "gradbench.cli", *map(str, arguments), "--plugin", plugin]
        environment = os.environ | {"COLUMNS": "200"}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=plugin.parent, env=environment, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return call


@pytest.fixture(scope="module")
def results(plugin, call):
    """The results of the plugin's suite, with its figures drawn."""
    directory = plugin.parent / "results"
    call("run", "my_suite", "--out", directory)
    return directory


def test_the_page_has_an_example_of_every_kind_that_users_add():
    inner = {"activations", "weight_optimisers", "exact_routes", "formats"}
    assert set(MINE) == set(KINDS) - inner
    assert all(name in PLUGIN for name in MINE.values())
    for group in re.findall(r"`gradbench\.(\w+)`", PAGE):
        modules = ("core", "metrics", "models", "suites", "plots", "estimators")
        assert group in MINE or group in modules or importlib.import_module(f"gradbench.{group}")


@pytest.mark.parametrize("kind", MINE)
def test_a_thing_of_a_plugin_is_listed_and_shown(call, kind):
    assert MINE[kind] in call("list", kind)
    shown = call("show", kind.removesuffix("s").replace("_", "-"), MINE[kind])
    assert (MINE[kind] in shown and "mine.py" in shown) or kind == "estimators"


def test_a_suite_of_the_plugin_uses_all_of_it(call, results):
    table = call("table", results, "--metrics", "rmse,my_largest_bias")
    assert "my_average" in table and "largest bias" in table
    assert "A ring, seen by a maxout layer" in call("list", "problems")
    ranked = call("rank", results, "--by", "my_largest_bias")
    assert "my_average" in ranked and "straight_through" in ranked
    assert "12 cells" not in call("run", "my_suite", "--dry-run")


def test_its_figure_is_drawn_with_a_script_and_is_in_the_report(call, results):
    call("plot", results)
    for ending in ("pdf", "svg", "png", "py"):
        assert (results / "figures" / f"my-mean-error.{ending}").stat().st_size > 0
    call("report", results)
    page = (results / "report.html").read_text()
    assert "Longer bars are worse." in page and "my_average" in page and "largest bias" in page


def test_its_estimator_has_the_colour_of_its_family(results):
    from gradbench import metrics
    from gradbench.plots.style import FAMILIES, styles

    frame = metrics.summary(results)
    assert styles(frame)["my_average"].color == FAMILIES["reinforce"].color


def test_its_estimator_is_certified(call):
    assert "unbiased" in call("check", "my_average")


def test_without_the_plugin_its_names_are_unknown_in_one_sentence(plugin):
    command = [sys.executable, "-m", "gradbench.cli", "run", "my_suite"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=plugin.parent, check=False)
    assert done.returncode == 2 and "my_suite" in done.stderr and "Traceback" not in done.stderr
