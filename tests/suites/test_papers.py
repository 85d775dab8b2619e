"""What ORACLES says of the gradient-accuracy experiment of the PSA paper, on the problem `psa`.

Shekhovtsov, Yanush and Flach 2020: network 2-5-5-5-1 trained with REINFORCE. Moments are exact
where they exist (ST, PSA, REINFORCE), measured for ARM. `pytest -s -m slow` prints the losses
and errors of every seed.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
import pytest

from gradbench import exact
from gradbench.core.precision import float64
from gradbench.core.pytrees import layer_vectors
from gradbench.measure.blocks import pool
from gradbench.measure.draws import make_plan, measure
from gradbench.measure.exact_reference import exact_gradient
from gradbench.measure.reference import Reference
from gradbench.suites.instance import build, estimator
from gradbench.suites.read_problem import load_problem

EPOCHS = ("epoch 1", "epoch 100", "epoch 2000")
# Seeds take some seconds each.
SOME = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(3)]
ALL = range(8)
ARM = "arm(descendants='independent')"  # as in the paper
SPECS = ("reinforce", ARM, "straight_through", "psa")
moments = jax.jit(exact.moments, static_argnums=0)


class Checkpoint(NamedTuple):
    network: object
    params: tuple
    batch: tuple
    key: jax.Array
    reference: Reference


class Error(NamedTuple):
    """|bias| and standard deviation of one draw, relative to the exact gradient, per layer."""

    bias: np.ndarray
    std: np.ndarray


@lru_cache
def trained(seed):
    """The checkpoints of the problem by name."""
    with float64():
        problem = load_problem("psa")
        built = build(problem, seed)
        return {
            problem.checkpoint_name(epoch): Checkpoint(
                built.network,
                params,
                built.batch,
                built.key("draws"),
                exact_gradient(built.network, params, built.batch),
            )
            for epoch, params in zip(problem.checkpoints, built.checkpoints(), strict=True)
        }


@lru_cache
def blocks(seed, epoch, spec, draws):
    """Measured blocks of draws, the same random numbers for every estimator."""
    network, params, batch, key, reference = trained(seed)[epoch]
    plan = make_plan(draws, coordinates=81)
    with float64():
        loss = estimator(spec, network)
        return list(measure(loss, params, batch, reference.gradient, key, plan))


@lru_cache
def exact_error(seed, epoch, spec):
    network, params, batch, _, reference = trained(seed)[epoch]
    with float64():
        found = moments(estimator(spec, network), params, batch)
        layers = zip(
            *map(layer_vectors, (found.mean, found.variance, reference.gradient)), strict=True
        )
        pairs = [
            np.array([np.linalg.norm(mean - g), np.sqrt(np.sum(variance))]) / np.linalg.norm(g)
            for mean, variance, g in layers
        ]
    return Error(*np.transpose(pairs))


def measured_std(seed, epoch, spec, draws=3000):
    gradient = layer_vectors(trained(seed)[epoch].reference.gradient)
    parts = [pool(block.layers[k] for block in blocks(seed, epoch, spec, draws)) for k in range(4)]
    return np.array(
        [
            np.sqrt(part.m2.sum() / (part.count - 1)) / np.linalg.norm(g)
            for part, g in zip(parts, gradient, strict=True)
        ]
    )


@lru_cache
def errors(seed, epoch):
    """By estimator; ARM without its bias, which is zero but cannot be computed exactly."""
    found = {spec: exact_error(seed, epoch, spec) for spec in SPECS if spec != ARM}
    found[ARM] = Error(np.full(4, np.nan), measured_std(seed, epoch, ARM, 20000))
    print(f"\nseed {seed}, {epoch}, loss {trained(seed)[epoch].reference.value:.4f}")
    for spec in SPECS:
        bias, std = found[spec]
        rmse = np.hypot(np.nan_to_num(bias), std)
        cells = [f"{r:9.3g} (bias {b:8.2g})" for r, b in zip(rmse, bias, strict=True)]
        print(f"  {spec:30}" + "".join(cells))
    return found


# --- every seed and checkpoint ---


@pytest.mark.parametrize("seed", SOME)
def test_the_routes_to_the_exact_gradient_agree_at_every_checkpoint(seed):
    for epoch in EPOCHS:
        assert max(trained(seed)[epoch].reference.agreement.values()) < 1e-9


@pytest.mark.parametrize("seed", SOME)
def test_in_the_output_layer_reinforce_arm_and_straight_through_are_equal(seed):
    for epoch in EPOCHS:
        one, *others = (
            [block.layers[-1].mean for block in blocks(seed, epoch, spec, 3000)]
            for spec in ("reinforce", ARM, "arm", "straight_through")
        )
        for other in others:
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", SOME)
def test_deviations_in_the_hidden_layers_fall_from_reinforce_over_arm_to_st_and_psa(seed):
    """After 2000 epochs ARM deviates more than REINFORCE in layer 2 of some networks."""
    for epoch in EPOCHS:
        reinforce, arm, st, psa = (measured_std(seed, epoch, spec)[:-1] for spec in SPECS)
        assert (arm > np.maximum(st, psa)).all()
        more = reinforce > arm
        assert more[[0, 2]].all() if epoch == "epoch 2000" else more.all()


@pytest.mark.parametrize("seed", SOME)
def test_common_random_numbers_of_the_layers_above_make_arm_deviate_less(seed):
    """In the hidden layers below the last, which alone have layers above."""
    for epoch in EPOCHS:
        published, shared = (measured_std(seed, epoch, spec)[:2] for spec in (ARM, "arm"))
        assert (published > shared).all()


# --- epoch 100, where the statements of ORACLES were found: exact moments ---


def check_bias(seed, epoch="epoch 100"):
    st, psa = (exact_error(seed, epoch, spec).bias for spec in ("straight_through", "psa"))
    assert (psa[:-2] < st[:-2]).all()
    assert (psa[-2:] < 1e-9).all()
    assert st[-2] > 1e-3 and st[-1] < 1e-9


@pytest.mark.parametrize("seed", SOME)
def test_psa_has_less_bias_than_st_below_the_last_hidden_layer_and_none_from_there_on(seed):
    check_bias(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", ALL)
def test_at_epoch_100_all_statements_hold_for_every_seed(seed):
    check_bias(seed)
    found = errors(seed, "epoch 100")
    reinforce, arm, st, psa = (found[spec].std[:-1] for spec in SPECS)
    assert (found["reinforce"].bias < 1e-9).all()
    assert (reinforce > arm).all() and (arm > np.maximum(st, psa)).all()


# --- early and late ---


def exceptions(holds):
    """Seeds, epochs and hidden layers (from 1) where a statement about errors fails."""
    return [
        (seed, epoch, layer + 1)
        for seed in ALL
        for epoch in EPOCHS
        for layer in np.flatnonzero(~holds(errors(seed, epoch)))
    ]


@pytest.mark.slow
def test_psa_has_less_bias_than_st_with_few_exceptions_and_none_in_the_last_hidden_layer():
    """ORACLES: no theorem. Seen: only seed 4, epoch 1, layer 2, with .076 against .068 of ST."""
    failed = exceptions(lambda found: found["psa"].bias[:-2] < found["straight_through"].bias[:-2])
    assert len(failed) <= 1, failed  # of 48
    for seed in ALL:
        for epoch in EPOCHS:
            assert (exact_error(seed, epoch, "psa").bias[-2:] < 1e-9).all()


@pytest.mark.slow
def test_reinforce_deviates_more_than_arm_with_few_exceptions_and_arm_more_than_st_and_psa():
    """Seen: only seed 4, epoch 2000, layer 2, with 9.08 against 9.39(2) of ARM."""
    failed = exceptions(lambda found: found["reinforce"].std[:-1] > found[ARM].std[:-1])
    assert len(failed) <= 2, failed  # of 72
    assert not exceptions(
        lambda found: (
            found[ARM].std[:-1] > np.maximum(found["straight_through"].std, found["psa"].std)[:-1]
        )
    )


@pytest.mark.slow
def test_after_2000_epochs_some_seeds_have_learned_and_others_have_not():
    """So that figures of one seed say little: print the loss, and show several."""
    losses = np.array([trained(seed)["epoch 2000"].reference.value for seed in ALL])
    assert (losses < 0.5).any() and (losses > 0.69).any() and (losses < 0.7).all()
