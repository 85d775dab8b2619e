"""The figures of runs of training, of numbers that are planted."""

import subprocess
import sys

import numpy as np
import pytest
import trained

from gradbench import metrics, plots
from gradbench.core.errors import GradbenchError
from gradbench.results.store import Results

SIZES = {"reinforce": 3.0, "arm": 1.0, "straight_through": 0.2, "psa": 0.1, "zgr": 0.4}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return trained.write_runs(
        tmp_path_factory.mktemp("figures") / "r",
        deviation=lambda name: SIZES.get(name, 0.4),
        loss=lambda name, seed: SIZES.get(name, 0.4) + 0.1 * seed,
        diverged=[("arm", 1)],
    )


def owners(figure):
    """The estimators whose artists are in a figure."""
    found = figure.findobj(lambda one: str(one.get_gid()).startswith("estimator="))
    return {str(one.get_gid()).partition("=")[2].partition("#")[0] for one in found}


@pytest.mark.slow
def test_a_suite_of_training_has_its_figures_with_scripts(place):
    files = {path.name for path in plots.plot(place)}
    names = {path.partition(".")[0] for path in files}
    each = {"learning", "learning-time", "accuracies", "error-along", "error-and-result"}
    of = {f"a[width={width}]" for width in (4, 6)}
    wanted = {f"{problem}-{name}" for problem in of for name in each} | {"correlations"}
    assert len(names) == len(wanted) and {name[-8:] for name in names} == {w[-8:] for w in wanted}
    assert len(files) == 4 * len(wanted)


@pytest.mark.slow
def test_a_script_draws_the_same_figure(place):
    plots.plot(place)
    figure = place / "figures" / "correlations"
    before = figure.with_suffix(".png").read_bytes()
    figure.with_suffix(".png").unlink()
    subprocess.run([sys.executable, figure.with_suffix(".py")], check=True)
    assert figure.with_suffix(".png").read_bytes() == before


@pytest.mark.slow
def test_lines_of_learning_are_medians_and_end_where_most_runs_diverge(place, tmp_path):
    frame = metrics.learning(place)
    one = frame[frame["problem"] == "a[width=4]"]
    figure = plots.learning(one)
    ax = figure.axes[0]
    lines = {str(line.get_gid()).partition("=")[2]: line for line in ax.get_lines()}
    # Losses 1.0, 1.1 and 1.2 at the end, one of which has diverged: the median is 1.2.
    np.testing.assert_allclose(lines["psa"].get_ydata()[-1], SIZES["psa"] + 0.1)
    np.testing.assert_allclose(lines["arm"].get_ydata()[-1], SIZES["arm"] + 0.2)
    most = one.assign(loss=one["loss"].where((one["estimator"] != "arm") | (one["step"] < 100)))
    lines = {
        str(line.get_gid()).partition("=")[2]: line
        for line in plots.learning(most).axes[0].get_lines()
    }
    assert len(lines["arm"].get_ydata()) == len(lines["psa"].get_ydata()) - 1
    assert owners(figure) == set(trained.ESTIMATORS)


def test_a_point_of_the_scatter_is_a_seed_and_the_exact_gradient_a_line(place):
    frame = metrics.error_results(place)
    one = frame[frame["problem"] == "a[width=4]"]
    figure = plots.error_and_result(one)
    ax = figure.axes[0]
    points = {str(line.get_gid()).partition("=")[2]: line for line in ax.get_lines()}
    drawn = {name: int(np.isfinite(points[name].get_ydata()).sum()) for name in ("psa", "arm")}
    assert drawn == {"psa": 3, "arm": 2}
    rmse = np.sqrt(0.1**2 + SIZES["psa"] ** 2 / 19)
    np.testing.assert_allclose(points["psa"].get_xdata(), rmse, rtol=0.02)
    (exact,) = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
    np.testing.assert_allclose(exact.get_ydata(), 0.4 + 0.1)


@pytest.mark.slow
def test_the_circle_of_a_correlation_is_at_the_m_of_the_optimiser(place):
    figure = plots.correlations(metrics.correlation(place))
    for ax in figure.axes:
        circles = [line for line in ax.get_lines() if line.get_marker() == "o"]
        assert [line.get_xdata().tolist() for line in circles] == [[19], [19]]
        assert all(-1 <= y <= 1 for line in ax.get_lines() for y in line.get_ydata())


def test_figures_of_training_are_of_one_problem_and_of_some_run(place):
    frame = metrics.learning(place)
    for draw in (plots.learning, plots.learning_time, plots.accuracies):
        with pytest.raises(GradbenchError, match="one problem at a time"):
            draw(frame)
    with pytest.raises(GradbenchError, match="nothing to draw"):
        plots.learning(frame[:0])


@pytest.mark.slow
def test_many_estimators_have_a_row_for_each_group_of_families(tmp_path):
    names = [
        "exact",
        "reinforce",
        "arm",
        "psa",
        *(f"concrete(temperature={k})" for k in range(2, 14)),
    ]
    trained.write_runs(tmp_path / "r", estimators=names, problems=("a",), optimisers=["adam"])
    figure = plots.learning(metrics.learning(tmp_path / "r"))
    assert len(figure.axes) == 3 and owners(figure) == set(names)


def test_a_problem_without_a_finished_run_has_no_figure_of_results(tmp_path):
    place = trained.write_runs(
        tmp_path / "r",
        estimators=["exact", "psa"],
        seeds=2,
        done=lambda problem: problem == "a[width=4]",
    )
    frame = metrics.learning(place)
    suite = Results.open(place).manifest["suite"]
    of = [
        one.rows["problem"] for one in plots.drawings(suite, frame) if one.function == "accuracies"
    ]
    assert of == [["a[width=4]"]]


@pytest.mark.parametrize("kind", ["learning", "accuracies"])
@pytest.mark.first(1)
def test_headers_of_optimisers_do_not_run_into_one_another(kind, tmp_path):
    rates = (0, 0.9, 0.99)
    place = trained.write_runs(
        tmp_path / "r",
        seeds=2,
        optimisers=["adam", *(f"nesterov(momentum={rate})" for rate in rates)],
        problems=("a",),
    )
    figure = getattr(plots, kind)(metrics.learning(place))
    figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in figure.axes if ax.get_title()]
    assert len(boxes) == 4
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])


def test_many_optimisers_are_folded_in_lines_and_each_method_has_a_line_of_accuracies(tmp_path):
    weights = "bayesian_learning_rule(examples=1297)"
    optimisers = ["adam", weights, *(f"nesterov(momentum=0.{k})" for k in range(1, 6)), "sgd"]
    place = trained.write_runs(
        tmp_path / "r",
        seeds=2,
        optimisers=optimisers,
        problems=("a",),
        estimators=["psa", "arm"],
        measured=0,
        only={weights: ["arm"]},
    )
    frame = metrics.learning(place)
    figure = plots.learning(frame)
    figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in figure.axes]
    lines = {round(ax.get_position().y0, 2) for ax in figure.axes}
    assert len(boxes) == 8 and len(lines) == 2
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
    (ax,) = plots.accuracies(frame).axes
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert len(labels) == 15 and f"ARM, {weights}" in labels and f"PSA, {weights}" not in labels
