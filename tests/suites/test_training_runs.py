"""Runs of training: the steps are those of plain descent, kills change no bit, divergence ends."""

import gc
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import trained
from conftest import flat
from here import Here
from stored import assert_one_sentence

import gradbench
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.precision import single
from gradbench.metrics.directory import left_to_run
from gradbench.results import runs
from gradbench.results.store import Results
from gradbench.suites import runner
from gradbench.suites.instance import build, estimator
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import load_suite
from gradbench.suites.train import OPTIMISERS
from gradbench.suites.training import engine, errors, group, sweep
from gradbench.suites.training.search import Found, beyond, search
from gradbench.suites.training.sweep import search_seeds

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A tiny suite of training, run to its end."""
    folder = tmp_path_factory.mktemp("training")
    return run(trained.write(folder), folder / "r", progress=False)


@pytest.fixture(scope="module")
def runs_of_two(tmp_path_factory):
    """What trains two runs of the exact gradient, with rates 0.1 and 0.5."""
    suite = load_suite(trained.write(tmp_path_factory.mktemp("two")))
    with gradbench.float64():
        built = build(suite.problems[0])
        plan = suite.plan
        made = group.Group(
            built, "exact", "nesterov(momentum=0.9)", "report", (0.1, 0.5), (0,), plan, "float64"
        )
        keys = made.stacked(lambda own: own.key("training"))
        start = made.begin(jnp.ones(2))
        make, momentum = made.make

    def advance(state, first, last, rates=(0.1, 0.5), beside=True):
        rates = jnp.asarray(rates)
        of = (made.loss, make, plan.batch, beside, momentum, rates, keys)
        return engine.advance(*of, state, built.data, first, last)

    return made, start, keys, advance


@pytest.mark.slow
def test_the_exact_gradient_follows_plain_gradient_descent(runs_of_two):
    """With Nesterov's momentum, over more than two epochs of two batches."""
    made, start, keys, advance = runs_of_two
    found = advance(start, 0, 5)
    network, data = made.built.network, made.built.data
    slope = jax.jit(jax.grad(lambda p, b: gradbench.expected_loss(network, p, b)))
    for lane, rate in enumerate((0.1, 0.5)):
        params = jax.tree.map(lambda leaf, lane=lane: leaf[lane], start.params)
        velocity = jax.tree.map(jnp.zeros_like, params)
        for step in range(5):
            epoch, place = divmod(step, 2)
            shuffle = jax.random.fold_in(jax.random.fold_in(keys[lane], 0), epoch)
            rows = jax.random.permutation(shuffle, 8)[4 * place : 4 * place + 4]
            g = slope(params, jax.tree.map(lambda leaf, rows=rows: leaf[rows], data))
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, g)
            params = jax.tree.map(
                lambda p, v, g, rate=rate: p - rate * (g + 0.9 * v), params, velocity, g
            )
        own = jax.tree.map(lambda leaf, lane=lane: leaf[lane], found.params)
        np.testing.assert_allclose(flat(own), flat(params), rtol=1e-12, atol=1e-14)
        before = jax.tree.map(lambda leaf, lane=lane: leaf[lane], start.params)
        assert np.abs(flat(own) - flat(before)).max() > 0.01


@pytest.mark.parametrize("beside", [True, False])
def test_steps_are_the_same_bits_however_they_are_cut(runs_of_two, beside):
    """Of runs side by side, and of runs one after the other."""
    _, start, _, advance = runs_of_two
    whole, cut = advance(start, 0, 7, beside=beside), start
    for first, last in ((0, 1), (1, 2), (2, 5), (5, 5), (5, 7)):
        cut = advance(cut, first, last, beside=beside)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_runs_one_after_the_other_are_those_side_by_side(runs_of_two):
    _, start, _, advance = runs_of_two
    one, other = (advance(start, 0, 7, beside=beside) for beside in (True, False))
    np.testing.assert_allclose(flat(one.params), flat(other.params), rtol=1e-12, atol=1e-14)
    assert np.abs(flat(one.params) - flat(start.params)).max() > 0.01


def test_a_run_that_is_no_longer_finite_keeps_what_it_had_and_the_others_go_on(runs_of_two):
    _, start, _, advance = runs_of_two
    found, alone = advance(start, 0, 7, (1e308, 0.1)), advance(start, 0, 7, (0.1, 0.1))
    before = advance(start, 0, 1, (1e308, 0.1))  # the second step overflows
    assert before.diverged.tolist() == [-1, -1] and found.diverged.tolist() == [2, -1]
    assert np.isfinite(flat(found.params)).all()
    for one, last, other in zip(
        *map(jax.tree.leaves, (found.params, before.params, alone.params)), strict=True
    ):
        np.testing.assert_array_equal(one[0], last[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.slow
def test_ten_times_the_initial_loss_for_a_hundred_steps_is_a_divergence(runs_of_two):
    """And for fewer steps it is none."""
    made, start, keys, _ = runs_of_two

    def first_weight(params):
        return params[0]["weight"][0, 0]

    def rising(params, key, batch):  # grows by a factor at each step
        return -first_weight(params)

    def bumpy(params, key, batch):  # large at first, then small again
        w = first_weight(params)
        return jnp.where(w < 90.5, 100.0, 1.0) + 0 * w - w + jax.lax.stop_gradient(w)

    at = jax.tree.map(jnp.zeros_like, start.params)
    state = start._replace(params=at, optimiser=jax.vmap(optax.sgd(1.0).init)(at))

    def plain(rate, momentum):
        return optax.sgd(rate)

    def train(loss, last):
        of = (loss, plain, made.plan.batch, True, 0.0, jnp.ones(2), keys)
        return engine.advance(*of, state, made.built.data, 0, last)

    # After n steps the weight is n, and the loss of step n is -n: beyond 10 from step 11 on.
    found = train(rising, 200)
    assert found.diverged.tolist() == [111, 111]
    np.testing.assert_array_equal(found.params[0]["weight"][:, 0, 0], 110)
    assert train(rising, 110).diverged.tolist() == [-1, -1]
    assert train(bumpy, 200).diverged.tolist() == [-1, -1]


def test_a_suite_stores_curves_rates_and_errors(results):
    found = {one.identity["phase"]: one for one in runs.stored(results) if one.done}
    assert set(found) == {"search", "report"}
    for one in runs.stored(results):
        assert np.isfinite(one.arrays["loss"]).all() and one.arrays["steps"][-1] == 30
    measured = list(runs.stored(results, "errors"))
    paths = {(one.identity["estimator"], one.identity["phase"]) for one in measured}
    assert paths == {(e, p) for e in ("exact", "straight_through") for p in ("own", "exact")}
    for one in measured:
        if one.identity["estimator"] == "exact":
            np.testing.assert_allclose(one.arrays["bias2"] + one.arrays["variance"], 0, atol=1e-20)
        else:
            assert (one.arrays["variance"] > 0).all()


def planted(key):
    """A gradient 1 or 1 + 2^-14: a sum of a thousand of them has no such digit in float32."""
    small = jax.random.bits(key, (5,), jnp.uint8) % 2
    return (1 + 2.0**-14 * small).astype(jnp.float32)


def test_errors_of_gradients_in_float32_have_statistics_in_float64():
    draws, runs_of = 4096, 2
    layer = jnp.zeros((runs_of, 5), jnp.float32)
    keys = jax.random.split(jax.random.key(0), runs_of)

    def loss(params, key, batch):
        return jnp.vdot(params[0], planted(key))

    with single():
        found = errors.errors_of(loss, draws, (layer,), (), keys, (layer,), ())
        each = jax.vmap(jax.vmap(planted))(jax.vmap(lambda key: jax.random.split(key, draws))(keys))
    rows = np.asarray(each, np.float64)
    variance = rows.var(1, ddof=1).sum(1)
    bias2 = (rows.mean(1) ** 2).sum(1) - variance / draws
    for name, known in (("variance", variance), ("bias2", bias2)):
        np.testing.assert_allclose(found[name][:, 0], known, rtol=1e-6)


def test_seeds_of_the_search_are_never_reported(results):
    seeds = {"search": set(), "report": set()}
    for one in runs.stored(results):
        seeds[one.identity["phase"]] |= set(one.identity["seeds"])
    assert seeds["report"] == {0, 1} and not seeds["report"] & seeds["search"]
    for replicates in (1, 5):
        suite = replace(load_suite("train-digits"), replicates=replicates)
        assert not set(search_seeds(suite)) & set(range(replicates))


def test_the_reported_rate_is_the_best_of_the_search(results):
    for spec in ("exact", "straight_through"):
        losses, reported = {}, set()
        for one in runs.stored(results):
            if one.identity["estimator"] != spec:
                continue
            if one.identity["phase"] == "search":
                table = one.arrays["loss"][-1].reshape(len(one.identity["rates"]), -1)
                losses |= dict(zip(one.identity["rates"], table.mean(1), strict=True))
            else:
                reported |= set(one.identity["rates"])
        assert reported == {min(losses, key=losses.get)}


@pytest.mark.slow
def test_a_stored_loss_is_that_of_the_stored_parameters(results):
    """Of 64 samples of each example, beside the exact loss: nothing of another step or run."""
    suite = results.manifest["suite"]
    built = build(load_suite(trained.write(results.directory.parent)).problems[0])
    one = next(x for x in runs.stored(results) if x.identity["phase"] == "report")
    for k, step in enumerate((0, 30)):
        for lane in range(suite["replicates"]):
            leaves, form = jax.tree.flatten(built.initial())
            kept = [one.arrays[f"kept/{k}/{n}"][lane] for n in range(len(leaves))]
            params = jax.tree.unflatten(form, kept)
            truth = gradbench.expected_loss(built.network, params, built.data)
            found = one.arrays["loss"][list(one.arrays["steps"]).index(step), lane]
            assert abs(found - truth) < 0.6  # 16 draws of losses whose deviation is about 0.4


@pytest.mark.slow
def test_an_interrupted_run_ends_in_the_same_bits(results, tmp_path, monkeypatch):
    """Stopped after each call of compiled code, with its state stored."""
    suite = trained.write(tmp_path)
    monkeypatch.setattr(group, "SAVE_SECONDS", -1.0)
    plain, left = group._save, [3]

    def save_and_stop(*of):
        plain(*of)
        left[0] -= 1
        if left[0] % 3 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(group, "_save", save_and_stop)
    for _ in range(60):
        try:
            run(suite, tmp_path / "r", progress=False)
        except KeyboardInterrupt:
            continue
        break
    assert left[0] < -10  # it was stopped many times
    assert trained.files(tmp_path / "r") == trained.files(results.directory)


def test_a_part_continued_to_the_whole_has_the_bits_of_a_run_that_was_never_cut(results, tmp_path):
    """Of an estimator that is measured along the runs of the exact gradient, trained before it."""
    suite, out = trained.write(tmp_path), tmp_path / "r"
    part = {"estimators": ["straight_through"], "problems": ["tiny"]}
    run(suite, out, progress=False, **part)
    first, whole = trained.files(out), trained.files(results.directory)
    assert first and first.items() < whole.items()
    assert left_to_run(Results.open(out)) == "1 method"
    assert describe(suite, out=out, **part).endswith("1 of 1 methods are trained")
    assert describe(suite, out=out).endswith("1 of 2 methods are trained")
    run(suite, out, progress=False)
    assert trained.files(out) == whole and not left_to_run(Results.open(out))


@pytest.mark.parametrize("do", [run, describe])
def test_checkpoints_are_no_part_of_a_suite_of_training(tmp_path, do):
    with pytest.raises(GradbenchError) as caught:
        do(trained.write(tmp_path), out=tmp_path / "r", checkpoints=["10"])
    assert_one_sentence(caught, "trains and has no checkpoints to choose")
    assert not (tmp_path / "r").exists()


def test_a_full_disk_on_the_way_loses_nothing_and_the_sweep_goes_on(results, tmp_path, monkeypatch):
    suite = trained.write(tmp_path)
    monkeypatch.setattr(group, "SAVE_SECONDS", -1.0)
    plain = Results.write

    def write(self, path, data):
        if path.parts[-5] == "runs" and runs_on_the_way(data):
            raise GradbenchError("cannot write: No space left on device; free some space")
        plain(self, path, data)

    def runs_on_the_way(data):
        return b"state/" in data

    monkeypatch.setattr(Results, "write", write)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(suite, tmp_path / "r", progress=False)
    said = {str(one.message) for one in caught if issubclass(one.category, GradbenchWarning)}
    assert said == {"cannot write: No space left on device; free some space; the training goes on"}
    assert trained.files(tmp_path / "r") == trained.files(results.directory)


def test_a_damaged_file_is_named_and_its_runs_alone_are_trained_anew(results, tmp_path, capsys):
    suite = trained.write(tmp_path)
    run(suite, tmp_path / "r", progress=False)
    one = next(x for x in runs.stored(Results.open(tmp_path / "r")))
    path = runs.path_of(Results.open(tmp_path / "r"), "runs", one.identity)
    path.write_bytes(path.read_bytes()[:-40])
    run(suite, tmp_path / "r", progress=False)
    err = capsys.readouterr().err
    assert path.name in err and "begun anew" in err and err.count("\n") == 1
    assert trained.files(tmp_path / "r") == trained.files(results.directory)


@pytest.mark.slow
def test_a_rate_that_is_too_large_is_recorded_and_the_sweep_goes_on(tmp_path):
    """Of 64 points no network classifies all, so that every step has a loss of about 1e30."""
    changes = [("rates = [0.01, 0.1]", "rates = [1e30]"), ("extensions = 1", "extensions = 0")]
    changes += [("steps = 30", "steps = 200"), ("batch = 4", "batch = 64")]
    suite = trained.write(tmp_path, *changes)
    points = tiny.changed(trained.PROBLEM, ("points = 8", "points = 64"))
    (tmp_path / "tiny.toml").write_text(points)
    found = run(suite, tmp_path / "r", progress=False)
    frame = gradbench.metrics.trained(found.directory)
    assert (frame["diverged"] == 2).all() and frame["loss"].isna().all()
    curves = gradbench.metrics.learning(found.directory)
    assert curves["diverged"].between(1, 150).all()
    assert "diverged, 2 of 2" in gradbench.show(found.directory)


# ------------------------------------------------------------------------------------- the search


def attempts(loss):
    """What trains with a function of the rate for its loss, and the rates that were tried."""
    tried = []

    def attempt(rates):
        tried.append(rates)
        losses = np.array([[2.0] * len(rates), [loss(rate) for rate in rates]])
        identity = {"rates": list(rates), "seeds": [7]}
        return runs.Stored(identity, {"loss": losses}, 1, True)

    return attempt, tried


@pytest.mark.parametrize(
    ("best", "grids", "at_edge"),
    [
        (0.1, [(0.01, 0.1, 1.0)], False),
        (20.0, [(0.01, 0.1, 1.0), (10.0, 100.0, 1000.0)], False),
        (1e-3, [(0.01, 0.1, 1.0), (1e-5, 1e-4, 1e-3)], False),
        (1e9, [(0.01, 0.1, 1.0), (10.0, 100.0, 1e3), (1e4, 1e5, 1e6)], True),
    ],
)
def test_a_grid_is_extended_while_the_best_rate_lies_at_its_edge(best, grids, at_edge):
    attempt, tried = attempts(lambda rate: abs(np.log10(rate / best)))
    found = search(attempt, (0.01, 0.1, 1.0), 2)
    assert tried == grids and found.at_edge == at_edge
    assert found.rate == min(found.losses, key=lambda rate: abs(np.log10(rate / best)))


def test_where_all_diverge_smaller_rates_are_tried():
    attempt, tried = attempts(lambda rate: np.nan if rate > 1e-4 else 1.0)
    assert search(attempt, (0.01, 0.1), 3).rate <= 1e-4
    assert all(max(after) < min(before) for before, after in pairwise(tried))


def test_one_rate_is_no_grid_and_is_taken_as_it_is():
    attempt, tried = attempts(lambda rate: 1.0)
    assert search(attempt, (0.3,), 0) == Found(0.3, {0.3: 1.0}, False) and len(tried) == 1
    assert beyond((0.1, 1.0), 2, up=True) == (10.0, 100.0)


# -------------------------------------------------------------------------------------- bad input

WRONG = {
    "one rate": ([("rates = [0.01, 0.1]", "rates = [0.1]")], "no grid to extend; give two or more"),
    "uneven": ([("[0.01, 0.1]", "[0.01, 0.1, 0.2]")], "give rates at equal ratios"),
    "negative": ([("[0.01, 0.1]", "[-0.01, 0.1]")], "rates"),
    "optimiser": ([("nesterov(m", "nestorov(m")], "did you mean 'nesterov'"),
    "momentum": ([("momentum=0.9", "momentum=1.5")], "a momentum from 0 to below 1"),
    "points": ([("points = 4", "points = 1")], "give at least 2 points"),
    "many points": ([("points = 4", "points = 1000000000")], "and at most 1000"),
    "long search": (
        [("samples = 2", "samples = 2\nsearch_steps = 31")],
        "search_steps is 31, more than the 30 steps of a run",
    ),
    "figure": ([('figure = "learning"\n', "")], 'figure is "learning" of suites with [training]'),
    "batch": ([("batch = 4", "batch = 40")], "the training batch of 40 is larger than the 8"),
    "key": ([("samples = 2", "sample = 2")], "samples"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_plan_that_cannot_be_is_refused_before_anything_runs(tmp_path, name):
    changes, said = WRONG[name]
    with pytest.raises(GradbenchError) as caught:
        run(trained.write(tmp_path, *changes), tmp_path / "r", progress=False)
    assert_one_sentence(caught, said)
    assert not (tmp_path / "r").exists()


def test_a_problem_with_a_training_of_its_own_is_refused(tmp_path):
    suite = trained.write(tmp_path)
    (tmp_path / "tiny.toml").write_text(tiny.PROBLEM)
    with pytest.raises(GradbenchError) as caught:
        load_suite(suite)
    assert_one_sentence(caught, "take one of them out")


def test_a_dry_run_prints_the_budget_of_the_search(tmp_path):
    said = describe(trained.write(tmp_path))
    assert "4 to search the rate, 2 rates from 0.01 to 0.1 x 1 seeds" in said
    assert "at most 8 where the best rate stays at an edge" in said
    assert "4 reported, 2 seeds for each method, none of the search" in said
    assert "errors of gradients at the steps 0, 30: 8 draws on 4 examples" in said
    assert " hours on this machine's " in said and " MB on disk" in said
    assert said.endswith("results/suite: 0 of 2 methods are trained")


def test_a_dry_run_tells_a_shorter_search_and_what_is_done(results):
    suite = results.directory.parent / "suite.toml"
    assert describe(suite, out=results.directory).endswith("2 of 2 methods are trained")
    text = suite.read_text().replace("samples = 2", "samples = 2\nsearch_steps = 10")
    short = suite.with_name("short.toml")
    short.write_text(text)
    assert "at an edge, of 10 steps each" in describe(short)


def test_optimisers_take_a_momentum_as_an_array(runs_of_two):
    params = {"w": jnp.array([1.0, -2.0])}
    for name in ("sgd", "nesterov", "adam"):
        for momentum in (0.9, 0.5):
            steps = []
            for m in (momentum, jnp.asarray(momentum)):
                optimiser = OPTIMISERS[name](0.1, m)
                state, own = optimiser.init(params), params
                for _ in range(3):
                    change, state = optimiser.update(own, state, own)
                    own = optax.apply_updates(own, change)
                steps.append(own["w"])
            np.testing.assert_allclose(*steps, rtol=1e-12)


# ------------------------------------------------------------------------------------------- slow


@pytest.mark.slow
def test_kill_9_at_random_times_ends_in_the_same_bits(tmp_path):
    suite = trained.write(tmp_path / "s", ("steps = 30", "steps = 3000"))
    code = (
        "import sys; from gradbench.suites.training import group; group.SAVE_SECONDS = 0.02;"
        "group.CALL_SECONDS = 0.02; import gradbench;"
        "gradbench.run(sys.argv[1], sys.argv[2], progress=False)"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}

    def begin(out):
        return subprocess.Popen([sys.executable, "-c", code, str(suite), str(out)], env=environment)

    def written(out):
        return {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.npz")}

    assert begin(tmp_path / "whole").wait() == 0
    rng, out, kills = random.Random(0), tmp_path / "killed", 0
    for _ in range(4):
        before, process = written(out), begin(out)
        while process.poll() is None and written(out) == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 1))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills >= 2
    assert begin(out).wait() == 0
    assert trained.files(out) == trained.files(tmp_path / "whole")


@pytest.mark.slow
def test_the_quick_form_of_train_digits_answers_its_question(tmp_path):
    found = run("train-digits", tmp_path / "r", quick=True, progress=False)
    ranked = gradbench.metrics.trained(found.directory)
    assert (ranked["diverged"] == 0).all() and len(ranked) == 12
    losses = ranked.groupby("estimator")["loss"].mean()
    assert losses["exact"] < losses["arm"] < losses["reinforce"]
    report = gradbench.write_report(found.directory).read_text()
    assert "Does a smaller error of the gradient train better?" in report
    assert "over 5 estimators and 4 seeds" in report and "[" in report


@pytest.mark.slow
def test_an_estimator_with_learned_parts_adapts_along_the_run(tmp_path):
    changes = [("straight_through", "moving_average"), ("steps = 30", "steps = 60")]
    found = run(trained.write(tmp_path, *changes), tmp_path / "r", progress=False)
    one = next(
        x
        for x in runs.stored(found)
        if x.identity["phase"] == "report" and x.identity["estimator"] == "moving_average"
    )
    built = build(load_suite(tmp_path / "suite.toml").problems[0])
    leaves = len(jax.tree.leaves(built.initial()))
    loss = estimator("moving_average", built.network)
    state = jax.tree.leaves(loss.init(built.initial(), built.data))
    assert len([k for k in one.arrays if k.startswith("kept/1/")]) == leaves + len(state)
    moved = [
        np.abs(one.arrays[f"kept/1/{leaves + k}"] - one.arrays[f"kept/0/{leaves + k}"]).max()
        for k in range(len(state))
    ]
    assert max(moved) > 0.1


@pytest.mark.slow
def test_compiled_programs_do_not_grow_with_the_number_of_methods(tmp_path, monkeypatch):
    """Executables that are alive when the first method of an estimator begins, and at the end."""
    counts, plain = [], sweep._train_method

    def counted(results, suite, built, optimiser, *of):
        if optimiser == suite.plan.optimisers[0]:
            gc.collect()
            counts.append(len(jax.devices()[0].client.live_executables()))
        return plain(results, suite, built, optimiser, *of)

    monkeypatch.setattr(sweep, "_train_method", counted)
    changes = [
        ('"exact", "straight_through"', '"exact", "straight_through", "zgr", "darn", "reinforce"'),
        ("momentum=0.9)", 'momentum=0.9)", "nesterov(momentum=0.5)", "adam'),
    ]
    run(trained.write(tmp_path, *changes), tmp_path / "r", progress=False)
    assert len(counts) == 5 and counts[2] > 0
    assert max(counts[2:]) <= counts[1] + 6  # small ones, as of new shapes of arrays


# --- workers ---


def by_workers(monkeypatch, folder, here):
    """What is stored of the tiny suite when it is run by workers."""
    monkeypatch.setattr(runner, "engine_of", lambda *_: here)
    run(trained.write(folder), folder / "r", progress=False)
    return trained.files(folder / "r")


def test_training_by_workers_is_the_serial_one(results, tmp_path, monkeypatch):
    here = Here()
    assert by_workers(monkeypatch, tmp_path, here) == trained.files(results.directory)
    assert [job.estimator for job in here.jobs] == ["exact", "straight_through"]
    assert here.ended and here.jobs[0].files == ()
    kinds = {path.partition("/")[0] for path, _ in here.jobs[1].files}
    assert kinds == {"runs", "errors", "times"}  # of the exact gradient


@pytest.mark.slow
def test_a_worker_that_dies_loses_no_finished_runs(results, tmp_path, monkeypatch):
    here = Here(deaths={1: 3, 2: 1, 4: 2})
    assert by_workers(monkeypatch, tmp_path, here) == trained.files(results.directory)
    assert [job.estimator for job in here.jobs] == ["exact"] * 3 + ["straight_through"] * 2
    assert len(here.jobs[1].files) == 3


@pytest.mark.slow
def test_training_by_two_processes_is_the_serial_one(results, tmp_path):
    run(trained.write(tmp_path), tmp_path / "r", progress=False, workers=2)
    assert trained.files(tmp_path / "r") == trained.files(results.directory)
