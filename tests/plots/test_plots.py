"""Figures of synthetic frames: what is on them, and that they can be saved."""

from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.text import Text

from gradbench import plots
from gradbench.core.display import display_names
from gradbench.core.errors import GradbenchError
from gradbench.metrics.changes import Change
from gradbench.metrics.temperature import Unit
from gradbench.plots import (
    FEW_GROUPS,
    accuracy,
    bias_heat_map,
    bias_map,
    bias_variance_plane,
    cosine_curve,
    cost,
    error_and_cost,
    growth,
    losses,
    overview,
    pareto,
    plane,
    rmse,
    rmse_curve,
    save,
    temperature,
    training,
)
from gradbench.plots.style import FAMILIES, GROUPS, LIMIT, LINES, family_of, styles
from gradbench.suites.suite import load_suite

# Relative bias and standard deviation.
ESTIMATORS = {
    "reinforce": (0.0, 13.8),
    "arm": (0.0, 2.3),
    "concrete(temperature=0.1)": (0.1, 7.7),
    "concrete(temperature=1)": (0.4, 0.3),
    "straight_through": (0.2, 0.1),
    "mean_field": (0.25, 0.0),
    "psa": (0.06, 0.14),
    "exact": (0.0, 0.0),
}
NAMES = display_names(ESTIMATORS)
DRAWS = 20_000


CHECKPOINTS = ("epoch 1", "epoch 100", "epoch 2000")


def curves_frame(layers=("layer 1", "output"), checkpoints=CHECKPOINTS, zero_gradient=()):
    rows = []
    for checkpoint in checkpoints:
        for layer in layers:
            for estimator, (bias, std) in ESTIMATORS.items():
                for average in [1, 4, 16, 64, 256, 1024, 4096, 9000]:
                    rmse = 2e-16 if estimator == "exact" else np.hypot(bias, std / average**0.5)
                    cosine = 1 / np.hypot(1, rmse)
                    row = {
                        "problem": "toy",
                        "replicate": 0,
                        "checkpoint": checkpoint,
                        "loss": 0.6931,
                    }
                    row |= {"layer": layer, "estimator": estimator, "M": average, "rmse": rmse}
                    row |= {"rmse_se": 0.1 * rmse * (std > 0), "groups": DRAWS // average}
                    row |= {"cosine": cosine, "cosine_q15": cosine - 0.1 * (std > 0)}
                    row |= {"cosine_q85": cosine, "zero_gradient": layer in zero_gradient}
                    row |= {"exact": estimator == "psa", "bias2": bias**2, "variance": std**2}
                    rows.append(row)
    return with_costs(pd.DataFrame(rows)).pipe(
        lambda frame: frame.assign(
            bias2_low=frame["bias2"],
            rmse_low=frame["rmse"] - 2 * frame["rmse_se"],
            rmse_high=frame["rmse"] + 2 * frame["rmse_se"],
        )
    )


def with_costs(frame):
    """Evaluations and seconds per draw: 1, 2, 3, ... in the order of the estimators."""
    evaluations = 1 + frame["estimator"].map(list(frame["estimator"].unique()).index)
    return frame.assign(evaluations=evaluations, seconds=1e-5 / evaluations)


def summary_frame(by="width", sizes=range(2, 6), replicates=3):
    rng = np.random.default_rng(0)
    rows = []
    for size in sizes:
        for layer in range(1, (size if by == "depth" else 2) + 1):
            for replicate in range(replicates):
                for estimator, (bias, std) in ESTIMATORS.items():
                    se = std**2 / DRAWS
                    row = {
                        "problem": "toy",
                        "replicate": replicate,
                        "checkpoint": "untrained",
                        by: size,
                    }
                    row |= {"layer": f"layer {layer}", "estimator": estimator, "bias2_se": se}
                    row |= {"bias2": bias**2 + se * rng.normal(), "variance": std**2}
                    rows.append(row | {"zero_gradient": False, "mse": bias**2 + std**2})
    return with_costs(pd.DataFrame(rows))


EPOCHS = (0, 1, 3, 10, 30)


def losses_frame(problems=("toy",), epochs=EPOCHS, replicates=1):
    """A summary along training, and the loss of each problem, epoch and replicate."""
    frame = summary_frame("epoch", epochs, replicates)
    frame = pd.concat([frame.assign(problem=name) for name in problems], ignore_index=True)
    offset = frame["problem"].map(list(problems).index)
    return frame.assign(loss=2.0 + offset - 0.01 * frame["epoch"] + 0.1 * frame["replicate"])


def axes_of(figure):
    """The panels, where they are when the figure is drawn."""
    figure.get_layout_engine().execute(figure)
    return figure.axes


def line_of(ax, estimator, style):
    """The x and y data of an estimator's line in a panel."""
    lines = [line for line in ax.lines if line.get_color() == style[estimator].color]
    return lines[0].get_xydata().T if lines else np.empty((2, 0))


def filled(ax, estimator, style):
    """The x and y data of an estimator's line in a panel of growth, without its gaps."""
    lines = [
        line.get_xydata().T
        for line in ax.lines
        if line.get_color() == style[estimator].color and line.get_markerfacecolor() != "none"
    ]
    points = np.concatenate(lines, axis=1) if lines else np.empty((2, 0))
    return points[:, ~np.isnan(points[1])]


@pytest.mark.slow
def test_accuracy_has_a_panel_per_layer_and_checkpoint_with_headers_that_stand_once():
    figures = accuracy(curves_frame(), "toy")
    assert list(figures) == ["rmse", "cosine"]
    for kind, figure in figures.items():
        axes = axes_of(figure)
        assert [ax.get_title() for ax in axes] == ["layer 1", "output", "", "", "", ""]
        beside = [f"epoch {epoch}\nloss 0.693" for epoch in (1, 100, 2000)]
        assert [text for ax in axes for text in headers_of(ax)] == beside
        assert all(headers_of(ax) for ax in axes[1::2])
        (legend,) = figure.legends
        names = [NAMES[name] for name in ESTIMATORS if name != "exact"] + ["broken: from draws"]
        if kind == "rmse":  # where PSA comes from exact moments
            names += ["solid: exact moments"]
        assert sorted(text.get_text() for text in legend.get_texts()) == sorted(names)


def headers_of(ax):
    """The headers of rows beside a panel."""
    return [text.get_text() for text in ax.texts if text.get_rotation() == 270]


NESTED = [
    f"nested(activations='psa', weights='{weights}')"
    for weights in ("arm", "straight_through", "concrete(temperature=0.5)")
]


def nested_frame():
    """Many estimators with long names, as in the suite of binary weights."""
    frame = losses_frame()
    some = frame[frame["estimator"].isin(["arm", "straight_through", "psa"])]
    names = dict(zip(["arm", "straight_through", "psa"], NESTED, strict=True))
    return pd.concat([frame, some.assign(estimator=some["estimator"].map(names))])


FOUR = ["layer 1", "layer 2", "layer 3", "output"]


def of_the_zoo(frame):
    """The frame with all estimators of the suite zoo in the place of its own."""
    model = frame[frame["estimator"] == "straight_through"]
    names = load_suite("zoo").estimators
    return pd.concat([model.assign(estimator=name) for name in names], ignore_index=True)


def zoo_overview(layers=FOUR):
    rows = of_the_zoo(summary_frame(sizes=[2], replicates=1)).drop_duplicates("estimator")
    place = np.arange(len(rows)) / 10
    seen = rows.assign(bias2=10.0 ** (-4 + place), bias2_se=0.0, variance=10.0 ** (2 - place))
    hidden = rows.assign(bias2=1e-4, bias2_se=1e-3, variance=1.0)
    mixed = pd.concat([seen[:20], hidden[20:30], seen[30:].assign(bias2=0.0)])
    frame = pd.concat([mixed.assign(layer=layer) for layer in layers])
    zero = family_name(frame).isin(["exact", "psa"])
    return frame.assign(variance=frame["variance"].where(~zero, 0.0))


def family_name(frame):
    return frame["estimator"].str.partition("(")[0]


T = np.array([0.03, 0.1, 0.3, 1.0])


def temperatures_frame():
    """Two estimators with temperatures, bias t and t^2, and two without."""
    rows = []
    for problem in ("polynomial[linear]", "polynomial[quadratic]", "quadratic[three-units]"):
        for t in T:
            for name, bias in (("concrete", t**2), ("st_gumbel_softmax", t)):
                rows.append((problem, f"{name}(temperature={t})", bias, t**-0.5))
        rows += [(problem, "zgr", 0.0, 0.6), (problem, "straight_through", 0.2, 0.5)]
    frame = pd.DataFrame(rows, columns=["problem", "estimator", "bias2", "variance"])
    more = {"replicate": 0, "checkpoint": "untrained", "layer": "layer 1", "zero_gradient": False}
    return frame.assign(
        **more, bias2=frame["bias2"] ** 2, variance=frame["variance"] ** 2, bias2_se=0.0
    )


def several_layers(frame, layers=FOUR):
    return pd.concat([frame.assign(layer=layer) for layer in layers], ignore_index=True)


def points_frame(layers=FOUR):
    """A summary of the network and some layers, of all kinds of points."""
    return several_layers(losses_frame(epochs=(1, 100)), [*layers, "network"]).drop_duplicates(
        ["epoch", "layer", "estimator"]
    )


def zoo_points():
    frame = several_layers(zoo_overview(["layer 1"]), [*FOUR, "network"])
    evaluations = 2.0 ** (np.arange(len(frame)) % 9)
    mse = frame["bias2"] + frame["variance"]
    return frame.assign(evaluations=evaluations, seconds=1e-5 * evaluations, mse=mse)


def zoo_costs():
    """The curves of all estimators of the zoo, no two the same."""
    frame = of_the_zoo(curves_frame(["network"], ["epoch 1"]))
    factor = 1.1 ** frame["estimator"].map(list(frame["estimator"].unique()).index)
    return frame.assign(
        evaluations=factor, seconds=1e-5 * factor, rmse=frame["rmse"] * factor, bias2=0.0
    )


SIZES = {"layer 1": 15, "layer 2": 30, "output": 6}


def coordinates_frame(names=tuple(ESTIMATORS), checkpoints=("epoch 1", "epoch 100")):
    """Biases of 0.1, 0.2, ... and the gradient, in units of |G|; that of ARM has errors."""
    rows = []
    for checkpoint in checkpoints:
        for layer, size in SIZES.items():
            k = np.arange(size)
            key = {"problem": "toy", "replicate": 0, "checkpoint": checkpoint, "layer": layer}
            values = {"coordinate": k, "gradient": np.cos(k) / 4, "bias": 0.1 * (k + 1) * (-1) ** k}
            for name in names:
                se = 0.051 if name == "arm" else 0.0
                rows.append(pd.DataFrame(key | values | {"estimator": name, "bias_se": se}))
    return pd.concat(rows, ignore_index=True)


MANY = [f"weights[{name}]" for name in ("mirror", "binary-connect", "triangular", "sgd")]
FULL = {
    "rmse": lambda: accuracy(curves_frame(FOUR), "toy")["rmse"],
    "cosine": lambda: accuracy(curves_frame(FOUR), "toy")["cosine"],
    "training": lambda: training(nested_frame(), "toy"),
    "losses": lambda: losses(losses_frame(MANY, (0, 1, 10, 100, 1000)), "toy"),
    "loss": lambda: losses(losses_frame(), "toy"),
    "overview": lambda: overview(zoo_overview(), "toy"),
    "overview, 1": lambda: overview(zoo_overview(["layer 1"]), "toy"),
    "temperature": lambda: temperature(temperatures_frame(), {}, "toy"),
    "cost": lambda: cost(curves_frame(["network"]), "toy"),
    "plane": lambda: plane(points_frame(), "toy"),
    "plane of a layer": lambda: plane(points_frame(["layer 1"]), "toy"),
    "pareto": lambda: pareto(points_frame(), "toy"),
    "pareto, 44": lambda: pareto(zoo_points(), "toy"),
    "bias-map": lambda: bias_map(coordinates_frame(), "toy"),
}


SLOW = {
    "rmse-score": lambda: accuracy(of_the_zoo(curves_frame(FOUR)), "toy")["rmse-score"],
    "cosine-relaxed": lambda: accuracy(of_the_zoo(curves_frame(FOUR)), "toy")["cosine-relaxed"],
    "cost, 44": lambda: cost(zoo_costs(), "toy"),
    "plane, 44": lambda: plane(zoo_points(), "toy"),
    "bias-map, 44": lambda: bias_map(coordinates_frame(load_suite("zoo").estimators, ["-"]), "toy"),
}


@pytest.mark.parametrize(
    "kind", [*FULL, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)]
)
@pytest.mark.slow
def test_panels_legend_and_title_do_not_overlap(kind):
    figure = (FULL | SLOW)[kind]()
    boxes = [ax.get_tightbbox() for ax in axes_of(figure)]
    legends = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    boxes += [legend.get_window_extent() for legend in (*figure.legends, *legends)]
    page = figure.bbox
    for k, box in enumerate(boxes):
        assert box.width > 0 and box.height > 0
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        for other in boxes[:k]:
            assert not box.padded(-1).overlaps(other.padded(-1))


@pytest.mark.slow
def test_many_estimators_are_drawn_in_one_figure_for_each_group_of_families():
    frame = of_the_zoo(curves_frame(["layer 1"], ["epoch 1"]))
    figures = accuracy(frame, "toy")
    names = [f"{kind}-{group}" for kind in ("rmse", "cosine") for group in GROUPS]
    assert list(figures) == names
    shown = [
        text.get_text()
        for group in GROUPS
        for text in figures[f"rmse-{group}"].legends[0].get_texts()
        if not text.get_text().startswith(("solid:", "broken:", "change of"))
    ]
    names = display_names(frame["estimator"].unique())
    assert sorted([*shown, "exact"]) == sorted(names.values())
    assert figures["rmse-score"].get_suptitle() == "toy: score"
    few = frame[frame["estimator"].isin(frame["estimator"].unique()[:12])]
    assert list(accuracy(few)) == ["rmse", "cosine"]


@pytest.mark.slow
def test_an_overview_has_a_line_for_each_estimator_with_its_bias_and_deviation():
    frame = zoo_overview(["layer 1"])
    (ax,) = axes_of(overview(frame))
    labels = [text.get_text() for text in ax.get_yticklabels()]
    names = display_names(load_suite("zoo").estimators)
    assert sorted(labels) == sorted(set(names.values()) - {"exact"})
    points = {}
    for line in ax.lines:
        if len(line.get_xdata()) == 1:
            kind = "std" if line.get_markerfacecolor() == "none" else "bias"
            kind = {LIMIT: "limit", "D": "theorem"}.get(line.get_marker(), kind)
            points[labels[int(line.get_ydata()[0])], kind] = line.get_xdata()[0]
    (zero,) = [tick for tick in ax.get_xticks() if ax.xaxis.get_major_formatter()(tick) == "0"]
    assert zero < min(value for value in points.values() if value != zero)
    for row in frame[frame["estimator"] != "exact"].itertuples():
        name, hidden = names[row.estimator], row.bias2_se > 0
        assert points[name, "std"] == pytest.approx(np.sqrt(row.variance) or zero)
        if hidden:
            limit = np.sqrt(row.bias2 + 3 * row.bias2_se)
            assert points[name, "limit"] == pytest.approx(limit)
        else:  # no point is left out
            assert points[name, "bias"] == pytest.approx(np.sqrt(row.bias2) or zero)
        assert ((name, "bias") in points) != hidden


@pytest.mark.slow
def test_a_zero_by_theorem_has_a_mark_of_its_own_in_an_overview():
    frame = zoo_overview(["layer 1"])
    frame = frame.assign(bias_source=np.where(frame["bias2"] == 0, "theorem", "test"))
    (ax,) = axes_of(overview(frame))
    marked = {line.get_gid().partition("#")[0] for line in ax.lines if line.get_marker() == "D"}
    certified = frame["estimator"][(frame["bias2"] == 0) & (frame["estimator"] != "exact")]
    assert marked == {f"estimator={name}" for name in certified} and len(marked) > 10


@pytest.mark.slow
def test_temperatures_go_to_the_right_with_levels_and_closed_forms():
    unit = Unit(1.0, 1.0, 0.0)
    frame = temperatures_frame()
    axes = axes_of(temperature(frame, {"polynomial[linear]": unit}))
    assert [ax.get_title() for ax in axes[:3]] == ["linear", "quadratic", "three-units"]
    look = styles(["concrete", "st_gumbel_softmax", "zgr", "straight_through"])
    for ax, values in ((axes[0], T**2), (axes[3], T**-0.5)):
        t, drawn = filled(ax, "concrete", look)
        assert t == pytest.approx(T) and drawn == pytest.approx(values)
    assert filled(axes[0], "straight_through", look)[1] == pytest.approx(0.2)
    assert filled(axes[0], "zgr", look)[1].tolist() == [0.03] * 2  # of the panel: no bias
    assert "ZGR: 0" in [text.get_text() for text in axes[0].texts]
    assert filled(axes[3], "zgr", look)[1] == pytest.approx(0.6)
    grey = [[line for line in ax.lines if line.get_color() == "0.6"] for ax in axes]
    assert [len(lines) for lines in grey] == [1, 0, 0, 1, 0, 0]
    t, bias = grey[0][0].get_xydata().T
    assert bias == pytest.approx(abs(unit.concrete_bias(t)) / unit.gradient)
    with pytest.raises(GradbenchError, match="got no estimator with a temperature; add some"):
        temperature(frame[frame["estimator"] == "zgr"])


@pytest.mark.slow
def test_the_exact_estimator_does_not_stretch_the_logarithmic_axis():
    frame = curves_frame()
    figures = accuracy(frame)
    for ax in axes_of(figures["rmse"]):
        low, high = ax.get_ylim()
        rest = frame[frame["estimator"] != "exact"]["rmse"]
        assert rest.min() / 10 < low < rest.min() and rest.max() < high < rest.max() * 10
        assert "exact: 0" in [text.get_text() for text in ax.texts]
    for ax in axes_of(figures["cosine"]):
        assert ax.get_yscale() == "log" and "exact: 0" in [text.get_text() for text in ax.texts]
        rest = 1 - frame[frame["estimator"] != "exact"]["cosine"]
        assert rest.min() / 30 < ax.get_ylim()[0] < rest.min()


def test_a_curve_shows_the_numbers_of_the_frame():
    frame = curves_frame(["layer 1"], ["epoch 1"])
    figure = matplotlib.figure.Figure()
    style = styles(frame["estimator"])
    for curve, column in [(rmse_curve, "rmse"), (cosine_curve, "cosine")]:
        ax = figure.add_subplot()
        assert curve(frame.sample(frac=1, random_state=0), ax) is ax
        for estimator in set(ESTIMATORS) - {"exact"}:
            rows = frame[frame["estimator"] == estimator]
            shown = rows[column] if column == "rmse" else 1 - rows["cosine"]
            expected = np.array([rows["M"], shown])
            assert np.array_equal(line_of(ax, estimator, style), expected)


def test_the_cosine_band_ends_where_the_groups_are_few():
    frame = curves_frame(["layer 1"], ["epoch 1"])
    frame = frame[frame["estimator"] == "psa"]
    ax = cosine_curve(frame, matplotlib.figure.Figure().add_subplot())
    (band,) = ax.collections
    reach = band.get_paths()[0].vertices[:, 0].max()
    assert reach == frame["M"][frame["groups"] >= FEW_GROUPS].max() == 256


def test_an_rmse_not_told_from_zero_has_the_mark_of_its_limit():
    frame = curves_frame(["layer 1"], ["epoch 1"])
    frame = frame[frame["estimator"] == "arm"].assign(rmse_se=lambda rows: 0.1 * rows["rmse"])
    frame.iloc[-1, frame.columns.get_loc("rmse")] = 0.0
    ax = rmse_curve(frame, matplotlib.figure.Figure().add_subplot())
    assert line_of(ax, "arm", styles(["arm"]))[0].max() == 4096
    (limit,) = [line for line in ax.lines if line.get_marker() == LIMIT]
    assert limit.get_xydata().tolist() == [[9000, frame["rmse_high"].iloc[-1]]]


def test_a_cosine_of_one_is_at_the_edge_and_the_others_are_where_they_were():
    frame = curves_frame(["layer 1"], ["epoch 1"]).query("estimator == 'arm'")
    frame.iloc[-1, frame.columns.get_loc("cosine")] = 1.0
    ax = cosine_curve(frame, panel())
    line, edge = (line for line in ax.lines if line.get_gid() == "estimator=arm")
    assert line.get_xdata().max() == 4096
    assert edge.get_xydata().tolist() == [[9000, 0]]
    assert edge.get_transform() == ax.get_xaxis_transform() and edge.get_marker() == "D"


@pytest.mark.parametrize("layers", [["layer 1", "output"], ["layer 1"]])
@pytest.mark.slow
def test_a_layer_of_zero_gradient_says_so(layers):
    for figure in accuracy(curves_frame(layers, zero_gradient=["layer 1"])).values():
        texts = [[text.get_text() for text in ax.texts] for ax in axes_of(figure)]
        assert ["zero gradient" in text for text in texts] == [k == "layer 1" for k in layers] * 3


def test_estimators_are_told_apart_by_colour_and_by_marker():
    style = styles(ESTIMATORS)
    assert set(style) == set(ESTIMATORS)
    assert len({look.color for look in style.values()}) == len(style)
    assert len({look.marker for look in style.values()}) == len(style)
    assert all(look.line == "-" for look in FAMILIES.values())  # which says what is exact
    assert style["psa"] == FAMILIES["psa"]._replace(label="PSA") == styles(["psa"])["psa"]


def test_variants_are_ordered_by_their_numbers_and_unknown_families_have_a_style():
    names = ["concrete(temperature=10)", "mine", "concrete(temperature=2)", "reinforce"]
    style = styles(names)
    assert list(style) == ["reinforce", names[2], names[0], "mine"]
    assert style[names[0]].color != style[names[2]].color


def test_nested_estimators_have_the_colour_of_their_weights_and_another_marker():
    names = ["arm", "straight_through", "concrete(temperature=0.5)", *NESTED]
    style = styles(names)
    for plain, both in zip(names, NESTED, strict=False):
        hues = [rgb_to_hsv(to_rgb(look.color)) for look in (style[plain], style[both])]
        family = rgb_to_hsv(to_rgb(FAMILIES[plain.partition("(")[0]].color))
        assert np.allclose([hue[:2] for hue in hues], family[:2], atol=0.01)  # a shade of it
        assert style[plain].color != style[both].color
        assert style[plain].marker != style[both].marker
        assert list(style).index(plain) + 1 == list(style).index(both)  # side by side
    assert styles([NESTED[0]])[NESTED[0]][:3] == FAMILIES["arm"][:3]


@pytest.mark.slow
def test_legends_call_nested_estimators_by_their_two_parts():
    figure = training(nested_frame())
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    times = "\N{MULTIPLICATION SIGN}"
    assert {f"{weights} {times} PSA" for weights in ("ARM", "ST", "Concrete, t = 0.5")} <= names
    assert not any("nested" in name for name in names)


# --- along training ---


@pytest.mark.slow
def test_training_has_a_tick_at_every_checkpoint_and_shows_all_of_them():
    figure = training(losses_frame())
    axes = axes_of(figure)
    assert [ax.get_title() for ax in axes] == ["layer 1", "layer 2", "", ""]
    assert [ax.get_xlabel() for ax in axes] == ["", "", "epoch", "epoch"]
    assert [ax.get_ylabel() for ax in axes] == ["relative |bias|", "", "relative std", ""]
    for ax in axes:
        assert ax.get_xticks().tolist() == list(EPOCHS)
        low, high = ax.get_xlim()
        assert low < 0 and high > 30
        places = ax.transData.transform([(epoch, 1.0) for epoch in EPOCHS])[:, 0]
        assert (np.diff(places) > 0.08 * ax.bbox.width).all()  # far enough apart to be read
    labels = [[label.get_text() for label in ax.get_xticklabels()] for ax in axes[2:]]
    assert labels == [["0", "1", "3", "10", "30"]] * 2
    boxes = [label.get_window_extent() for label in axes[2].get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


@pytest.mark.slow
def test_training_shows_the_bias_or_its_limit_and_the_deviation_at_every_checkpoint():
    frame = losses_frame()
    bias, _, deviation, _ = axes_of(training(frame))
    style = styles(set(ESTIMATORS) - {"exact"})
    epochs, values = filled(bias, "psa", style)
    psa = frame[(frame["estimator"] == "psa") & (frame["layer"] == "layer 1")]
    assert epochs.tolist() == list(EPOCHS)
    assert values == pytest.approx(np.sqrt(psa["bias2"]).tolist(), rel=1e-12)
    assert line_of(deviation, "psa", style)[1] == pytest.approx(0.14)
    epochs, limits = open_markers(bias, "arm", style)
    arm = frame[(frame["estimator"] == "arm") & (frame["layer"] == "layer 1")]
    assert epochs.tolist() == list(EPOCHS) and not filled(bias, "arm", style).size
    expected = np.sqrt(arm["bias2"].clip(lower=0) + 3 * arm["bias2_se"])
    assert limits == pytest.approx(expected.tolist(), rel=1e-12)
    assert "mean field: 0" in [text.get_text() for text in deviation.texts]
    for ax in (bias, deviation):
        lines = [line for line in ax.lines if line.get_transform() == ax.transData]
        drawn = np.concatenate([line.get_xydata() for line in lines])
        drawn = drawn[np.isfinite(drawn).all(axis=1)]
        assert len(drawn) and (drawn >= [ax.get_xlim()[0], ax.get_ylim()[0]]).all()
        assert (drawn <= [ax.get_xlim()[1], ax.get_ylim()[1]]).all()


@pytest.mark.slow
def test_one_checkpoint_can_be_drawn():
    for figure in (training(losses_frame(epochs=(5,))), losses(losses_frame(epochs=(5,)))):
        for ax in axes_of(figure):
            low, high = ax.get_xlim()
            assert low < 5 < high and ax.get_xticks().tolist() == [5]


def drawn_losses(figure):
    """The axes, and the data of the lines by their colour."""
    (ax,) = axes_of(figure)
    return ax, {line.get_color(): line.get_xydata().T.tolist() for line in ax.lines}


def test_losses_has_a_line_of_exact_values_for_each_problem_and_a_legend_of_several():
    figure = losses(losses_frame(["one", "two", "three"]), "three problems")
    ax, lines = drawn_losses(figure)
    values = [2.0, 1.99, 1.97, 1.9, 1.7]
    assert len(lines) == 3
    for k, (epochs, drawn) in enumerate(lines.values()):
        assert epochs == list(EPOCHS) == ax.get_xticks().tolist()
        assert drawn == pytest.approx([k + value for value in values], rel=1e-12)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "exact expected loss")
    assert not ax.collections  # one replicate has no band
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two", "three"]
    assert not losses(losses_frame(["one"])).legends


def test_losses_are_the_mean_over_replicates_in_a_band_from_the_least_to_the_greatest():
    ax, lines = drawn_losses(losses(losses_frame(replicates=3)))
    ((epochs, drawn),) = lines.values()
    assert epochs == list(EPOCHS)
    assert drawn == pytest.approx([2.1, 2.09, 2.07, 2.0, 1.8], rel=1e-12)
    (band,) = ax.collections
    ys = band.get_paths()[0].vertices[:, 1]
    assert (ys.min(), ys.max()) == pytest.approx((1.7, 2.2), rel=1e-12)


def test_the_lines_of_problems_are_told_apart_by_colour_and_by_marker_and_line():
    assert len({look.color for look in LINES}) == len(LINES) == 7
    assert len({(look.marker, str(look.line)) for look in LINES}) == len(LINES)
    assert {look.color for look in LINES} <= {look.color for look in FAMILIES.values()}
    assert all(look.marker for look in LINES)


@pytest.mark.slow
def test_growth_draws_the_layers_that_every_size_has():
    for by, layers in [("width", ["layer 1", "layer 2"]), ("depth", ["layer 1", "layer 2"])]:
        figure = growth(summary_frame(by), by, "growth")
        axes = axes_of(figure)
        assert [ax.get_title() for ax in axes] == [*layers, "", ""]
        assert [ax.get_xlabel() for ax in axes] == ["", "", by, by]
        names = {text.get_text() for text in figure.legends[0].get_texts()}
        assert names == {*NAMES.values(), "no bias seen (limit)"} - {"exact"}


def open_markers(ax, estimator, style):
    """The x and y data of an estimator's upper limits in a panel."""
    limits = [
        line.get_xydata()
        for line in ax.lines
        if line.get_color() == style[estimator].color and line.get_marker() == LIMIT
    ]
    return np.concatenate([np.empty((0, 2)), *limits]).T


@pytest.mark.slow
def test_growth_shows_the_bias_or_its_limit_and_the_deviation():
    frame = summary_frame()
    bias, _, deviation, _ = axes_of(growth(frame, "width"))
    style = styles(set(ESTIMATORS) - {"exact"})
    sizes, values = filled(bias, "psa", style)
    assert sizes.tolist() == [2, 3, 4, 5] and values == pytest.approx(0.06, rel=1e-2)
    assert not open_markers(bias, "psa", style).size
    assert line_of(deviation, "psa", style)[1] == pytest.approx(0.14)
    assert not filled(bias, "arm", style).size
    arm = frame[(frame["estimator"] == "arm") & (frame["layer"] == "layer 1")].groupby("width")
    limits = arm["bias2"].mean().clip(lower=0) + 3 * arm["bias2_se"].mean() / np.sqrt(3)
    assert open_markers(bias, "arm", style)[1] == pytest.approx(np.sqrt(limits))
    assert "mean field: 0" in [text.get_text() for text in deviation.texts]


def replicates(bias2, se, estimator="psa"):
    """A summary of one size and layer, a row per replicate."""
    rows = {"bias2": bias2, "bias2_se": se, "estimator": estimator, "width": 2, "layer": "layer 1"}
    frame = pd.DataFrame(rows | {"variance": 1.0, "zero_gradient": False})
    return frame.assign(replicate=range(len(frame)), checkpoint="untrained")


@pytest.mark.parametrize(
    ("bias2", "error", "seen"),
    [
        # Two replicates alone would be upper limits, which are no part of a measured bias.
        ([0.04, 0.05, 0.001, -0.003], 0.002, True),
        # None alone is more than three errors from zero; the mean is.
        ([0.005, 0.004, 0.005, 0.006], 0.002, True),
        # One alone is; the mean is not.
        ([0.013, -0.004, 0.001, 0.001], 0.004, False),
    ],
)
@pytest.mark.first(1)
def test_a_point_is_either_the_rms_of_the_biases_or_one_upper_limit(bias2, error, seen):
    style = styles(["psa"])
    frame = replicates(bias2, [error] * 4)
    bias, _ = axes_of(growth(frame, "width"))
    rms, limit = np.sqrt(np.mean(bias2)), np.sqrt(np.mean(bias2) + 3 * error / 2)
    assert filled(bias, "psa", style)[1].tolist() == pytest.approx([rms] if seen else [])
    assert open_markers(bias, "psa", style)[1].tolist() == pytest.approx([] if seen else [limit])
    reach = [y for band in bias.collections for y in band.get_paths()[0].vertices[:, 1]]
    if seen:  # from the least replicate, or the error of the mean, to the greatest
        assert min(reach) == pytest.approx(np.sqrt(max(min(bias2), error / 2)))
        assert max(reach) == pytest.approx(np.sqrt(max(bias2)))
    else:
        assert not reach


@pytest.mark.filterwarnings("error")
@pytest.mark.slow
def test_a_bias_of_unknown_error_is_neither_a_value_nor_a_limit():
    """A cell of one block does not tell its error, a layer without gradient no bias at all."""
    style = styles(["psa"])
    frame = replicates([0.04, 0.05], [np.nan, 0.001])
    bias, deviation = axes_of(growth(frame, "width"))
    assert filled(bias, "psa", style)[1] == pytest.approx(np.sqrt(0.05))
    bias, deviation = axes_of(growth(frame.assign(bias2_se=np.nan), "width"))
    assert not filled(bias, "psa", style).size and not open_markers(bias, "psa", style).size
    assert filled(deviation, "psa", style)[1] == pytest.approx(1.0)
    for ax in axes_of(growth(frame.assign(zero_gradient=True), "width")):
        assert not filled(ax, "psa", style).size


def test_an_estimator_without_any_bias_is_a_line_at_the_bottom():
    frame = pd.concat([replicates([0.04, 0.05], 0.001), replicates([0.0, 0.0], 0.0, "mine")])
    bias, deviation = axes_of(growth(frame, "width"))
    assert [text.get_text() for text in bias.texts] == ["mine: 0"]
    assert not deviation.texts


@pytest.mark.parametrize("draw", ["growth", "temperature", "map"])
def test_a_bias_that_is_zero_by_theorem_is_said_to_be_that(draw):
    tested = replicates([0.04, 0.05], 0.001).assign(bias_source="test")
    certified = replicates([0.0, 0.0], 0.0, "arm").assign(bias_source="theorem")
    frame = pd.concat([tested, certified], ignore_index=True)
    if draw == "map":
        frame = coordinates_frame(checkpoints=["epoch 1"]).query("layer == 'output'")
        frame = frame.assign(bias_source=np.where(frame["estimator"] == "arm", "theorem", "test"))
        ax = bias_heat_map(frame, panel())
        assert [text.get_text() for text in ax.texts] == ["0 by theorem"]
        assert images_of(ax)["estimator=arm"].get_array().mask.all()
        return
    if draw == "growth":
        bias, deviation = axes_of(growth(frame, "width"))
    else:
        frame["estimator"] = frame["estimator"].replace("psa", "concrete(temperature=0.5)")
        bias, deviation = axes_of(temperature(frame.assign(problem="one")))
    assert [text.get_text() for text in bias.texts] == ["ARM: 0 by theorem"]
    assert not deviation.texts


def only_exact():
    frame = summary_frame()
    return frame[frame["estimator"] == "exact"]


def nothing_shared():
    frame = summary_frame()
    return frame[frame["layer"] == "layer " + (frame["width"] - 1).astype(str)]


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda: accuracy(curves_frame().head(0)), "nothing to draw"),
        (lambda: growth(pd.DataFrame(), "width"), "nothing to draw"),
        (lambda: growth(summary_frame(), "widht"), "no column 'widht'; did you mean 'width'"),
        (lambda: growth(only_exact(), "width"), "no finished cell of an estimator besides exact"),
        (lambda: growth(nothing_shared(), "width"), "no layer is at every width"),
        (lambda: accuracy(curves_frame().assign(replicate=range(384))), "one replicate at a time"),
        (lambda: training(losses_frame().head(0)), r"training\(\) has nothing to draw"),
        (
            lambda: training(losses_frame(["one", "two"])),
            r"training\(\) draws one problem at a time and was given 2; select one, "
            r"frame\[frame\['problem'\] == 'one'\]",
        ),
        (lambda: training(losses_frame().drop(columns="epoch")), "no column 'epoch'; choose one"),
        (lambda: training(losses_frame().query("estimator == 'exact'")), "besides exact; run the"),
        (lambda: losses(losses_frame().head(0)), r"losses\(\) has nothing to draw"),
        (lambda: losses(pd.DataFrame()), r"losses\(\) has nothing to draw"),
        (lambda: losses(losses_frame().drop(columns="epoch")), "no column 'epoch'; choose one"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_remedy(draw, sentence):
    with pytest.raises(GradbenchError, match=sentence):
        draw()


@pytest.mark.slow
def test_all_three_files_are_written_and_the_same_each_time(tmp_path):
    for folder in ("a", "b"):
        figure = rmse(curves_frame(["layer 1"], ["epoch 1"]))
        paths = save(figure, tmp_path / folder / "rmse.t=0.1")
        assert [path.name for path in paths] == [
            f"rmse.t=0.1.{end}" for end in ("pdf", "svg", "png")
        ]
    for path in paths:
        assert path.stat().st_size > 1000
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()
    pdf = paths[0].read_bytes()
    assert (
        b"CreationDate" not in pdf and b"/Type3" not in pdf
    )  # Type 42: fonts embedded as TrueType


@pytest.mark.slow
def test_an_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    figure = accuracy(curves_frame(["layer 1"], ["epoch 1"]))["rmse"]
    with pytest.raises(GradbenchError, match=r"cannot write .*rmse.pdf.*check the path"):
        save(figure, tmp_path / "file" / "rmse")


@pytest.mark.slow
def test_the_settings_of_the_user_are_left_as_they_were(tmp_path):
    before = dict(matplotlib.rcParams)
    save(growth(summary_frame(), "width"), tmp_path / "width")
    assert dict(matplotlib.rcParams) == before


# --- cost, and where the best estimator changes ---


def panel():
    return matplotlib.figure.Figure().add_subplot()


@pytest.mark.parametrize("kind", ["evaluations", "seconds"])
@pytest.mark.first(1)
def test_curves_against_cost_are_those_against_draws_times_the_cost_of_one(kind):
    frame = curves_frame(["layer 1"], ["epoch 1"])
    style = styles(frame["estimator"])
    for curve, column in [(rmse_curve, "rmse"), (cosine_curve, "cosine")]:
        ax = curve(frame, panel(), cost=kind)
        for estimator in ("arm", "psa"):
            rows = frame[frame["estimator"] == estimator]
            x, y = line_of(ax, estimator, style)
            shown = rows[column] if column == "rmse" else 1 - rows["cosine"]
            assert x == pytest.approx(rows["M"] * rows[kind]) and y.tolist() == shown.tolist()
    unknown = frame.assign(**{kind: frame[kind].where(frame["estimator"] != "arm")})
    assert not line_of(rmse_curve(unknown, panel(), cost=kind), "arm", style).size
    with pytest.raises(GradbenchError, match="unknown cost 'time'"):
        rmse_curve(frame, panel(), cost="time")


def test_more_draws_of_what_is_not_random_do_not_stretch_the_axis_of_cost():
    frame = curves_frame(["network"], ["epoch 1"])
    dear = frame["estimator"].isin(["exact", "mean_field"])
    for curve in (rmse_curve, cosine_curve):
        costs = frame["evaluations"].where(~dear, 500.0)
        ax = curve(frame.assign(evaluations=costs), panel(), cost="evaluations")
        longest = (frame["M"] * frame["evaluations"])[~dear].max()
        drawn = [line for line in ax.lines if line.get_transform() == ax.transData]
        assert max(x for line in drawn for x in line.get_xdata()) == longest
        exact = [line for line in ax.lines if line.get_gid() == "estimator=exact"]
        assert [line.get_xdata()[0] for line in exact] == [500.0]  # from where it is paid


CHANGES = (
    Change("draws", 40.0, 0.3, "straight_through", "psa"),
    Change("draws", 700.0, 0.05, "psa", "arm"),
    Change("draws", 1e6, 0.01, "arm", "reinforce"),
    Change("evaluations", 90.0, 0.2, "straight_through", "psa"),
)


def with_changes(frame, changes=CHANGES):
    return frame.assign(changes=[changes] * len(frame))


def circles(ax):
    """The places that are marked as changes of the best estimator."""
    return [
        pair
        for line in ax.lines
        if line.get_marker() == "o" and line.get_linestyle() == "None"
        for pair in line.get_xydata().tolist()
    ]


def test_circles_are_the_changes_of_the_best_at_this_cost_as_far_as_was_measured():
    frame = with_changes(curves_frame(["network"], ["epoch 1"]))
    assert circles(rmse_curve(frame, panel())) == [[40.0, 0.3], [700.0, 0.05]]
    assert circles(rmse_curve(frame, panel(), cost="evaluations")) == [[90.0, 0.2]]
    assert circles(rmse_curve(frame, panel(), cost="seconds")) == []
    assert circles(rmse_curve(frame, panel(), relative=True)) == [[40.0, 1.0], [700.0, 1.0]]
    # Of a choice of estimators, those between two that are shown.
    two = frame[frame["estimator"].isin(["arm", "psa"])]
    assert circles(rmse_curve(two, panel())) == [[700.0, 0.05]]
    look = styles(frame["estimator"])
    grey = look | {"psa": look["psa"]._replace(marker="")}
    assert circles(rmse_curve(frame, panel(), grey)) == []
    assert circles(rmse_curve(frame.drop(columns="changes"), panel())) == []


def test_the_legend_explains_circles_where_there_are_some():
    frame = curves_frame(["layer 1"], ["epoch 1"])
    for changes, known in ((CHANGES, True), (CHANGES[2:3], False), ((), False)):
        own = with_changes(frame, changes)
        for figure in (plots.rmse(own), plots.cost(own)):
            shown = [text.get_text() for text in figure.legends[0].get_texts()]
            at_costs = any(one.cost != "draws" for one in changes)
            drawn = known if len(figure.axes) == 1 else at_costs
            assert ("change of the best" in shown) == drawn


@pytest.mark.slow
def test_cost_has_a_row_per_checkpoint_and_error_and_cosine_against_both_costs():
    frame = curves_frame(["layer 1", "output", "network"])
    axes = cost(frame, "toy").axes
    assert len(axes) == 12 and not any(ax.get_title() for ax in axes)
    assert headers_of(axes[7]) == ["epoch 100\nloss 0.693"]
    assert [ax.get_xlabel() for ax in axes[8:]] == ["evaluations", "measured time"] * 2
    assert [ax.get_ylabel() for ax in axes[:4]] == [
        "relative RMSE",
        "",
        "1 \N{MINUS SIGN} cosine",
        "",
    ]
    assert len(cost(frame.assign(groups=0), "toy").axes) == 6
    with pytest.raises(GradbenchError, match=r"do not say what a draw costs.*run the suite again"):
        cost(frame.assign(seconds=np.nan))
    with pytest.raises(GradbenchError, match="draws one layer at a time and was given 2"):
        cost(frame[frame["layer"] != "network"])


@pytest.mark.slow
def test_of_many_estimators_each_group_has_a_row_and_a_legend_and_the_others_are_grey():
    axes = plane(zoo_points()).axes
    legends = [ax.get_legend() for ax in axes if ax.get_legend()]
    assert [legend.get_title().get_text() for legend in legends] == list(GROUPS)
    shown = [text.get_text() for legend in legends for text in legend.get_texts()]
    names = set(zoo_points()["estimator"]) - {"exact"}
    called = display_names(names)
    assert sorted(shown) == sorted(called.values())
    for k, (legend, group) in enumerate(zip(legends, GROUPS.values(), strict=True)):
        texts = {text.get_text() for text in legend.get_texts()}
        own = {name for name in names if called[name] in texts}
        assert {family_of(name) for name in own} <= set(group)
        for ax in axes[4 * k : 4 * k + 4]:
            colored = {name for name, line in points_of(ax).items() if is_colored(line)}
            assert colored == own and set(points_of(ax)) == names
    with pytest.raises(GradbenchError, match=r"cost\(\) draws one checkpoint at a time"):
        cost(of_the_zoo(curves_frame(["network"])))


def is_colored(line):
    return rgb_to_hsv(to_rgb(line.get_color()))[1] > 0.1


def points_of(ax):
    """The single points of a panel by the estimators that they belong to."""
    return {
        line.get_gid().removeprefix("estimator=").partition("#")[0]: line
        for line in ax.lines
        if line.get_gid() and len(line.get_xdata()) == 1
    }


@pytest.mark.slow
def test_the_layer_network_has_a_panel_only_where_it_is_given_alone():
    curves, points = curves_frame(["layer 1", "output", "network"]), points_frame(["layer 1"])
    assert "network" not in {ax.get_title().partition("\n")[0] for ax in rmse(curves).axes}
    for draw in (overview, lambda rows: growth(rows, "epoch"), training, plane):
        rows = points[points["epoch"] == 1] if draw is overview else points
        assert {ax.get_title().partition("\n")[0] for ax in draw(rows).axes} <= {"layer 1", ""}
        alone = rows[rows["layer"] == "network"]
        assert "network" in {ax.get_title().partition("\n")[0] for ax in draw(alone).axes}


# --- estimators as points ---


def test_the_plane_shows_bias_and_deviation_with_zeros_in_the_edges_and_limits_as_triangles():
    frame = summary_frame(sizes=[2], replicates=1).query("layer == 'layer 1'")
    frame = frame.assign(
        bias2=frame["estimator"].map({k: b**2 for k, (b, _) in ESTIMATORS.items()})
    )
    unbiased = frame["estimator"] == "reinforce"
    frame.loc[unbiased, "bias2_se"] = 0.0  # exactly
    ax = bias_variance_plane(frame, panel())
    points = points_of(ax)
    edges = [tick for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_majorticklocs()[:1]]
    for name, (bias, std) in ESTIMATORS.items():
        x, y = points[name].get_xydata()[0]
        assert x == pytest.approx(std or edges[0])
        limit = np.sqrt(3 * std**2 / DRAWS) if name == "arm" else 0.0
        assert y == pytest.approx(bias or limit or edges[1])
        assert (points[name].get_marker() == LIMIT) == (name == "arm")
    assert (
        ax.xaxis.get_major_formatter()(edges[0]) == "0" == ax.yaxis.get_major_formatter()(edges[1])
    )
    assert edges[0] < frame["variance"][frame["variance"] > 0].min() ** 0.5


def test_grey_lines_of_the_plane_are_of_equal_rmse_and_say_which():
    ax = bias_variance_plane(summary_frame(sizes=[2]).query("layer == 'layer 1'"), panel())
    radii = [np.hypot(*line.get_xydata().T) for line in ax.lines if line.get_color() == "0.75"]
    assert all(np.ptp(np.log(radius)) < 1e-9 for radius in radii)
    numbers = {text.get_text(): np.hypot(*text.get_position()) for text in ax.texts}
    assert {"0.1", "1"} <= set(numbers) <= {f"{radius[0]:g}" for radius in radii}
    assert all(float(text) == pytest.approx(radius) for text, radius in numbers.items())


def front_of(points):
    """The names that nobody beats, one by one."""
    return {
        name
        for name, x, y in points
        if not any((a <= x and b <= y) and (a, b) != (x, y) for _, a, b in points)
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.first(1)
def test_the_front_is_what_no_other_estimator_beats_in_both_cost_and_error(seed):
    rng = np.random.default_rng(seed)
    frame = points_frame(["layer 1"]).query("layer == 'network' and epoch == 1")
    frame = frame.assign(
        evaluations=rng.integers(1, 4, len(frame)), mse=rng.integers(1, 5, len(frame))
    )
    frame.loc[frame["estimator"] == "exact", "mse"] = 0.0
    found = error_and_cost(frame, "evaluations")
    rest = frame[frame["mse"] > 0]
    points = list(zip(rest["estimator"], rest["evaluations"], np.sqrt(rest["mse"]), strict=True))
    assert set(found.index[found["front"]]) == front_of(points)
    assert found.loc["exact", "y"] == 0.0
    ax = axes_of(pareto(frame.assign(loss=1.0)))[0]
    filled = {k for k, line in points_of(ax).items() if line.get_markerfacecolor() != "none"}
    assert filled == front_of(points)
    assert "exact: 0 at" in " ".join(text.get_text() for text in ax.texts)


@pytest.mark.parametrize("draw", [lambda: pareto(points_frame()), lambda: pareto(zoo_points())])
@pytest.mark.first(1)
def test_names_beside_points_overlap_neither_each_other_nor_points_nor_the_frame(draw):
    figure = draw()
    figure.draw_without_rendering()  # names are put beside their points
    for ax in figure.axes:
        names = [text for text in ax.texts if text.get_gid()]
        boxes = [Text.get_window_extent(text) for text in names]  # without the line to its point
        marks = [ax.transData.transform(line.get_xydata()[0]) for line in points_of(ax).values()]
        frame = ax.get_window_extent()
        assert len(names) > 3
        for k, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:k])
            assert not any(box.contains(*mark) for mark in marks)
            assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0


# --- biases of coordinates ---


def images_of(ax):
    return {image.get_gid(): image for image in ax.images}


def test_the_map_shows_the_bias_of_each_coordinate_in_units_of_a_typical_one():
    frame = coordinates_frame(checkpoints=["epoch 1"]).query("layer == 'output'")
    ax = bias_heat_map(frame.sample(frac=1, random_state=0), panel())
    images = images_of(ax)
    assert set(images) == {None} | {f"estimator={name}" for name in set(ESTIMATORS) - {"exact"}}
    unit = np.sqrt(6) * 0.1 * np.array([1, -2, 3, -4, 5, -6])
    assert images["estimator=psa"].get_array()[0].tolist() == pytest.approx(unit.tolist())
    gradient = np.sqrt(6) / 4 * np.cos(np.arange(6))
    assert images[None].get_array()[0].tolist() == pytest.approx(gradient.tolist())
    # 0.1 and 0.2 are within four errors of 0.051.
    assert images["estimator=arm"].get_array().mask[0].tolist() == [True] * 2 + [False] * 4
    norm = images["estimator=psa"].norm
    assert norm.vmin == -norm.vmax and norm(0.0) == pytest.approx(0.5)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    names = [NAMES[name] for name in styles(ESTIMATORS) if name != "exact"]
    assert labels == ["exact gradient", *names]


@pytest.mark.slow
def test_a_layer_without_gradient_has_no_map():
    frame = coordinates_frame()
    gone = (frame["layer"] == "output") & (frame["checkpoint"] == "epoch 100")
    axes = axes_of(bias_map(frame[~gone]))
    texts = [[text.get_text() for text in ax.texts] for ax in axes[:6]]
    assert texts == [[], [], ["epoch 1"], [], [], ["zero gradient", "epoch 100"]]
    with pytest.raises(GradbenchError, match=r"bias_map\(\) has nothing to draw: no finished cell"):
        bias_map(frame[frame["estimator"] == "exact"])


# --- what belongs to whom ---


@pytest.mark.parametrize("kind", ["curves", "training", "pareto", "bias-map", "temperature"])
@pytest.mark.slow
def test_in_an_svg_every_estimator_has_ids_of_its_own_and_text_is_text(kind, tmp_path):
    figure = rmse(curves_frame(["layer 1"]), "toy") if kind == "curves" else FULL[kind]()
    svg = ElementTree.parse(save(figure, tmp_path / kind)[1])
    ids = [node.get("id", "") for node in svg.iter()]
    ids = [name for name in ids if name.startswith("estimator=")]
    assert len(set(ids)) == len(ids)
    own = {name.partition("#")[0] for name in ids}
    expected = {*ESTIMATORS, *NESTED} if kind == "training" else set(ESTIMATORS)
    if kind == "temperature":
        expected = {"concrete", "st_gumbel_softmax", "zgr", "straight_through"}
    if kind in ("training", "bias-map"):
        expected -= {"exact"}
    assert own == {f"estimator={name}" for name in expected}
    texts = {
        "".join(node.itertext()).strip() for node in svg.iter("{http://www.w3.org/2000/svg}text")
    }
    assert "toy" in texts
