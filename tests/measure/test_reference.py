"""The sampled reference: what it is, when it stops, how it goes on, and metrics against it.

Its draws are compared with enumeration on a small network. What intervals cover is counted in slow
tests, over many references.
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_mean, flat, precision, small, threshold
from scipy.stats import binom
from stored import assert_one_sentence, drawn

import gradbench
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.pytrees import layer_vectors
from gradbench.measure import cell as driver
from gradbench.measure import pilot as piloting
from gradbench.measure import sampled_reference
from gradbench.measure.blocks import Blocks
from gradbench.measure.exact_reference import exact_gradient
from gradbench.measure.pilot import Pilot
from gradbench.measure.reference import reference
from gradbench.measure.timing import DrawTime
from gradbench.metrics import coordinates, layers_of
from gradbench.metrics.accuracy import mse_difference

pytestmark = pytest.mark.usefixtures("quick_compilation")

SPEC = "rloo(samples=4)"
NETWORK, PARAMS, BATCH = small((2, 3, 2, 1), scale=2.0)


def ask(rel_se=0.2, **more):
    """A sampled reference of the network by one estimator, so that nothing is timed."""
    options = {"method": "sampled", "rel_se": rel_se, "estimators": SPEC} | more
    return reference(NETWORK, PARAMS, BATCH, **options)


@pytest.fixture(scope="module")
def truth(quick_compilation):
    return exact_gradient(NETWORK, PARAMS, BATCH)


@pytest.fixture(scope="module")
def sampled(quick_compilation):
    return ask(0.05)


def bits(found):
    """Every number of a reference."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]


# --- what it is ---


@pytest.mark.slow
def test_it_is_the_exact_gradient_within_its_standard_errors(truth, sampled):
    assert sampled.route == "sampled" and sampled.agreement == {}
    z = (flat(sampled.gradient) - flat(truth.gradient)) / flat(sampled.samples.standard_error)
    assert np.abs(z).max() < threshold(1e-6, z.size)
    assert abs(sampled.value - truth.value) < threshold(1e-6) * sampled.samples.value_se
    shapes = [x.shape for x in jax.tree.leaves(PARAMS)]
    for tree in (sampled.gradient, sampled.samples.standard_error):
        assert [x.shape for x in jax.tree.leaves(tree)] == shapes
        assert all(x.dtype == np.float64 for x in jax.tree.leaves(tree))


@pytest.mark.slow
def test_its_blocks_are_those_of_its_mean_and_give_its_covariance(sampled):
    samples = sampled.samples
    vectors = layer_vectors(sampled.gradient)
    for name, blocks, vector in zip(samples.layer_names, samples.blocks, vectors, strict=True):
        assert blocks.draws == samples.draws and len(blocks.counts) == 64
        np.testing.assert_allclose(blocks.mean(), np.asarray(vector), rtol=1e-6, atol=1e-9)
        covariance = samples.covariance(name)
        counts, means = blocks.counts, blocks.means
        expected = np.cov(means.T, fweights=counts.astype(int)) * (counts.sum() - 1)
        expected /= (len(counts) - 1) * counts.sum()
        np.testing.assert_allclose(covariance, expected, rtol=1e-9, atol=1e-18)
        # From the spread of the draws, and from that of 64 blocks: a standard error of 18 % each.
        ratio = np.diag(covariance) / blocks.variances()
        assert ((ratio > 0.3) & (ratio < 2.2)).all()
    with pytest.raises(GradbenchError) as error:
        samples.covariance("layer 9")
    assert_one_sentence(error, "'layer 9'", "did you mean 'layer")


@pytest.mark.slow
def test_a_model_that_can_be_enumerated_is_unless_asked_otherwise(truth):
    for method in ("auto", "exact"):
        found = reference(NETWORK, PARAMS, BATCH, method=method)
        assert found.samples is None and found.blocks is None
        assert bits(found.gradient) == bits(truth.gradient)
    assert reference(NETWORK, PARAMS, BATCH, 1, rel_se=0.5, estimators=SPEC).route == "sampled"
    with pytest.raises(GradbenchError, match="memory budget"):
        reference(NETWORK, PARAMS, BATCH, 1, method="exact")
    assert gradbench.reference is reference


@pytest.mark.slow
def test_without_a_key_it_is_always_the_same_and_with_another_another():
    one, two = ask(), ask()
    assert bits(one) == bits(two)
    assert bits(one) != bits(ask(key=jax.random.key(1)))


# --- when it stops ---


def layer(draws, size=16):
    parts = draws.reshape(-1, size, draws.shape[1])
    means = parts.mean(1)
    return Blocks(np.full(len(parts), float(size)), means, ((parts - means[:, None]) ** 2).sum(1))


def test_the_relative_error_is_that_of_the_whole_layer_with_a_norm_without_bias():
    draws = np.random.default_rng(0).normal([1.0, 0.0, 0.0], 2.0, (640, 3))
    noise = draws.var(0, ddof=1).sum() / 640
    found = layer(draws).relative_error()
    assert found == pytest.approx(math.sqrt(noise / ((draws.mean(0) ** 2).sum() - noise)), rel=1e-9)
    assert layer(draws - draws.mean(0)).relative_error() == math.inf
    assert layer(np.ones((64, 2))).relative_error() == 0.0
    assert layer(np.zeros((64, 2))).relative_error() == 0.0


@pytest.mark.slow
def test_it_stops_at_the_first_doubling_at_which_every_layer_is_known(sampled):
    """The last one decides: the other layers were known earlier."""
    errors = sampled.samples.rel_se
    assert max(errors.values()) <= 0.05 and sampled.samples.draws > 1024
    *_, second, worst = sorted(errors.values())
    assert second < 0.95 * worst  # so that stopping on another layer would be seen
    assert ask(1.001 * worst).samples.draws == sampled.samples.draws
    assert ask(math.sqrt(second * worst)).samples.draws == 2 * sampled.samples.draws
    earlier = ask(1.7 * worst).samples
    assert worst < max(earlier.rel_se.values()) <= 1.7 * worst
    assert earlier.draws < sampled.samples.draws


@pytest.mark.slow
def test_what_is_not_known_after_most_draws_is_told_with_the_layer():
    with pytest.warns(GradbenchWarning) as caught:
        found = ask(1e-4, most_draws=3000)
    (warning,) = caught
    assert found.samples.draws == 2048
    text = str(warning.message)
    assert "after 2048 draws of rloo(samples=4)" in text and "raise most_draws" in text
    assert all(f"{name} to " in text for name in found.samples.layer_names)
    assert warning.filename == __file__


@pytest.mark.slow
def test_a_layer_of_zero_gradient_with_noise_is_told_and_one_without_noise_is_known():
    def model(params, example, binary):
        x = binary(params[0] + 0 * example)
        return x[0] * x[1] + 0.0 * params[1].sum()

    zero = np.zeros(2)
    ask_it = {"method": "sampled", "estimators": "reinforce", "most_draws": 1024}
    with pytest.warns(GradbenchWarning) as caught:
        found = reference(model, (zero, zero), zero[None], **ask_it)
    assert "(layer 1 " in str(caught[0].message) and "output" not in str(caught[0].message)
    assert found.samples.rel_se["layer 1"] > 0.3 and found.samples.rel_se["output"] == 0.0


# --- how it goes on ---


@pytest.mark.slow
def test_an_interrupted_run_ends_in_the_bits_of_one_that_was_not(tmp_path, monkeypatch):
    whole = ask(0.03, directory=tmp_path / "whole")
    write, stages = sampled_reference.write_file, []

    def killed(path, data):
        write(path, data)
        stages.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(sampled_reference, "write_file", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ask(0.03, directory=tmp_path / "killed")
    monkeypatch.undo()
    calls = []
    draw = driver.draw_block
    monkeypatch.setattr(driver, "draw_block", lambda *a: calls.append(int(a[-1])) or draw(*a))
    resumed = ask(0.03, directory=tmp_path / "killed")
    assert (
        len(stages) == 2 and calls[0] == sampled_reference.FIRST_DRAWS
    )  # what was saved is not drawn again
    assert bits(resumed) == bits(whole) == bits(ask(0.03))
    # Nor is anything where enough is there, and a smaller error goes on from it.
    calls.clear()
    assert bits(ask(0.1, directory=tmp_path / "whole")) == bits(whole) and not calls
    more = ask(0.02, directory=tmp_path / "whole")
    assert calls[0] == whole.samples.draws and more.samples.draws > whole.samples.draws


@pytest.mark.slow
def test_a_directory_of_something_else_is_refused_and_a_damaged_file_named(tmp_path):
    ask(directory=tmp_path)
    moved = jax.tree.map(lambda x: x + 1e-9, PARAMS)
    others = {
        "another key": lambda: ask(directory=tmp_path, key=jax.random.key(5)),
        "other estimators": lambda: ask(directory=tmp_path, estimators="reinforce"),
        "other parameters": lambda: reference(
            NETWORK, moved, BATCH, method="sampled", estimators=SPEC, directory=tmp_path
        ),
        "other data": lambda: reference(
            NETWORK,
            PARAMS,
            (BATCH[0], -BATCH[1]),
            method="sampled",
            estimators=SPEC,
            directory=tmp_path,
        ),
        "another model": lambda: reference(
            small((2, 3, 2, 1), noise="normal")[0],
            PARAMS,
            BATCH,
            method="sampled",
            estimators=SPEC,
            directory=tmp_path,
        ),
    }
    for what, call in others.items():
        with pytest.raises(GradbenchError) as error:
            call()
        assert_one_sentence(error, str(tmp_path), f"holds a reference of {what};", "directory")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GradbenchError, match="is corrupted; delete it and run again"):
        ask(directory=tmp_path)


# --- which estimator ---


def a_second(cells, *arguments, **more):
    return [DrawTime(1.0, 0.0, 9) for _ in cells]


@pytest.mark.slow
def test_the_estimator_of_the_least_predicted_time_runs_and_the_pilot_says_why(monkeypatch):
    seconds = {"reinforce": 1.0, "rloo(samples=4)": 2.0, "disarm": 1e4}
    times = [DrawTime(one, 0.0, 9) for one in seconds.values()]
    monkeypatch.setattr(piloting, "time_draws", lambda *a, **b: times)
    found = ask(0.5, estimators=list(seconds))
    pilot = found.samples.pilot
    assert found.samples.estimator == pilot[0].estimator
    assert {row.estimator: row.seconds_per_draw for row in pilot} == seconds
    assert [row.seconds for row in pilot] == sorted(row.seconds for row in pilot)
    assert all(row.seconds == row.seconds_per_draw * row.draws for row in pilot)
    assert isinstance(pilot[0], Pilot) and pilot[-1].estimator == "disarm"


@pytest.mark.slow
def test_the_draws_that_a_pilot_predicts_are_about_those_that_it_takes(monkeypatch):
    """The error of a pilot of 256 draws is below a factor of 4 here, of the doubling one of 2."""
    monkeypatch.setattr(piloting, "time_draws", a_second)
    found = ask(0.04, estimators=[SPEC, "reinforce"])
    (row,) = (row for row in found.samples.pilot if row.estimator == found.samples.estimator)
    assert row.estimator == SPEC
    assert row.draws / 4 < found.samples.draws < 8 * row.draws


@pytest.mark.slow
def test_black_boxes_are_for_estimators_without_a_derivative_and_psa_for_one_layer(monkeypatch):
    def black_box(params, example, binary):
        x = binary(params[0] @ example)
        like = jax.ShapeDtypeStruct((), x.dtype)
        f = jax.pure_callback(
            lambda x: np.asarray(x, np.float64).sum(-1) ** 2, like, x, vmap_method="expand_dims"
        )
        return f

    monkeypatch.setattr(piloting, "time_draws", a_second)
    monkeypatch.setattr(sampled_reference, "CANDIDATES", ("muprop", "reinforce", "psa"))
    params = (np.array([[0.5, -1.0], [1.0, 0.3]]),)
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)  # for the thread of the callback
    try:
        found = reference(black_box, params, BATCH[0], method="sampled", rel_se=0.3)
    finally:
        jax.config.update("jax_enable_x64", before)
    assert {row.estimator for row in found.samples.pilot} == {"reinforce", "psa"}


BAD = {
    "method": ({"method": "sample"}, "method is 'sample'; did you mean 'sampled'?"),
    "rel_se": ({"rel_se": 0.0}, "rel_se is 0.0; give a positive number"),
    "NaN": ({"rel_se": math.nan}, "rel_se is nan"),
    "most_draws": ({"most_draws": 1000}, "most_draws is 1000; give a number from 1024 to 2^32"),
    "key": ({"key": 3}, "the key is int; give one of jax.random.key"),
    "biased": ({"estimators": "zgr"}, "estimator 'zgr' is exact for one layer and objectives of"),
    "one layer": ({"estimators": "psa"}, "a model of 2 layers needs one that is unbiased; take"),
    "exact": ({"estimators": "exact"}, "estimator 'exact' draws nothing; give method='exact'"),
    "unfit": ({"estimators": ["vimco"]}, "is no MultiSample; give a MultiSample"),
    "unknown": ({"estimators": "rlo"}, "unknown estimator 'rlo'; did you mean 'rloo'?"),
    "none": ({"estimators": []}, "estimators is empty; name one, such as"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name):
    options, words = BAD[name]
    with pytest.raises(GradbenchError) as error:
        ask(**options)
    assert_one_sentence(error, words)


def test_an_objective_that_is_not_finite_is_one_sentence():
    def model(params, example, binary):
        return 1.0 / (binary(params[0]).sum() + 0 * example - 2.0)

    with pytest.raises(GradbenchError) as error:
        reference(model, (np.zeros(2),), np.zeros(3), method="sampled", estimators="reinforce")
    assert_one_sentence(error, "draws of 'reinforce' are not finite", "check the objective")


# --- what the metrics make of it ---


def noisy(gradient, scale, rng, blocks=64, size=16):
    """Blocks of normal draws of this mean."""
    return layer(gradient + scale * rng.normal(size=(blocks * size, len(gradient))), size)


@pytest.mark.slow
def test_metrics_of_a_noisy_reference_are_not_biased_by_it():
    """An estimator without bias has none, although it is far from the mean of the reference."""
    gradient = np.array([0.6, 0.0, -0.8, 0.1])
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        blocks = noisy(gradient, 2.0, rng)
        draws = gradient + rng.normal(size=(320, 4))
        (found,) = layers_of(drawn(draws, blocks.mean(), 16, (), reference=[blocks]))
        names = ("bias2", "mse", "variance", "descent")
        rows.append([found.estimate(name).value for name in names])
    size = float(gradient @ gradient)
    # |G|^2 is a denominator: its own noise, of 1.6 % of it at second order, is not corrected.
    assert_mean(np.array(rows)[:, :1], [0.0])
    mean = np.mean(rows, axis=0)
    assert mean[1:] == pytest.approx([4 / size, 4 / size, 1.0], rel=0.05)


def test_the_norm_of_the_gradient_is_estimated_without_the_noise_of_the_reference():
    """Of 16 coordinates the noise adds a quarter to |r|^2, 14 standard errors of the mean here."""
    gradient = np.eye(16)[0]
    rng = np.random.default_rng(4)
    squares = []
    for _ in range(200):
        blocks = noisy(gradient, 4.0, rng)
        cell = drawn(np.ones((2, 16)), blocks.mean(), 1, (), reference=[blocks])
        squares.append([next(layers_of(cell)).sample.norm ** 2])
    assert_mean(np.array(squares), [1.0])


def test_two_estimators_are_told_apart_although_the_reference_is_as_noisy_for_both():
    rng = np.random.default_rng(1)
    gradient = np.array([0.6, 0.0, -0.8, 0.1])
    blocks = noisy(gradient, 4.0, rng)
    draws = rng.normal(size=(640, 4))
    cells = [
        drawn(gradient + bias + 0.3 * draws, blocks.mean(), 16, (), reference=[blocks])
        for bias in (0.0, np.array([0.0, 0.05, 0.0, 0.05]))
    ]
    one, two = (next(layers_of(cell)).accuracy for cell in cells)
    same = mse_difference(one, one, (1, 1))
    assert same[0] == same[1] == 0.0 and abs(same[2].sum()) < 1e-12
    apart = math.sqrt(mse_difference(one, two, (1, 1))[2].sum())
    assert 0.0 < apart < 0.5 * math.hypot(*(math.sqrt(x.covariance.sum()) for x in (one, two)))


def test_exact_moments_are_not_exact_metrics_and_a_gradient_of_noise_is_none():
    rng = np.random.default_rng(2)
    gradient = np.array([0.6, 0.0, -0.8])
    draws = gradient + rng.normal(size=(64, 3))
    moments = [(gradient, np.ones(3))]
    for scale, zero in ((2.0, False), (200.0, True)):
        blocks = noisy(gradient, scale, rng)
        cell = drawn(draws, blocks.mean(), 64, (1,), moments=moments, reference=[blocks])
        (found,) = layers_of(cell)
        assert found.zero_gradient == zero and not found.exact
        for name in ("rmse", "bias2", "std", "descent", "cosine"):
            value, se, low, high = found.estimate(name)
            assert math.isnan(value) if zero else se > 0.0 and low < high
    (found,) = layers_of(drawn(draws, gradient, 64, (1,), moments=moments))
    assert found.exact and found.estimate("rmse").se == 0.0


def test_the_network_has_the_noise_of_all_layers():
    rng = np.random.default_rng(3)
    gradient = [np.array([1.0, 0.0]), np.array([0.0, 0.5, 0.5])]
    blocks = [noisy(layer_, 3.0, rng) for layer_ in gradient]
    draws = [layer_ + rng.normal(size=(320, len(layer_))) for layer_ in gradient]
    means = [part.mean() for part in blocks]
    *_, network = layers_of(drawn(draws, means, 16, (), reference=blocks))
    both = layer(np.zeros((64, 1)))._replace(
        counts=blocks[0].counts,
        means=np.concatenate([part.means for part in blocks], 1),
        m2=np.concatenate([part.m2 for part in blocks], 1),
    )
    whole = np.concatenate(draws, 1)
    (alone,) = layers_of(drawn(whole, both.mean(), 16, (), reference=[both]))
    assert network.layer == "network"
    assert network.estimate("mse") == pytest.approx(alone.estimate("mse"), rel=1e-12)


@pytest.mark.slow
def test_a_recommendation_for_a_model_of_60_units_says_what_it_was_measured_against(monkeypatch):
    def model(params, example, binary):
        return (binary(params[0] @ example).mean() - 0.3) ** 2

    monkeypatch.setattr(sampled_reference, "CANDIDATES", ("psa",))
    params = (np.random.default_rng(0).normal(size=(60, 2)),)
    found = gradbench.recommend(model, params, BATCH[0], "8-draws", ["reinforce"], draws=64)
    assert re.search(
        r"; sampled gradients: known to [\d.]+ % or better in every layer, from [\d,]+ draws of "
        r"psa; every interval includes their noise\.$",
        found.sentence,
    )
    assert not found.ranking["exact"].any() and found.ranking["rmse_se"][0] > 0.0


@pytest.mark.slow
def test_coordinates_and_their_test_carry_the_noise_of_the_reference():
    rng = np.random.default_rng(5)
    gradient = np.array([0.6, 0.0, -0.8, 0.1])
    p = []
    for _ in range(200):
        blocks = noisy(gradient, 3.0, rng)
        draws = gradient + 0.3 * rng.normal(size=(320, 4))
        cell = drawn(draws, blocks.mean(), 16, (), reference=[blocks])
        p.append(next(layers_of(cell)).unbiased_p)
    assert binom.sf(sum(np.array(p) < 0.05) - 1, 200, 0.05) > 1e-6
    assert binom.cdf(sum(np.array(p) < 0.5), 200, 0.5) > 1e-6
    frame = coordinates([cell])
    norm = next(layers_of(cell)).sample.norm
    expected = np.sqrt(draws.var(0, ddof=1) / 320 + blocks.variances()) / norm
    np.testing.assert_allclose(frame["bias_se"], expected, rtol=1e-9)
    far = drawn(draws + 1.5 * np.eye(4)[1], blocks.mean(), 16, (), reference=[blocks])
    assert next(layers_of(far)).unbiased_p < 1e-9


# --- what its intervals cover, stopping included ---

REPEATS = 400


@pytest.mark.slow
@pytest.mark.parametrize("rel_se", [0.05, 0.2])
def test_intervals_of_a_reference_cover_the_exact_gradient_after_the_stopping_rule(
    truth, rel_se, monkeypatch
):
    """Coordinates and norms of the layers at 95 %: counts from 93 to 97 % but with chance 1e-6."""
    loss = piloting.make_estimator(SPEC, NETWORK)
    monkeypatch.setattr(piloting, "make_estimator", lambda *a: loss)  # is compiled once
    found = [ask(rel_se, key=jax.random.key(k)) for k in range(REPEATS)]
    exactly = flat(truth.gradient)
    hits = np.array(
        [
            np.abs(flat(one.gradient) - exactly) <= 1.96 * flat(one.samples.standard_error)
            for one in found
        ]
    ).mean(1)
    assert_mean_covers(hits)
    for k, vector in enumerate(map(np.asarray, layer_vectors(truth.gradient))):
        square = float(vector @ vector)
        covered = 0
        for one in found:
            blocks = one.blocks[k]
            value = float(blocks.mean() @ blocks.mean()) - blocks.variances().sum()
            se = 2.0 * np.linalg.norm(blocks.deviations() @ blocks.mean())
            covered += abs(value - square) <= 1.96 * se
        print(rel_se, k, covered / REPEATS, hits.mean())
        assert binom.cdf(covered, REPEATS, 0.93) > 1e-6


def assert_mean_covers(hits):
    """The mean over repeats of the share of coordinates covered, which depend on each other."""
    se = hits.std(ddof=1) / math.sqrt(len(hits))
    reach = threshold(1e-6) * se
    assert 0.93 - reach < hits.mean() < 0.97 + reach, hits.mean()


def _with_constant(c, how):
    """A model that differs in what another function holds alone."""
    if how == "jit":
        inner = jax.jit(lambda x: (x * c).sum())
    else:
        like = jax.ShapeDtypeStruct((), jnp.float32)

        def outside(x):
            return np.float32(np.asarray(x) @ c)

        def inner(x):
            return jax.pure_callback(outside, like, x, vmap_method="sequential")

    return lambda params, example, binary: inner(binary(params[0])) + 0 * example


@pytest.mark.parametrize("how", ["jit", "callback"])
@pytest.mark.first(1)
@pytest.mark.slow
def test_a_model_that_differs_in_a_constant_of_an_inner_function_is_another_one(how, tmp_path):
    given = ((jnp.ones(3),), jnp.ones(2))
    with precision(True):
        for n, scale in enumerate((1.0, 5.0)):
            model = _with_constant(scale * np.arange(1.0, 4), how)
            options = {"method": "sampled", "estimators": "disarm", "rel_se": 0.3}
            if n == 0:
                reference(model, *given, directory=tmp_path, **options)
                continue
            with pytest.raises(GradbenchError, match="another model"):
                reference(model, *given, directory=tmp_path, **options)


def test_what_is_wrong_with_a_model_is_said_and_not_that_no_estimator_runs():
    def vector(params, example, binary):
        return binary(params[0])

    with pytest.raises(GradbenchError, match="an objective of shape"):
        reference(vector, (jnp.ones(3),), jnp.ones(2), method="sampled")
    with pytest.raises(NameError, match="undefined_name"):
        reference(lambda *_: undefined_name, (jnp.ones(3),), jnp.ones(2), method="sampled")  # noqa: F821
