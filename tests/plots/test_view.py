"""Options of figures: names, choices, widths and ratios; headers, ticks and marks for a paper."""

import io
import itertools
import subprocess
import sys
import warnings
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.figure import Figure
from stored import write_run

from gradbench import plots
from gradbench.cli.commands.plot import read_labels
from gradbench.core.errors import GradbenchError
from gradbench.core.names import visible, visible_lines
from gradbench.plots.curves import rmse_curve
from gradbench.plots.grid import grid, label_outer
from gradbench.plots.layout import clear_notes, finish, limit_entries, limits, zero_line
from gradbench.plots.registry import FIGURES
from gradbench.plots.save import lay_out
from gradbench.plots.style import _VARIANTS, FAMILIES, LIMIT, LINES, PLAIN, styles
from gradbench.plots.ticks import logarithmic, thin
from gradbench.plots.view import View

# Bias and deviation.
ESTIMATORS = {
    "reinforce": (0.0, 14.0),
    "arm": (0.0, 3.0),
    "arm(descendants='independent')": (0.0, 5.0),
    "concrete(temperature=1)": (0.3, 0.2),
    "psa": (0.05, 0.15),
}


def curves(layers=("layer 1", "output"), checkpoints=("epoch 1", "epoch 30"), **more):
    """Curves that are those of bias and deviation, without noise."""
    rows = [
        {
            **{"problem": "toy", "replicate": 0, "checkpoint": checkpoint, "loss": 0.7},
            **{"layer": layer, "estimator": name, "M": m, "bias2": b * b, "variance": s * s},
            "rmse": np.hypot(b, s / m**0.5),
            "exact": name != "arm",
            "evaluations": 1.0 + k,
            "seconds": 1e-4 * 1.7**k,
            "groups": 2000 // m,
        }
        for checkpoint in checkpoints
        for layer in layers
        for k, (name, (b, s)) in enumerate(ESTIMATORS.items())
        for m in (1, 4, 16, 64, 256)
    ]
    frame = pd.DataFrame(rows).assign(zero_gradient=False, rmse_se=0.0, std=1.0, **more)
    cosine = 1.0 / np.hypot(1.0, frame["rmse"])
    edges = {"cosine_q15": cosine - 0.01, "cosine_q85": cosine}
    return frame.assign(
        rmse_low=frame["rmse"], rmse_high=frame["rmse"], bias2_low=frame["bias2"],
        cosine=cosine, **edges
    )  # fmt: skip


def colors_of(figure):
    """The colours of lines with an id, by estimator."""
    found = {}
    for line in figure.findobj(lambda one: str(one.get_gid()).startswith("estimator=")):
        if hasattr(line, "get_color"):
            found[line.get_gid().partition("#")[0].removeprefix("estimator=")] = line.get_color()
    return found


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# --- names and choices ---


@pytest.mark.slow
def test_estimators_are_renamed_and_chosen_and_keep_their_colours():
    frame = curves()
    whole = colors_of(plots.rmse(frame))
    assert len(set(whole.values())) == len(ESTIMATORS) == len(whole)
    some = ["psa", "arm(descendants='independent')"]
    figure = plots.rmse(frame, estimators=some, labels={"psa": "Ours", "arm": "ours too"})
    assert colors_of(figure) == {name: whole[name] for name in some}
    assert legend_of(figure)[:2] == ["Ours", "ARM, independent tails"]  # in this order


def test_a_name_without_arguments_stands_for_all_and_an_alias_for_its_estimator():
    frame = curves().replace("arm", "arm(descendants='shared')")
    view = View.of(frame, estimators=["sah", "arm"])
    assert view.estimators == ("psa", *(name for name in frame["estimator"].unique()[1:3]))
    assert View.of(frame, labels={"sah": "Ours"}).labels == {"psa": "Ours"}
    both = View.of(curves(), estimators=["arm"], labels={"arm": "x"})
    assert both.estimators == ("arm", "arm(descendants='independent')")
    assert both.labels == {"arm": "x"}  # the one that is called so, where there are several


@pytest.mark.slow
def test_layers_are_chosen_in_their_order_and_whole_networks_take_a_single_one():
    frame = curves(["layer 1", "layer 2", "output", "network"], ["epoch 1"])
    axes = plots.rmse(frame, layers=["output", "layer 1"]).axes
    assert [ax.get_title() for ax in axes[:2]] == ["output", "layer 1"] and len(axes) == 2
    loud = frame.assign(rmse=frame["rmse"].where(frame["layer"] != "layer 2", 77.0))
    for layers, shown in ([["layer 2"], True], [["layer 2", "output"], False]):
        drawn = plots.cost(loud, layers=layers).axes[0].lines[0].get_ydata()
        assert (77.0 in drawn) == shown


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"estimators": ["psaa"]}, "no estimator 'psaa' in these results; did you mean 'psa'"),
        ({"estimators": 5}, "estimators is 5; give names, as estimators="),
        ({"layers": ["layer1"]}, "no layer 'layer1' in these results; did you mean 'layer 1'"),
        ({"layers": [1]}, r"layers is \[1\]; give names"),
        ({"labels": ["psa"]}, r"labels is \['psa'\]; give the names of estimators"),
        ({"labels": {"psa": 5}}, "give the names of estimators, as labels="),
        ({"labels": {"psaa": "x"}}, "no estimator 'psaa'"),
        ({"labels": {"psa": " "}}, "the label of 'psa' is empty; give a text"),
        ({"width": "singel"}, "unknown width 'singel'; did you mean 'single'"),
        ({"width": 100}, "width is 100; give 'single', 'double' or 1.5 to 20 inches"),
        ({"width": float("nan")}, "width is nan; give"),
        ({"width": "nan"}, "width is nan; give"),
        ({"width": True}, "width is True; give"),
    ],
)
def test_an_option_that_does_not_fit_is_one_sentence(options, sentence):
    with pytest.raises(GradbenchError, match=sentence) as caught:
        plots.rmse(curves(), **options)
    assert "\n" not in str(caught.value)


HOSTILE = ["$\\bar$", "</text><script>", "a\nb\x1b[31m", "\u202e", "_nolegend_", "_x", "$"]


@settings(max_examples=8)
@given(st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=12))
@pytest.mark.slow
def test_any_label_is_plain_text_in_the_svg(text):
    if not visible(text).strip():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks
        look = View.of(curves(), labels={"psa": text}).styles(curves())
        with rc_context(PLAIN):
            figure = Figure(figsize=(2, 2))
            finish(figure, "", look)
            figure.savefig(written := io.StringIO(), format="svg")
        svg = visible_lines(written.getvalue())
    texts = ["".join(one.itertext()) for one in ElementTree.fromstring(svg).iter()]
    assert any("".join(one.split()) == "".join(visible(text).split()) for one in texts)
    assert "<script" not in svg


# --- layout ---


def test_nothing_drawn_touches_the_note_of_a_zero():
    figure = Figure(figsize=(3, 2))
    ax = figure.subplots()
    ax.set_yscale("log")
    ax.plot([1, 2, 3], [1, 2, 5], marker="o")
    zero_line(ax, styles(["psa"])["psa"], "psa")
    (note,) = ax.texts

    def room():
        """How far above the note the lowest marker is, in pixels."""
        return ax.transData.transform((1, 1))[1] - note.get_window_extent().y1

    assert room() < 0.0
    clear_notes(figure)
    assert 6.0 < room() < 8.0
    clear_notes(figure)
    assert 6.0 < room() < 8.0


def test_a_legend_explains_limits_only_where_there_are_some():
    figure = Figure(figsize=(3, 2))
    ax, look = figure.subplots(), styles(["psa"])["psa"]
    limits(ax, look, [], [], "psa")
    assert limit_entries(figure, "a limit") == []
    limits(ax, look, [1.0], [2.0], "psa")
    assert [one.get_label() for one in limit_entries(figure, "a limit")] == ["a limit"]


@pytest.mark.parametrize(("width", "inches"), [("single", 3.25), ("double", 6.75), (5.5, 5.5)])
@pytest.mark.slow
def test_a_figure_is_as_wide_as_asked_and_nothing_leaves_it(width, inches):
    figure = plots.plane(summary(), width=width)
    assert figure.get_figwidth() == inches
    boxes = [*(ax.get_tightbbox() for ax in figure.axes), figure.legends[0].get_window_extent()]
    for box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1
    sizes = [text.get_fontsize() for ax in figure.axes for text in ax.get_xticklabels()]
    assert min(sizes) >= 6.0


def summary(layers=("layer 1", "layer 2", "output"), **more):
    frame = curves(layers).query("M == 1")
    return frame.assign(bias2_se=0.0, mse=frame["rmse"] ** 2, **more)


def place_of(ax):
    spec = ax.get_subplotspec()
    return spec.rowspan.start, spec.colspan.start


@pytest.mark.parametrize(
    ("rows", "columns", "width", "shape"),
    [
        (2, 4, "double", (2, 4)),
        (2, 4, "single", (4, 2)),  # rows and columns have changed places
        (1, 4, "single", (2, 2)),  # folded
        (1, 3, "single", (2, 2)),
        (3, 2, "single", (3, 2)),
        (1, 1, "single", (1, 1)),
    ],
)
def test_every_header_stands_once_beside_or_above_its_panels(rows, columns, width, shape):
    above, beside = [f"c{j}" for j in range(columns)], [f"r{i}" for i in range(rows)]
    figure, axes = grid(View.of(summary(), width=width), beside, above)
    assert axes.shape == (rows, columns)
    assert tuple(1 + max(k) for k in zip(*map(place_of, axes.flat), strict=True)) == shape
    for ax in axes.flat:
        ax.set(xlabel="x", ylabel="y")
    for ax in axes.flat:
        label_outer(ax)
    written = [ax.get_title() for ax in axes.flat] + [
        t.get_text() for ax in axes.flat for t in ax.texts
    ]
    written.append(figure.get_suptitle())
    assert sorted(filter(None, written)) == sorted([*above, *beside])
    places = {place_of(ax): ax for ax in axes.flat}
    for (i, j), ax in places.items():
        assert bool(ax.get_xlabel()) == ((i + 1, j) not in places)
        assert bool(ax.get_ylabel()) == (j == 0)


def labels_that_overlap(figure):
    """The pairs of tick labels of one axis that overlap in a figure, as it is drawn."""
    lay_out(figure)
    found = []
    for ax in figure.axes:
        for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
            boxes = [
                (text.get_text(), text.get_window_extent()) for text in labels if text.get_text()
            ]
            found += [
                (a, b)
                for (a, one), (b, two) in itertools.combinations(boxes, 2)
                if one.overlaps(two)
            ]
    return found


@pytest.mark.parametrize("inches", [0.7, 1.2, 3.0])
def test_labels_of_ticks_never_run_into_one_another(inches):
    with rc_context(PLAIN):
        figure = Figure(figsize=(inches + 0.5, inches + 0.5), layout="constrained")
        ax = figure.subplots()
        ax.set(xscale="log", yscale="log", xlim=(3e-6, 3.0), ylim=(1e-5, 1e3))
        logarithmic(ax, "x", "s")
        logarithmic(ax, "y")
        lay_out(figure)
        crowded = labels_that_overlap(figure)
        thin(figure)
        assert not labels_that_overlap(figure) and len(ax.get_xticks()) >= 1
    assert bool(crowded) == (inches < 2.0)  # of which this is the mending


@pytest.mark.parametrize("width", ["single", pytest.param("double", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "draw", ["plane", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cost", "rmse"))]
)
@pytest.mark.slow
def test_no_tick_labels_overlap_in_a_figure(draw, width):
    frame = summary() if draw == "plane" else curves(["layer 1", "output", "network"])
    assert not labels_that_overlap(FIGURES[draw].draw(frame, width=width))


def test_more_estimators_than_fit_in_a_column_are_refused_with_the_remedy():
    one = summary().query("checkpoint == 'epoch 1'")
    many = pd.concat([one.assign(estimator=f"concrete(temperature={t})") for t in range(1, 15)])
    with pytest.raises(GradbenchError, match=r"more than 12 estimators .* 3.25 inches"):
        plots.plane(many, width="single")


# --- marks ---


def test_no_estimator_and_no_line_has_the_mark_of_a_limit():
    used = {look.marker for look in (*FAMILIES.values(), *LINES)} | {*_VARIANTS, "*", "."}
    ax = Figure().add_subplot()
    limits(ax, FAMILIES["psa"], [1.0], [2.0], "psa")
    (mark,) = ax.lines
    assert mark.get_marker() == LIMIT and LIMIT not in used and mark.get_linestyle() == "None"
    down = LIMIT.vertices[:, 1]
    assert down.max() == 0.0 and down.min() < -1.0  # the bar is at the limit, and it points down


@pytest.mark.slow
def test_lines_are_solid_where_moments_are_exact_and_the_legend_says_so_once():
    figure = plots.rmse(curves())
    lines = {line.get_gid(): line.is_dashed() for line in figure.axes[0].lines if line.get_gid()}
    assert lines == {f"estimator={name}": name == "arm" for name in ESTIMATORS}
    assert [text for text in legend_of(figure) if "exact" in text or "draws" in text] == [
        "solid: exact moments",
        "broken: from draws",
    ]
    assert not any("=" in text and "t =" not in text for text in legend_of(figure))


def test_the_cosine_is_drawn_as_its_distance_from_one_on_a_logarithmic_axis():
    frame = curves()
    figure = plots.cosine(frame)
    for ax in figure.axes:
        assert ax.get_yscale() == "log"
    (line,) = [line for line in figure.axes[0].lines if line.get_gid() == "estimator=psa"]
    rows = frame[(frame["estimator"] == "psa") & (frame["layer"] == "layer 1")].head(5)
    assert line.get_ydata() == pytest.approx(1.0 - rows["cosine"])


@pytest.mark.parametrize("cost", ["draws", "evaluations"])
def test_ratios_are_to_the_least_error_at_the_same_cost(cost):
    frame = curves(["layer 1"], ["epoch 1"])
    ax = rmse_curve(frame, Figure().add_subplot(), styles(frame), cost, relative=True)
    price = {name: 1.0 if cost == "draws" else 1.0 + k for k, name in enumerate(ESTIMATORS)}
    least = 10.0
    for line in ax.lines:
        name = str(line.get_gid()).removeprefix("estimator=")
        if name not in ESTIMATORS:
            continue
        b, s = ESTIMATORS[name]
        for x, y in line.get_xydata():
            able = [
                np.hypot(c, d * (price[other] / x) ** 0.5)
                for other, (c, d) in ESTIMATORS.items()
                if price[other] <= x
            ]
            assert y == pytest.approx(np.hypot(b, s * (price[name] / x) ** 0.5) / min(able))
            least = min(least, y)
    assert least == pytest.approx(1.0)


def test_a_zero_by_theorem_is_hollow_in_the_plane_with_the_marker_of_its_estimator():
    source = {"reinforce": "theorem", "arm": "theorem"}
    frame = summary(["layer 1"])
    frame = frame.assign(bias_source=frame["estimator"].map(source).fillna("enumeration"))
    frame.loc[frame["estimator"] == "psa", "bias2"] = 0.0  # by enumeration
    figure = plots.plane(frame)
    look = styles(frame)
    for line in figure.axes[0].lines:
        name = str(line.get_gid()).removeprefix("estimator=").partition("#")[0]
        if name in ESTIMATORS:
            assert line.get_marker() == look[name].marker
            assert (line.get_markerfacecolor() == "white") == (name in source)
    assert "hollow: 0 by theorem" in legend_of(figure)
    assert "filled at zero: by enumeration" in legend_of(figure)


# --- files ---


def test_labels_are_read_from_the_command_line():
    texts = ["psa=Ours = best", "concrete(temperature=0.1)=f(x)=y", "st-gs = a b"]
    assert read_labels(texts) == {
        "psa": "Ours = best",
        "concrete(temperature=0.1)": "f(x)=y",
        "st-gs": " a b",
    }
    inner = "mean_of(draws=2, estimator='concrete(temperature=1)')"
    assert read_labels([f"{inner}=x"]) == {inner: "x"}
    for text in ("psa", "=x", "psa=", "(a)=b"):
        with pytest.raises(GradbenchError, match="give an estimator and its name, psa=Ours"):
            read_labels([text])


@pytest.fixture
def results(tmp_path):
    return write_run(tmp_path / "results", problems=["a"], replicates=1, checkpoints=[1])


@pytest.mark.slow
def test_figures_with_options_are_beside_those_of_the_run(results, tmp_path):
    options = {"figures": ["rmse"], "labels": {"psa": '"""$Ours'}, "estimators": ["psa"]}
    first = plots.plot(results, width="single", **options)
    assert {path.parent for path in first} == {results / "paper"}
    assert not (results / "figures.json").exists()  # a run draws its own all the same
    second = plots.plot(results, width="single", **options, out=tmp_path / "elsewhere")
    for one, two in zip(first[:3], second[:3], strict=True):
        assert one.read_bytes() == two.read_bytes()
    script = second[3].read_text()
    assert "labels={" in script and 'estimators=["psa"]' in script and 'width="single"' in script
    assert "../results" in script and str(tmp_path) not in script
    compile(script, "script", "exec")


@pytest.mark.slow
def test_the_script_of_a_figure_with_options_draws_the_same(results, tmp_path):
    options = {"figures": ["plane"], "labels": {"psa": '"""$Ours'}, "layers": ["output"]}
    paths = plots.plot(results, width=4, relative=True, out=tmp_path / "elsewhere", **options)
    before = {path: path.read_bytes() for path in paths}
    for path in paths[:3]:
        path.unlink()
    subprocess.run([sys.executable, str(paths[3])], check=True, cwd="/")
    assert {path: path.read_bytes() for path in paths} == before


def test_a_link_out_of_the_results_is_not_followed(results, tmp_path):
    (results / "paper").symlink_to(tmp_path / "mine")
    with pytest.raises(GradbenchError, match="leads out of the results by a link"):
        plots.plot(results, width="single", figures=["rmse"])
    assert not (tmp_path / "mine").exists()


def test_an_unknown_figure_is_told_the_closest(results):
    with pytest.raises(GradbenchError, match="unknown figure 'rsme'; did you mean 'rmse'"):
        plots.plot(results, figures=["rsme"])
