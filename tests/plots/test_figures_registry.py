"""Figures register themselves: one file adds one, also a user's, with its script and report."""

import subprocess
import sys

import pytest

from gradbench import metrics, plots
from gradbench.core import plugins
from gradbench.core.errors import GradbenchError
from gradbench.core.registry import registry
from gradbench.plots.parts import each_problem
from gradbench.plots.registry import FIGURES, all_figures, figure
from gradbench.plots.suite import plot
from gradbench.report import html as reporting
from gradbench.results.store import Results

PLUGIN = """\
from matplotlib.figure import Figure

from gradbench import plots


@plots.figure(data="curves", suites=["accuracy"], caption="Longer bars are worse.")
def mean_error(curves, title=""):
    \"\"\"The mean RMSE over all M, a bar for each estimator.\"\"\"
    figure = Figure()
    error = curves.groupby("estimator")["rmse"].mean()
    figure.subplots().barh(error.index, error)
    figure.suptitle(title)
    return figure
"""
BUILT_IN = [
    *("accuracy", "rmse", "cosine", "cost", "plane", "pareto", "bias_map"),
    *("overview", "growth", "temperature", "training", "losses"),
    *("result_along", "result_by_size", "learning", "learning_time", "accuracies"),
    *("error_along", "error_and_result"),
    "correlations",
]


@pytest.fixture
def plugin(tmp_path):
    """The path of a plugin file with a figure, which is loaded, and gone after the test."""
    path = tmp_path / "my_figure.py"
    path.write_text(PLUGIN)
    plugins.load(path)
    yield path
    del FIGURES["mean_error"]
    del plugins._loaded[str(path)]
    del sys.modules[str(path)]


def asking_for(folder, name):
    """The results in a folder, of a suite that asks for this figure."""
    results = Results.open(folder / "results")
    results.manifest["suite"]["figure"] = name
    return results


def names_of(results, **more):
    suite = results.manifest["suite"] | more
    return [drawing.function for drawing in plots.drawings(suite, metrics.summary(results))]


def test_every_file_of_a_figure_is_found_without_a_list_of_them():
    assert [kind.name for kind in all_figures()] == BUILT_IN
    assert registry("figures") is FIGURES is registry("figure")
    assert all(callable(getattr(plots, name)) and name in plots.__all__ for name in BUILT_IN)
    for name in BUILT_IN:
        assert FIGURES.facts(name).summary == FIGURES[name].draw.__doc__.partition("\n")[0]


def test_a_figure_is_drawn_for_the_suites_that_it_names_and_for_those_that_name_it(
    plugin, finished_run
):
    accuracy = ["rmse", "cosine", "cost", "plane", "pareto", "bias_map"]
    assert names_of(asking_for(finished_run, "accuracy")) == [*accuracy, "mean_error"]
    assert names_of(asking_for(finished_run, "training")) == [*accuracy, "training", "losses"]
    assert names_of(asking_for(finished_run, "mean-error")) == ["mean_error"]
    assert names_of(asking_for(finished_run, "pareto")) == ["pareto"]


@pytest.mark.slow
def test_a_plugins_figure_is_plotted_with_a_script_that_draws_it_again_the_same(plugin, finished):
    results = asking_for(finished, "mean_error")
    paths = plot(results)
    assert [path.name for path in paths] == [
        f"mean-error.{ending}" for ending in ("pdf", "svg", "png", "py")
    ]
    before = {path: path.read_bytes() for path in paths}
    for path in paths[:3]:
        path.unlink()
    subprocess.run([sys.executable, str(paths[3])], check=True, cwd="/")
    assert {path: path.read_bytes() for path in paths} == before
    assert "finished/results" not in paths[3].read_text()  # the plugin is named relative to it


def test_a_plugins_figure_is_a_function_of_plots_and_has_its_line_in_lists(plugin):
    assert plots.mean_error is FIGURES["mean_error"].draw
    assert FIGURES.facts("mean-error").summary.startswith("The mean RMSE over all M")
    with pytest.raises(AttributeError, match="no attribute 'mean_eror'"):
        plots.mean_eror  # noqa: B018


def test_the_report_shows_a_plugins_figure_with_its_caption(plugin, finished_run, monkeypatch):
    monkeypatch.setattr(reporting, "pictures", lambda *arguments: ([], ""))
    page = reporting.html(asking_for(finished_run, "accuracy"))
    assert page.count('<figure class="card wide">') == 1
    assert "<figcaption>Longer bars are worse.</figcaption>" in page


def test_a_suite_that_asks_for_an_unknown_figure_is_told_the_closest(finished_run):
    with pytest.raises(GradbenchError, match="unknown figure 'growht'; did you mean 'growth'"):
        plot(asking_for(finished_run, "growht"))


def test_a_figure_for_each_problem_is_named_and_titled_by_it(finished_run):
    results = Results.open(finished_run / "results")
    suite, frame = results.manifest["suite"], metrics.summary(results)
    (alone,) = each_problem(suite, frame)
    assert (alone.before, alone.arguments) == ("", {"title": "A tiny problem"})
    (problem,) = suite["problems"]
    suite["problems"] = [problem, problem | {"name": "tiny[small]"}]
    one, two = each_problem(suite, frame_of_two(frame))
    assert (one.before, two.before) == ("tiny-", "tiny[small]-")
    assert two.arguments == {"title": "A tiny problem: small"}


def frame_of_two(frame):
    import pandas as pd

    return pd.concat([frame, frame.assign(problem="tiny[small]")])


def documented(summary, title=""):
    """A figure."""


@pytest.mark.parametrize(
    ("define", "sentence"),
    [
        (lambda: figure("mine")(lambda summary, title="": None), "has no docstring"),
        (
            lambda: figure("rmse")(documented),
            r"the figure 'rmse' .* is taken by 'rmse'",
        ),
        (
            lambda: figure("mine", aliases=["bias-map"])(documented),
            "is taken by 'bias_map'",
        ),
        (lambda: figure("mine", data="summry"), "'summry', which is not a frame; did you mean"),
    ],
)
def test_what_cannot_be_a_figure_is_refused_in_a_sentence(define, sentence):
    with pytest.raises(GradbenchError, match=sentence):
        define()
    assert sorted(FIGURES) == sorted(BUILT_IN)
