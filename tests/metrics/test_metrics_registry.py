"""Metrics register themselves: one file adds one, also a user's, and it is everywhere."""

import sys

import numpy as np
import pytest
from stored import drawn

from gradbench.cli.main import main
from gradbench.core import plugins
from gradbench.core.errors import GradbenchError
from gradbench.core.registry import registry
from gradbench.metrics import (
    METRICS,
    Estimate,
    check_metrics,
    compare,
    coordinates,
    layers_of,
    metric,
    rank,
    summary,
)
from gradbench.metrics import registry as metric_registry
from gradbench.report import html as reporting
from gradbench.results.store import Results

PLUGIN = """\
from gradbench.metrics import metric


@metric(title="largest bias", aliases=["max_bias"])
def largest_bias(found, average):
    \"\"\"max over coordinates of |E g - G|, relative to |G|.\"\"\"
    mean, _ = found.sample.mean_and_variance()
    return abs(mean - found.sample.direction).max()
"""


@pytest.fixture
def plugin(tmp_path):
    """The path of a plugin file with a metric, which is loaded, and gone after the test."""
    path = tmp_path / "my_metric.py"
    path.write_text(PLUGIN)
    plugins.load(path)
    yield path
    del METRICS["largest_bias"]
    del plugins._loaded[str(path)]
    del sys.modules[str(path)]


def cell(**more):
    draws = np.random.default_rng(0).normal([3.0, 4.0], 1.0, (256, 2))
    return drawn(draws, np.array([3.0, 4.0]), **more)


def test_a_metric_of_a_plugin_is_a_column_of_every_frame(plugin, finished_run):
    results = finished_run / "results"
    frame = summary(results)
    largest = coordinates(results).assign(size=lambda rows: rows["bias"].abs())
    largest = largest.groupby(["checkpoint", "layer", "estimator"])["size"].max()
    layers = frame[frame["layer"] != "network"]
    for row in layers.to_dict("records"):
        place = row["checkpoint"], row["layer"], row["estimator"]
        assert row["largest_bias"] == pytest.approx(largest[place], rel=1e-12)
    assert layers["largest_bias_se"].isna().all()  # a plain number has no interval
    assert list(frame.columns).index("largest_bias") > list(frame.columns).index("rmse")


@pytest.mark.slow
def test_a_metric_of_a_plugin_is_listed_printed_ranked_and_compared(plugin, finished_run, capsys):
    def printed(*arguments):
        assert main([*map(str, arguments), "--plugin", str(plugin)]) == 0
        return capsys.readouterr().out

    results = finished_run / "results"
    assert "max over coordinates of |E g - G|, relative to |G|" in printed("list", "metrics")
    table = printed("table", results, "--metrics", "largest_bias,rmse")
    assert "largest bias" in table and "largest bias: max over coordinates" in table
    ranked = printed("rank", results, "--by", "max-bias", "--layer", "output")
    assert "largest bias" in ranked
    frame = rank(results, "max_bias", layer="output", at="1-draw")
    assert frame["largest_bias"].notna().all()
    compared = printed("compare", results, results, "--by", "max_bias")
    assert "largest bias" in compared and "24 same" in compared
    assert compare(results, results, "max-bias")["change"].eq("same").all()


@pytest.mark.slow
def test_the_report_has_a_column_and_the_meaning_of_a_plugins_metric(
    plugin, finished_run, monkeypatch
):
    monkeypatch.setattr(reporting, "pictures", lambda *arguments: ([], ""))
    page = reporting.html(Results.open(finished_run / "results"))
    meaning = "max over coordinates of |E g - G|, relative to |G|"
    assert f'title="{meaning}" data-better="low">largest bias</th>' in page
    assert f"<dt>largest bias</dt><dd>{meaning}" in page


def test_a_metric_is_found_by_its_aliases_and_misspelt_names_are_corrected(plugin):
    assert check_metrics(["max-bias", "scale-free bias"]) == ["largest_bias", "scale_free_bias"]
    with pytest.raises(GradbenchError, match="unknown metric 'larges_bias'; did you mean 'largest"):
        check_metrics(["larges_bias"])
    assert registry("metrics") is METRICS is registry("metric")
    assert METRICS.facts("largest_bias").origin == "my_metric.py, line 4"


def test_metrics_of_installed_packages_are_columns_too(monkeypatch):
    """They are asked for before any name is looked up."""
    asked = []
    monkeypatch.setattr(plugins, "load_installed", lambda kind, accept: asked.append(kind))
    next(layers_of(cell())).row(1)
    assert "metrics" in asked
    assert list(metric_registry.all_metrics())[:2] == ["rmse", "mse"]


@pytest.mark.parametrize(
    ("define", "sentence"),
    [
        (lambda: metric()(lambda found, average: 0.0), "has no docstring; say in its first line"),
        (
            lambda: metric("rmse")(documented),
            r"the metric 'rmse' .* is taken by 'rmse'",
        ),
        (
            lambda: metric("mine", aliases=["SNR"])(documented),
            "'SNR' .* is taken by 'snr'",
        ),
        (lambda: metric(better="lower"), "better='lower'; give 'low' or 'high'"),
    ],
)
def test_what_cannot_be_a_metric_is_refused_in_a_sentence(define, sentence):
    before = dict(METRICS)
    with pytest.raises(GradbenchError, match=sentence):
        define()
    assert dict(METRICS) == before


def documented(found, average):
    """a number."""
    return 0.0


def test_a_metric_that_returns_neither_estimate_nor_number_is_named():
    def words(found, average):
        """words."""
        return "much"

    metric()(words)
    try:
        with pytest.raises(GradbenchError, match="the metric 'words' returned 'much'; return an"):
            summary([cell()])
    finally:
        del METRICS["words"]


def test_where_the_gradient_is_zero_no_metric_is_asked():
    def refusing(found, average):
        """never asked."""
        raise AssertionError

    metric()(refusing)
    try:
        (found,) = layers_of(cell()._replace(gradient=[np.zeros(2)]))
        assert np.isnan(found.estimate("refusing")).all()
    finally:
        del METRICS["refusing"]


def test_an_estimate_keeps_the_interval_that_the_metric_gives_it():
    def twice(found, average):
        """twice the RMSE."""
        return found.estimate("rmse", average).times(2.0)

    metric()(twice)
    try:
        (found,) = layers_of(cell())
        assert found.estimate("twice", 4) == Estimate(*2.0 * np.array(found.estimate("rmse", 4)))
    finally:
        del METRICS["twice"]
