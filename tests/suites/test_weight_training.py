"""Training of binary weights: optimisers of states, those of biases, and tests at the mode."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import trained
from conftest import flat
from here import Here
from stored import assert_one_sentence

import gradbench
from gradbench import metrics
from gradbench.core.errors import GradbenchError
from gradbench.metrics.training_tables import tables_of
from gradbench.results import runs
from gradbench.results.methods import estimators_with, methods_of
from gradbench.suites import runner
from gradbench.suites.instance import build, estimator
from gradbench.suites.plan import read_optimiser
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import load_suite
from gradbench.suites.training import engine, group
from gradbench.suites.training.search import search
from gradbench.suites.training.work import sampled_loss

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

IDENTITY = "straight_through(proxy='identity')"
PROBLEM = tiny.changed(
    trained.PROBLEM,
    ("states = [0, 1]", "states = [-0.5, 0.5]"),
    ('initialisation = "normalised"', 'initialisation = "uniform"\nscale = 0.8'),
    ("\n[measured]", '\n[network.weights]\nactivations = "psa"\n\n[measured]'),
)
REAL = tiny.changed(
    PROBLEM, ('activations = "psa"', 'activation = "tanh"'), ('noise = "logistic"\n', "")
)
SUITE = tiny.changed(
    trained.SUITE,
    ('["exact", "straight_through"]', f'["{IDENTITY}", "straight_through"]'),
    ('["nesterov(momentum=0.9)"]', '["mirror_descent", "bop(threshold=0.001)", "adam"]'),
    ("rates = [0.01, 0.1]", "rates = [0.1, 1]"),
    ("measured = 2\nexamples = 4\n", "measured = 0\n"),
    (
        "samples = 2\n",
        'samples = 2\nresult = "mode_loss"\nbiases = { optimiser = "adam", rate = 0.05 }\n\n'
        f'[training.only]\n"mirror_descent" = ["{IDENTITY}"]\n'
        f'"bop(threshold=0.001)" = ["{IDENTITY}"]\n"adam" = ["straight_through"]\n',
    ),
)
BOP, ADAM = "bop(threshold=0.001)", "adam"


def write(folder, *changes, problem=PROBLEM):
    """The path of a tiny suite that trains binary weights, with parts changed."""
    return tiny.write(folder, tiny.changed(SUITE, *changes), tiny=problem)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A tiny suite of binary weights, run to its end."""
    folder = tmp_path_factory.mktemp("weights")
    return run(write(folder), folder / "r", progress=False)


def reported(results, optimiser):
    return next(
        one
        for one in runs.stored(results)
        if one.identity["phase"] == "report" and one.identity["optimiser"] == optimiser
    )


# ------------------------------------------------------------------------------------- the steps

RATE, EXAMPLES = 0.2, 8


def follow(optimiser, eta, gradients):
    """The latent weights after steps of an optimiser, in plain numpy by the formulas of papers."""
    mean = 0.0
    for step, g in enumerate(gradients, start=1):
        if optimiser == "mirror_descent":  # p' is proportional to p exp(-rate g)
            p = 1 / (1 + np.exp(-eta))
            eta = np.log(p / (1 - p)) - RATE * g
        elif optimiser.startswith("binary_connect"):
            mean = 0.9 * mean + g
            eta = np.clip(eta - RATE * mean, -1, 1)
        elif optimiser.startswith("proximal_kl"):
            eta = (eta - RATE * g) / (1 + RATE * 0.5)
        elif optimiser.startswith("bop"):
            mean = (1 - RATE) * mean + RATE * g
            eta = np.where(np.sign(eta) * mean > 0.001, -eta, eta)
        else:
            mean = 0.5 * mean + 0.5 * (EXAMPLES * g + eta / 2)
            eta = 2 * (eta / 2 - RATE * mean / (1 - 0.5**step))
    return eta


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimiser",
    [
        "mirror_descent",
        "binary_connect(momentum=0.9)",
        "proximal_kl(strength=0.5)",
        "bop(threshold=0.001)",
        "bayesian_learning_rule(examples=8, momentum=0.5)",
    ],
)
def test_weights_follow_the_formula_of_their_optimiser_and_biases_theirs(tmp_path, optimiser):
    """With the gradients that the runs met: the estimator's own, on the batch of each step."""
    changes = [(f'"{BOP}", ', ""), (f'"{BOP}" = ["{IDENTITY}"]\n', "")]
    changes += [("mirror_descent", optimiser), ('"adam", rate', '"sgd", rate')]
    suite = load_suite(write(tmp_path, *changes))
    built = build(suite.problems[0])
    how = (suite.plan.optimisers[0], "report", (RATE,), (0,), suite.plan, "float64")
    made = group.Group(built, IDENTITY, *how)
    make, numbers = made.make
    keys, state = made.keys, made.begin(jnp.ones(1))
    slope = jax.jit(jax.grad(estimator(IDENTITY, built.network)))
    gradients, first = [], state.params
    for step in range(4):
        epoch, place = divmod(step, 2)
        shuffle = jax.random.fold_in(jax.random.fold_in(keys[0], 0), epoch)
        rows = jax.random.permutation(shuffle, 8)[4 * place : 4 * place + 4]
        draw = jax.random.fold_in(jax.random.fold_in(keys[0], 1), step)
        batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], built.data)
        gradients.append(slope(jax.tree.map(lambda leaf: leaf[0], state.params), draw, batch))
        of = (made.loss, make, 4, True, numbers, jnp.asarray([RATE]), keys)
        state = engine.advance(*of, state, built.data, step, step + 1)
    for k, theta in enumerate(state.params):
        own = [np.asarray(g[k]["weight"]) for g in gradients]
        right = follow(optimiser, np.asarray(first[k]["weight"][0]), own)
        np.testing.assert_allclose(theta["weight"][0], right, rtol=1e-10, atol=1e-12)
        right = first[k]["bias"][0] - 0.05 * sum(g[k]["bias"] for g in gradients)
        np.testing.assert_allclose(theta["bias"][0], right, rtol=1e-10, atol=1e-12)
    moved = flat(state.params) != flat(first)
    assert moved.mean() > (0.2 if optimiser.startswith("bop") else 0.9)


@pytest.mark.slow
def test_interrupted_runs_of_weights_end_in_the_same_bits(results, tmp_path, monkeypatch):
    monkeypatch.setattr(group, "SAVE_SECONDS", -1.0)
    plain, left = group._save, [2]

    def save_and_stop(*of):
        plain(*of)
        left[0] -= 1
        if left[0] % 2 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(group, "_save", save_and_stop)
    for _ in range(60):
        try:
            run(write(tmp_path), tmp_path / "r", progress=False)
        except KeyboardInterrupt:
            continue
        break
    assert left[0] < -6
    assert trained.files(tmp_path / "r") == trained.files(results.directory)


@pytest.mark.slow
def test_workers_train_the_methods_that_are_named_and_no_others(results, tmp_path, monkeypatch):
    here = Here()
    monkeypatch.setattr(runner, "engine_of", lambda *_: here)
    run(write(tmp_path), tmp_path / "r", progress=False)
    methods = {(job.optimiser, job.estimator) for job in here.jobs}
    assert len(here.jobs) == 3
    assert methods == {("mirror_descent", IDENTITY), (BOP, IDENTITY), (ADAM, "straight_through")}
    assert trained.files(tmp_path / "r") == trained.files(results.directory)


# -------------------------------------------------------------------------------------- the tests


@pytest.mark.slow
def test_losses_are_of_sampled_weights_and_those_at_the_mode_of_the_more_probable_ones(tmp_path):
    """Of a network without random units, whose loss at the mode has no noise."""
    suite = load_suite(write(tmp_path, problem=REAL))
    built = build(suite.problems[0])
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, -2 * leaf]), built.initial())
    found = group.evaluate(
        built.network, sampled_loss(built.network), 400, True, params, jax.random.key(0),
        built.data, built.batch,
    )  # fmt: skip
    for lane in range(2):
        own = jax.tree.map(lambda leaf, lane=lane: leaf[lane], params)
        likely = built.network.with_weights(lambda eta: jnp.where(eta < 0, -1.0, 1.0), own)
        alone = jax.vmap(lambda example, w=likely: built.network.network(w, example))
        assert found["mode_loss"][lane] == pytest.approx(float(jnp.mean(alone(built.data))))
        right = gradbench.expected_loss(built.network, own, built.data)
        assert abs(float(found["loss"][lane] - right)) < 0.15  # 400 draws of a deviation below 0.5
        x, y = built.batch
        states = jnp.tanh(likely[0]["weight"] @ x.T + likely[0]["bias"][:, None]) / 2
        out = likely[1]["weight"] @ states + likely[1]["bias"][:, None]
        share = np.mean(np.where(out[0] < 0, -1, 1) == y)
        assert found["mode_accuracy"][lane] == pytest.approx(float(share))
    assert np.abs(found["loss"] - found["mode_loss"]).max() > 0.005


@pytest.mark.slow
def test_rates_are_searched_by_the_loss_at_the_mode(results):
    """And those of Bop, which average gradients, are never above 1."""
    for optimiser in ("mirror_descent", BOP, ADAM):
        losses, one = {}, reported(results, optimiser)
        for other in runs.stored(results):
            if other.identity["optimiser"] == optimiser and other.identity["phase"] == "search":
                losses |= dict(
                    zip(other.identity["rates"], other.arrays["mode_loss"][-1], strict=True)
                )
        assert one.identity["rates"] == [min(losses, key=losses.get)]
        assert optimiser != BOP or max(losses) <= 1
        assert one.identity["result"] == "mode_loss"
        assert ("biases" in one.identity) == (optimiser != ADAM)


def test_the_grid_of_an_optimiser_ends_at_its_largest_rate(tmp_path):
    tried = []

    def attempt(rates):
        tried.append(rates)
        losses = np.array([[1 / rate for rate in rates]])
        return runs.Stored({"rates": list(rates), "seeds": [7]}, {"mode_loss": losses}, 1, True)

    assert search(attempt, (0.1, 1.0), 2, "mode_loss", 1.0).rate == 1 and len(tried) == 1
    assert search(attempt, (0.1, 1.0), 1, "mode_loss", 50.0).rate == 10
    plan = load_suite(write(tmp_path, ("[0.1, 1]", "[0.1, 1, 10]"))).plan
    assert plan.rates_of(BOP) == (0.1, 1) and plan.rates_of(ADAM) == (0.1, 1, 10)
    assert plan.runs(1, [IDENTITY, "straight_through"], 2) == {
        "search": 3 + 2 + 3,
        "most": 16,
        "reported": 6,
    }


@pytest.mark.slow
def test_the_report_ranks_all_methods_of_a_problem_together(results):
    frame = metrics.trained(results)
    assert frame["rank"].tolist()[0] == 1 and len(frame) == 3
    assert set(frame["method"]) == {
        f"{IDENTITY} with mirror_descent",
        f"{IDENTITY} with {BOP}",
        "straight_through with adam",
    }
    page = gradbench.write_report(results.directory).read_text()
    assert "the least loss at the mode of weights has" in page
    assert describe(results.directory.parent / "suite.toml", out=results.directory).endswith(
        "3 of 3 methods are trained"
    )


def test_methods_of_several_optimisers_are_one_table(tmp_path):
    """On planted losses: Adam's exact run is the best, and ARM's with SGD the last of all."""
    only = {"adam": ["exact", "arm"], "sgd": ["arm"]}
    losses = {"exact": 0.1, "arm": 0.5}
    planted = trained.write_runs(
        tmp_path / "r",
        loss=lambda name, seed: losses[name] + 0.01 * seed,
        estimators=["exact", "arm"],
        optimisers=["adam", "sgd"],
        problems=("a",),
        measured=0,
        only=only,
    )
    frame = metrics.trained(planted)
    assert frame["rank"].tolist() == [1, 2, 2]
    (table,) = tables_of(frame)
    assert table.title == "a" and table.heads[:3] == ["rank", "optimiser", "estimator"]
    assert [row[:3] for row in table.rows] == [
        ["1", "adam", "exact"],
        ["2", "adam", "arm"],
        ["2", "sgd", "arm"],
    ]
    assert "arm with sgd" in gradbench.write_report(planted).read_text()
    text = gradbench.show(planted)
    assert "mode of weights" not in text and " sgd " in text


def test_an_optimiser_trains_with_all_estimators_unless_some_are_named():
    assert estimators_with(None, "adam", ["psa", "arm"]) == ["psa", "arm"]
    assert estimators_with({"adam": ("arm",)}, "adam", ["psa", "arm"]) == ["arm"]
    assert estimators_with({"adam": ("arm",)}, "sgd", ["psa", "arm"]) == ["psa", "arm"]
    plan = {"optimisers": ["adam", "sgd"], "only": {"adam": ["arm"]}}
    suite = {"problems": [{"name": "a"}], "estimators": ["psa", "arm"], "plan": plan}
    assert list(methods_of(suite)) == [
        ("a", "adam", "arm"),
        ("a", "sgd", "psa"),
        ("a", "sgd", "arm"),
    ]


# ------------------------------------------------------------------------------------- bad input

WRONG = {
    "rate": ([("[0.1, 1]", "[2, 20]")], "bop(threshold=0.001) has a rate of at most 1; give"),
    "biases": (
        [('biases = { optimiser = "adam", rate = 0.05 }\n', "")],
        "mirror_descent is one of weights, and biases are trained by another one; give biases",
    ),
    "bias of weights": ([('= "adam", rate', '= "bop", rate')], "that is not of weights, such as"),
    "name": ([('["mirror_descent"', '["mirror_decent"')], "did you mean 'mirror_descent'?"),
    "argument": ([(BOP, "bop(momentum=0.9)")], "bop takes threshold, as numbers; write it so"),
    "value": ([(BOP, "bop(threshold=-1)")], "the threshold is -1.0; give at least 0"),
    "lacking": ([(BOP, "bayesian_learning_rule")], "takes examples, momentum, as numbers"),
    "only": ([('"adam" = [', '"adan" = [')], "only has 'adan'; did you mean 'adam'?"),
    "other": ([('"adam" = [', '"sgd" = [')], "only has 'sgd'; choose one of"),
    "estimator": ([('"adam" = ["str', '"adam" = ["psa", "str')], "training.only has 'psa'; "),
    "idle": ([('["straight_through"]', f'["{IDENTITY}"]')], "no optimiser trains with 'straight"),
    "fit": (
        [('"adam" = ["straight_through"]', ""), (f'"mirror_descent" = ["{IDENTITY}"]\n', "")],
        "'mirror_descent' of weights reads dE/dw but the estimator is 'straight_through'; take "
        "straight_through with proxy='identity', or say in [training.only] which",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_plan_of_weights_that_cannot_be_is_refused_in_one_sentence(tmp_path, name):
    changes, said = WRONG[name]
    with pytest.raises(GradbenchError) as caught:
        run(write(tmp_path, *changes), tmp_path / "r", progress=False)
    assert_one_sentence(caught, said)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (
            PROBLEM.replace('activations = "psa"', 'activation = "tanh"\nactivations = "psa"'),
            "which a network with an activation has no use for; take it out",
        ),
        (PROBLEM.replace('"psa"', '"pas"'), "did you mean 'psa'?"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_one_sentence(tmp_path, problem, said):
    suite = write(tmp_path, problem=problem.replace('noise = "logistic"\n', ""))
    with pytest.raises(GradbenchError) as caught:
        run(suite, tmp_path / "r", progress=False)
    assert_one_sentence(caught, said)


def test_an_optimiser_of_weights_needs_binary_weights(tmp_path):
    suite = write(tmp_path, ('result = "mode_loss"\n', ""), problem=trained.PROBLEM)
    with pytest.raises(GradbenchError) as caught:
        run(suite, tmp_path / "r", progress=False)
    assert_one_sentence(caught, "mirror_descent is an optimiser of binary weights, which the")
    suite = trained.write(tmp_path, ("samples = 2", 'samples = 2\nresult = "mode_loss"'))
    with pytest.raises(GradbenchError) as caught:
        run(suite, tmp_path / "r", progress=False)
    assert_one_sentence(caught, "the result is mode_loss but the network has no binary weights")


# ------------------------------------------------------------------------------------- the suite


def test_train_weights_has_both_kinds_of_activations_and_optimisers_of_all_papers():
    suite = load_suite("train-weights")
    kinds = {problem.network.weights.activation for problem in suite.problems}
    assert kinds == {None, "tanh"} and all(p.network.weights for p in suite.problems)
    names = {read_optimiser(one).name for one in suite.plan.optimisers}
    assert names >= {"mirror_descent", "binary_connect", "proximal_kl", "bop", "adam"}
    assert "bayesian_learning_rule" in names and suite.plan.result == "mode_loss"
    assert suite.plan.searched("adam") == suite.replicates  # of one compiled program
    examples = len(build(replace(suite.problems[0])).data[0])
    assert f"bayesian_learning_rule(examples={examples})" in suite.plan.optimisers


@pytest.mark.slow
def test_the_quick_form_of_train_weights_trains_networks_of_binary_weights(tmp_path):
    found = run("train-weights", tmp_path / "r", quick=True, progress=False)
    ranked = metrics.trained(found.directory)
    assert len(ranked) == 6 and (ranked["diverged"] == 0).all()
    assert (ranked.groupby("problem")["mode_accuracy"].max() > 0.7).all()
    assert ranked.groupby("problem")["rank"].min().eq(1).all()
