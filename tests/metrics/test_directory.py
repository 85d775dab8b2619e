"""The table and the figures of a run: right, in the order of the suite, of finished cells only."""

import runpy

import jax
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import tiny
from tiny import changed

import gradbench
from gradbench import metrics, plots
from gradbench.cli.show import show
from gradbench.core.errors import GradbenchError
from gradbench.core.precision import float64
from gradbench.core.pytrees import layer_vectors
from gradbench.metrics import curves, summary
from gradbench.metrics.directory import read_cells, unfinished, unfinished_line
from gradbench.metrics.tables import table
from gradbench.plots.parts import chosen
from gradbench.plots.suite import plot
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.instance import build, estimator
from gradbench.suites.read_problem import load_problem
from gradbench.suites.runner import run

ESTIMATORS = ["reinforce", "arm", "straight_through", "psa"]
FIGURES = ["rmse", "cosine", "cost", "plane", "pareto", "bias-map"]


def refusal(function, directory):
    with pytest.raises(GradbenchError) as caught:
        function(directory)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def cells_of(folder):
    return read_cells(folder / "results")


def draws_of(folder, spec):
    """All 71 single draws of a cell at epoch 10 and the exact gradient: layers and network."""
    place = ("tiny", 0, "epoch 10")
    with Results.open(folder / "results") as results, float64():
        built = build(load_problem(folder / "tiny.toml"))
        params = results.load_checkpoint(results.cell(*place, spec).place)
        key, loss = built.key("draws at epoch 10"), estimator(spec, built.network)
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(np.arange(71, dtype=np.uint32))
        draws = jax.vmap(jax.grad(loss), (None, 0, None))(params, keys, built.batch)
        exact = gradbench.reference(built.network, params, built.batch).gradient
        layers = [
            tuple(map(np.asarray, pair))
            for pair in zip(layer_vectors(draws, 1), layer_vectors(exact), strict=True)
        ]
        network = tuple(np.concatenate(part, axis=-1) for part in zip(*layers, strict=True))
        return [*layers, network]


@pytest.mark.parametrize("spec", ["reinforce", "psa"])
@pytest.mark.first(1)
def test_the_summary_is_that_of_the_single_draws(finished_run, spec):
    frame = metrics.summary(
        cell._replace(moments=None, claim="") for cell in cells_of(finished_run)
    )
    rows = frame[(frame["checkpoint"] == "epoch 10") & (frame["estimator"] == spec)]
    for (g, exact), row in zip(draws_of(finished_run, spec), rows.to_dict("records"), strict=True):
        norm = np.linalg.norm(exact)
        variance = g.var(axis=0, ddof=1).sum() / norm**2
        bias2 = np.sum((g.mean(axis=0) - exact) ** 2) / norm**2 - variance / 71
        cosine = g @ exact / norm / np.linalg.norm(g, axis=1)
        assert row["gradient_norm"] == pytest.approx(norm, rel=1e-9)
        assert row["variance"] == pytest.approx(variance, rel=1e-9)
        assert row["bias2"] == pytest.approx(bias2, rel=1e-9, abs=1e-9 * variance)
        assert row["rmse"] == pytest.approx(np.sqrt(max(bias2 + variance, 0)), rel=1e-9)
        assert row["cosine"] == pytest.approx(cosine.mean(), rel=1e-9)
        assert row["cosine_q15"] == pytest.approx(np.quantile(cosine, 0.15), abs=0.05)
        assert (row["draws"], row["groups"], row["zero_gradient"]) == (71, 71, False)


def test_exact_moments_stand_where_they_can_be_had_and_the_draws_agree_with_them(finished_run):
    exact = metrics.summary(cells_of(finished_run))
    drawn = metrics.summary(cell._replace(moments=None) for cell in cells_of(finished_run))
    assert exact["exact"].all() and not drawn["exact"].any()
    assert (exact[["bias2_se", "variance_se", "rmse_se"]] == 0).all(axis=None)
    z = (drawn["variance"] - exact["variance"]) / drawn["variance_se"]
    assert z.abs().max() < 6  # of 71 draws with a fixed seed
    unbiased = exact["estimator"].isin(["reinforce", "arm"])
    assert exact["bias2"][unbiased].max() < 1e-24
    biased = exact[(exact["estimator"] == "straight_through") & (exact["layer"] == "layer 1")]
    assert biased["bias2"].min() > 1e-8
    assert exact[["cosine", "cosine_q15"]].equals(drawn[["cosine", "cosine_q15"]])


def test_the_table_marks_what_is_exact(finished_run):
    lines = [line for line in show(finished_run / "results").splitlines() if "psa" in line]
    assert len(lines) == 6 and all("psa =" in line for line in lines)
    drawn = metrics.summary(cell._replace(moments=None) for cell in cells_of(finished_run))
    assert "psa =" not in table(drawn)


def test_damaged_exact_moments_are_named_and_without_them_the_draws_speak(finished):
    results = finished / "results"
    paths = sorted((results / "moments").rglob("*.npz"))
    assert len(paths) == 8
    tiny.damage(paths[0])
    assert paths[0].name in refusal(summary, results)
    for path in paths:
        path.unlink()
    assert not summary(results)["exact"].any()


@pytest.mark.parametrize("m", [2, 3, 10, 16, 32])
@pytest.mark.slow
def test_the_cosine_at_m_is_that_of_the_means_of_m_single_draws(finished_run, m):
    """In blocks (2), of whole blocks (10, 16, 32), and with the head of another one (3)."""
    frame = curves(finished_run / "results")
    frame = frame[(frame["checkpoint"] == "epoch 10") & (frame["estimator"] == "psa")]
    rows = frame[frame["M"] == m].to_dict("records")
    for (g, exact), row in zip(draws_of(finished_run, "psa"), rows, strict=True):
        stride = m + m % 2 if m > 1 else 1  # groups begin with a block
        groups = [g[n : n + m].mean(axis=0) for n in range(0, 71 - m + 1, stride)]
        cosines = [x @ exact / np.linalg.norm(x) / np.linalg.norm(exact) for x in groups]
        assert row["groups"] == len(groups)
        assert row["cosine"] == pytest.approx(np.mean(cosines), rel=1e-9)


def test_the_columns_and_the_order_are_those_of_the_suite(finished_run):
    frame = summary(finished_run / "results")
    sources = dict(zip(frame["estimator"], frame["bias_source"], strict=True))
    assert (sources["arm"], sources["psa"]) == ("theorem", "enumeration")
    assert list(frame["checkpoint"].unique()) == ["epoch 0", "epoch 10"]
    assert list(frame["estimator"].unique()) == ESTIMATORS
    assert list(frame["layer"].unique()) == ["layer 1", "output", "network"]
    assert len(frame) == 2 * 4 * 3
    expected = {"problem", "replicate", "checkpoint", "epoch", "layer", "estimator", "loss", "M"}
    expected |= {"gradient_norm", "draws", "exact", "zero_gradient", "groups", "p_unbiased"}
    expected |= {"evaluations", "seconds", "seconds_spread", "latency", "latency_spread"}
    expected |= {"family", "bias_source"}
    for name in ("cosine_q15", "cosine_q85", *metrics.METRICS):
        expected |= {name, f"{name}_se"}
    expected |= {f"{name}_{limit}" for name in metrics.METRICS for limit in ("low", "high")}
    assert set(frame.columns) == expected
    assert frame["p_unbiased"].isna().all()  # moments are exact
    assert np.isfinite(frame.drop(columns="p_unbiased").select_dtypes("number")).all(axis=None)
    assert frame.groupby("checkpoint")["loss"].nunique().tolist() == [1, 1]
    assert (frame["checkpoint"] == "epoch " + frame["epoch"].astype(str)).all()


def test_curves_hold_the_powers_of_two_and_what_the_suite_names(finished_run):
    frame = curves(finished_run / "results")
    assert sorted(frame["M"].unique()) == [1, 2, 3, 4, 8, 10, 16, 32]
    assert len(frame) == 8 * 2 * 4 * 3
    single = frame[frame["M"] == 1].reset_index(drop=True)
    rows = summary(finished_run / "results")
    pd.testing.assert_series_equal(single["rmse"], rows["rmse"])
    pd.testing.assert_series_equal(single["cosine"], rows["cosine"])


@pytest.mark.slow
def test_cells_stand_in_the_order_of_the_suite_whatever_their_names(tmp_path):
    """Also where a problem is called as an estimator is; and epoch 2 comes before epoch 10."""
    text = changed(
        tiny.SUITE,
        ('["tiny.toml"]', '["psa.toml", "a.toml"]'),
        ('"reinforce", "arm", "straight_through", "psa"', '"reinforce", "psa"'),
    )
    untrained = tiny.PROBLEM.partition("[training]")[0]
    trained = changed(tiny.PROBLEM, ("checkpoints = [0, 10]", "checkpoints = [10, 2]"))
    suite = tiny.write(tmp_path / "suite", text, psa=trained, a=untrained)
    results = run(suite, tmp_path / "results", progress=False)
    cells = [(cell.problem, cell.checkpoint, cell.estimator) for cell in read_cells(results)]
    assert cells == [
        ("psa", "epoch 2", "reinforce"),
        ("psa", "epoch 2", "psa"),
        ("psa", "epoch 10", "reinforce"),
        ("psa", "epoch 10", "psa"),
        ("a", "untrained", "reinforce"),
        ("a", "untrained", "psa"),
    ]
    assert unfinished(results) == (0, 6)
    drawings = plots.drawings(results.manifest["suite"], summary(results))
    kinds = ["0-rmse", "0-cosine", "0-cost", "plane", "pareto", "0-bias-map"]
    names = [f"{problem}-{kind}" for kind in kinds for problem in ("psa", "a")]
    assert [drawing.name for drawing in drawings] == names


def files(names):
    """The files of figures."""
    return {f"{name}.{ending}" for name in names for ending in ("pdf", "svg", "png", "py")}


@pytest.mark.parametrize("stored", [0, 1, 35])  # of 36 blocks
@pytest.mark.slow
def test_unfinished_cells_are_left_out(finished_run, finished, stored):
    results = finished / "results"
    complete = summary(results)
    with Results.open_or_create(results, Results.open(results).manifest["suite"], 0, 71) as opened:
        cell = opened.cell("tiny", 0, "epoch 10", "psa")
        meta, blocks = cell.load()
        cell.discard()
        if stored:
            cell.append(blocks[:stored], meta)
    kept = complete[(complete["checkpoint"] == "epoch 0") | (complete["estimator"] != "psa")]
    pd.testing.assert_frame_equal(summary(results), kept.reset_index(drop=True))
    text = show(results)
    assert text.count("psa") == 3 and show(finished_run / "results").count("psa") == 6
    drawings = list(plots.drawings(Results.open(results).manifest["suite"], kept))
    assert [drawing.name for drawing in drawings] == FIGURES
    said = "1 of 8 cells is not finished; the same `gradbench run` continues it"
    assert unfinished(results) == (1, 8)
    assert text.splitlines()[-1] == said == unfinished_line(1, 8)
    assert "not finished" not in show(finished_run / "results")


def test_checkpoints_that_were_not_reached_count_as_unfinished(finished):
    for shard in (finished / "results").glob("shards/*/*/epoch*10/*/*.parquet"):
        shard.unlink()
    said = "4 of 8 cells are not finished; the same `gradbench run` continues them"
    given = "the same call of `evaluate`, or `gradbench run FILE.py:NAME`, continues it"
    assert unfinished_line(1, 8, given=True) == f"1 of 8 cells is not finished; {given}"
    assert show(finished / "results").splitlines()[-1] == said


def test_the_table_ends_with_the_worst_agreement_of_the_exact_gradients(finished):
    checks = (
        {"brute force": 4.1e-15, "finite difference": 2e-12},
        {
            "brute force": 1e-15,
            "finite difference": 1.2e-11,
        },
    )
    stored = "exact gradients: two routes agree to 4e-15, finite differences to 1e-11, relative"
    assert last_line_with(finished / "results", *checks) == stored
    checks[1]["brute force"] = None  # too large for the second route
    assert "4e-15 (at 1 of 2 places), finite" in last_line_with(finished / "results", *checks)
    checks[0]["brute force"] = None
    line = "exact gradients: finite differences agree to 1e-11, relative"
    assert last_line_with(finished / "results", *checks) == line


def last_line_with(directory, *agreements):
    """The last line of the table when the references say so of themselves."""
    suite = Results.open(directory).manifest["suite"]
    with Results.open_or_create(directory, suite, 0, 71) as results:
        for epoch, agreement in zip((0, 10), agreements, strict=True):
            place = CheckpointId("tiny", 0, f"epoch {epoch}")
            stored = results.load_reference(place)
            info = stored.info | {"agreement": agreement}
            results.save_reference(place, stored.value, stored.gradient, info)
    return show(directory).splitlines()[-1]


@pytest.mark.parametrize("function", [show, plot, summary, curves])
def test_without_a_finished_cell_there_is_nothing_to_show(finished, tmp_path, function):
    assert "no '" in refusal(function, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "gradbench run SUITE --out DIR" in refusal(function, tmp_path / "empty")
    for shard in (finished / "results").rglob("*.parquet"):
        shard.unlink()
    assert "no finished cell yet; continue the run" in refusal(function, finished / "results")


def test_damage_is_named_when_results_are_read(finished):
    results = finished / "results"
    reference = next(results.glob("references/*/*/*.npz"))
    intact = reference.read_bytes()
    tiny.damage(reference)
    assert str(reference) in refusal(summary, results)
    reference.unlink()
    assert "exact gradient" in refusal(summary, results)
    reference.write_bytes(intact)
    shard = next(results.rglob("*.parquet"))
    tiny.damage(shard)
    sentence = refusal(summary, results)
    assert str(shard) in sentence and "its cell has to be measured again" in sentence
    tiny.damage(results / "manifest.json")
    assert str(results / "manifest.json") in refusal(summary, results)


def test_the_table_tells_every_checkpoint_layer_and_estimator(finished_run):
    text = show(finished_run / "results")
    assert max(map(len, text.splitlines())) <= 100
    losses = summary(finished_run / "results")["loss"].unique()
    for epoch, loss in zip(("epoch 0", "epoch 10"), losses, strict=True):
        assert f"tiny, replicate 0, {epoch}, loss {loss:.4f}" in text
    for name in ESTIMATORS:
        assert text.count(f" {name} ") == 6


@pytest.mark.slow
def test_figures_are_drawn_and_their_scripts_draw_them_again_the_same(finished):
    paths = plot(finished / "results")
    folder = finished / "results" / "figures"
    assert list(dict.fromkeys(path.stem for path in paths)) == FIGURES
    assert {path.name for path in paths} == files(FIGURES)
    assert all(path.stat().st_size > 5000 for path in paths if path.suffix != ".py")
    assert all(path.parent == folder for path in paths)
    for path in paths[2::4]:
        pixels = matplotlib.image.imread(path)[..., :3]
        assert pixels.shape[0] > 400 and pixels.shape[1] > 700
        assert 0.01 < np.mean(pixels < 0.9) < 0.5  # neither blank nor black
    before = {path: path.read_bytes() for path in paths}
    for name in ("pareto", "bias-map"):  # by their scripts, from anywhere
        for ending in ("pdf", "svg", "png"):
            (folder / f"{name}.{ending}").unlink()
        runpy.run_path(str(folder / f"{name}.py"))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_every_replicate_has_its_figures(tmp_path):
    text = changed(tiny.SUITE, (', "arm", "straight_through"', "")) + "replicates = 2\n"
    suite = tiny.write(tmp_path / "suite", text, tiny=tiny.PROBLEM.partition("[training]")[0])
    results = run(suite, tmp_path / "results", progress=False)
    drawings = list(plots.drawings(results.manifest["suite"], summary(results)))
    wheres = {drawing.name: drawing.rows for drawing in drawings}
    own = [f"tiny-{k}-{kind}" for kind in ("rmse", "cosine", "cost", "bias-map") for k in (0, 1)]
    assert list(wheres) == [*own[:-2], "plane", "pareto", *own[-2:]]
    assert [wheres[name] for name in own] == [{"replicate": [0]}, {"replicate": [1]}] * 4
    assert wheres["plane"] == wheres["pareto"] == {}
    assert plots.accuracy(chosen(curves(results), wheres[own[1]])).keys() == {"rmse", "cosine"}


@pytest.mark.slow
def test_a_sweep_has_its_column_and_one_figure(tmp_path):
    text = changed(tiny.SUITE, ('"reinforce", "arm", "straight_through"', '"exact"'))
    text += 'figure = "growth"\n[sweep]\nby = "width"\n"network.hidden" = [[2], [1]]\n'
    suite = tiny.write(tmp_path / "suite", text, tiny=tiny.PROBLEM.partition("[training]")[0])
    results = run(suite, tmp_path / "results", progress=False).directory
    frame = summary(results)
    assert frame["width"].tolist() == [2] * 6 + [1] * 6
    assert {path.name for path in plot(results)} == files(["growth"])
    # Interrupted after the cells of the exact estimator, which the figure leaves out.
    for shard in results.glob("shards/*/*/*/psa/*.parquet"):
        shard.unlink()
    assert "no finished cell of an estimator besides exact; run the suite" in refusal(plot, results)
    assert unfinished(results) == (2, 4)


def test_a_suite_of_training_has_its_figures_beside_those_of_accuracy(finished_run):
    suite = Results.open(finished_run / "results").manifest["suite"] | {"figure": "training"}
    drawings = list(plots.drawings(suite, summary(finished_run / "results")))
    assert [drawing.name for drawing in drawings] == [*FIGURES, "training", "losses"]


def test_results_without_costs_have_no_figures_of_cost(finished_run):
    suite = Results.open(finished_run / "results").manifest["suite"]
    frame = summary(finished_run / "results").assign(seconds=np.nan)
    names = [drawing.name for drawing in plots.drawings(suite, frame)]
    assert names == [name for name in FIGURES if name not in ("cost", "pareto")]


def test_of_many_estimators_and_checkpoints_the_full_figures_have_one_each(finished_run):
    suite = Results.open(finished_run / "results").manifest["suite"]
    frame = summary(finished_run / "results").drop(columns="family")
    many = pd.concat(
        [
            frame.assign(estimator=f"{family}{k}")
            for family in ("psa(k=", "arm(k=")
            for k in range(7)
        ]
    )
    many["estimator"] += ")"
    drawings = {drawing.name: drawing for drawing in plots.drawings(suite, many)}
    curves_of = [
        f"{kind}-{group}" for group in ("differences", "relaxed") for kind in ("rmse", "cosine")
    ]
    each = [
        f"epoch-{k}-{kind}" for kind in ("cost", "bias-map", "plane", "overview") for k in (0, 10)
    ]
    assert sorted(drawings) == sorted([*curves_of, *each, "pareto"])
    assert drawings["epoch-10-plane"].rows == {"checkpoint": ["epoch 10"]}
    assert drawings["rmse-relaxed"].arguments == {"title": "A tiny problem", "group": "relaxed"}


@pytest.mark.slow
def test_a_figure_that_cannot_be_written_is_one_sentence(finished):
    (finished / "results" / "figures").write_text("in the way")
    assert "figures" in refusal(plot, finished / "results")
