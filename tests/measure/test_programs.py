"""Losses that differ in numbers alone are compiled once, and give the draws of these numbers."""

import gc
import weakref

import jax
import numpy as np
import pytest
from conftest import flat, precision, small

from gradbench.core.programs import parts, share
from gradbench.estimators import make_estimator
from gradbench.estimators.adaptive import fitted
from gradbench.exact.moments import unchecked_moments
from gradbench.measure.draws import draw_block
from gradbench.suites.instance import estimator

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(5)
SPECS = ("concrete(temperature={})", "gumbel_rao(temperature={})", "reinmax(temperature={})")


def draws(loss, params, batch):
    return draw_block(loss, 4, 4, params, batch, KEY, 0)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.slow
def test_specs_that_differ_in_a_number_share_a_program_and_draw_what_their_own_would(
    spec, compilations
):
    with precision(True):
        model, params, batch = small((2, 2, 1), "normal")
        counts = []
        for value in (0.3, 0.7, 2.5):
            found = draws(estimator(spec.format(value), model), params, batch)
            counts.append(len(compilations))
            right = draws(make_estimator(spec.format(value), model), params, batch)
            counts.append(len(compilations))
            np.testing.assert_allclose(flat(found), flat(right), rtol=1e-9, atol=1e-12)
    first, own, *others = np.diff([0, *counts])
    assert first and own and others[0] == others[2] == 0 and others[1] and others[3]


@pytest.mark.slow
def test_exact_moments_of_specs_that_differ_in_a_number_are_those_of_the_number():
    with precision(True):
        model, params, batch = small((2, 1, 1), "normal")
        for spec in ("reinmax(temperature=1.5)", "concrete(temperature=0.3)"):
            found = unchecked_moments(estimator(spec, model), params, batch)
            right = unchecked_moments(make_estimator(spec, model), params, batch)
            np.testing.assert_allclose(flat(found), flat(right), rtol=1e-9, atol=1e-12)


def test_numbers_that_may_stand_for_another_formula_remain_constants():
    model, *_ = small((2, 2, 1))
    for spec in ("concrete(temperature=1)", "concrete", "rloo(samples=4)", "psa"):
        loss = estimator(spec, model)
        make, numbers = parts(loss)
        assert numbers == () and make(numbers) is loss
    make, numbers = parts(estimator("decoupled_st(backward=2, forward=1)", model))
    assert numbers == {"backward": 2.0} and make.fixed == (("forward", 1),)


@pytest.mark.parametrize("name", ["nvil", "relax"])
@pytest.mark.first(1)
@pytest.mark.slow
def test_a_learned_estimator_is_fitted_and_drawn_by_the_programs_of_other_checkpoints(
    name, compilations
):
    with precision(True):
        model, params, batch = small((2, 2, 1))
        learned, counts = make_estimator(name, model), []
        for scale in (1.0, 0.5, 2.0):
            there = jax.tree.map(lambda leaf, scale=scale: scale * leaf, params)
            loss = fitted(learned, there, KEY, batch, steps=3)
            found = draws(loss, there, batch)
            counts.append(len(compilations))
        assert counts[0] and len(set(counts)) == 1
        own = learned.frozen(parts(loss)[1])
        np.testing.assert_allclose(flat(found), flat(draws(own, there, batch)), rtol=1e-9)


def test_a_changed_copy_of_a_loss_is_another_loss():
    from dataclasses import replace

    model, *_ = small((2, 2, 1))
    loss = estimator("concrete(temperature=0.3)", model)
    assert parts(loss)[1] and parts(replace(loss, streams=2))[1] == ()


@pytest.mark.slow
def test_nothing_is_known_of_a_loss_that_is_gone():
    model, *_ = small((2, 2, 1))
    loss = share(make_estimator("reinforce", model), make_estimator, ())
    gone = weakref.ref(loss)
    del loss
    gc.collect()
    assert gone() is None


def test_a_loss_without_weak_references_has_no_numbers():
    class Slotted:
        __slots__ = ()

    loss = Slotted()
    make, numbers = parts(loss)
    assert make(numbers) is loss and make == parts(loss)[0]


def test_a_hyper_parameter_that_is_a_number_or_a_name_may_be_either():
    network, *_ = small((1, 2, 1))
    for spec in ("darn(phi='p')", "darn(phi=0.3)"):
        assert callable(estimator(spec, network))
