"""Where the best estimator changes: between the ranges of the decision rule, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import drawn

from gradbench.metrics import curves, decide
from gradbench.metrics.changes import changes
from gradbench.metrics.decision import amounts
from gradbench.metrics.decisions import BUDGETS

GRADIENT = np.array([3.0, 0.0])
NAMES = ("straight_through", "psa", "arm", "leg")


def cell(name, bias=0.0, variance=1.0, price=1.0, draws=64, noise=None):
    """A cell of this relative bias and variance: exact, or of normal `noise` [N]."""
    scale = np.linalg.norm(GRADIENT)
    mean = GRADIENT + np.array([0.0, scale * bias])
    along = np.array([0.0, scale * np.sqrt(variance)])
    own = np.resize([-1.0, 1.0], draws) if noise is None else noise
    return drawn(
        mean + own[:, None] * along,
        GRADIENT,
        max(16, draws // 32),
        (1, 16),
        estimator=name,
        moments=None if noise is not None else [(mean, along**2)],
        cost={"evaluations": price, "seconds": price * 3e-5, "spread": 0.0},
    )


def of(cells, cost="evaluations"):
    """The changes of the only place and layer."""
    ((_, found),) = changes(cells).items()
    return [one for one in found if one.cost == cost]


def test_a_change_is_where_two_curves_cross():
    cells = [cell("psa", 0.1, 1.0, 2), cell("arm", 0.0, 2.0, 4)]
    for cost, prices in (("draws", (1, 1)), ("evaluations", (2, 4)), ("seconds", (6e-5, 12e-5))):
        (one,) = of(cells, cost)
        assert (one.before, one.after) == ("psa", "arm")
        assert one.at == pytest.approx((2.0 * prices[1] - 1.0 * prices[0]) / 0.1**2)
        assert one.rmse == pytest.approx(np.sqrt(2.0 * prices[1] / one.at))


def test_what_is_better_at_once_becomes_the_best_with_its_first_draw():
    cells = [cell("psa", 0.0, 1.0, 7), cell("arm", 0.0, 9.0, 2), cell("leg", 0.0, 20.0, 2)]
    (one,) = of(cells)
    assert one == ("evaluations", 7.0, 1.0, "arm", "psa")
    # Of two, the first budgets are no choice, and nothing was the best before.
    assert of(cells[:2]) == []


def test_the_exact_gradient_and_ties_change_nothing():
    noise = np.random.default_rng(1).normal(size=(2, 640))
    tied = [cell("psa", 0.02, 1.0, noise=noise[0]), cell("arm", 0.0, 1.0, noise=noise[1])]
    assert of(tied) == [] == of([*tied, cell("exact", 0.0, 0.0)])
    assert len(of([cell("psa", 0.2, 1.0), cell("arm", 0.0, 3.0)])) == 1


def test_shared_random_numbers_tell_a_change_that_separate_intervals_do_not():
    """As ``rank`` pairs squared errors block by block, so do the circles."""
    noise = np.random.default_rng(2).normal(size=640)
    cells = [cell("psa", 0.25, 1.0, noise=noise), cell("arm", 0.0, 1.1, noise=noise)]
    (one,) = of(cells)
    assert (one.before, one.after) == ("psa", "arm")
    rows = curves(cells)
    first = {name: own[own["M"] == 1].iloc[0] for name, own in rows.groupby("estimator")}
    assert first["psa"]["rmse_high"] > first["arm"]["rmse_low"]  # intervals overlap before it


def test_changes_go_on_as_far_as_draws_were_made():
    few, many = (
        [cell("psa", 0.01, 1.0, draws=n), cell("arm", 0.0, 2.0, draws=n)] for n in (64, 32768)
    )
    assert of(few) == []
    (one,) = of(many)
    assert one.at == pytest.approx(1e4)


FACTS = st.tuples(
    st.sampled_from([0.0, 0.03, 0.1, 0.5]),
    st.sampled_from([0.1, 1.0, 4.0, 50.0]),
    st.sampled_from([1, 2, 3, 7, 40]),
)


@settings(max_examples=15)
@given(st.lists(FACTS, min_size=2, max_size=4), st.booleans(), st.integers(0, 99))
def test_there_is_one_change_between_any_two_ranges_of_the_verdict(facts, exact, seed):
    rng = np.random.default_rng(seed)
    cells = [
        cell(name, *fact, noise=None if exact else rng.normal(size=64))
        for name, fact in zip(NAMES, facts, strict=False)
    ]
    verdict = decide(cells)
    (place,), (layer,) = verdict.places, verdict.layers
    ranges = [one for one in verdict.ranges(layer, place) if one.is_choice]
    found = of(cells)
    told = [one for one in found if one.at <= BUDGETS[-1]][: len(ranges) - 1]
    assert [one.after for one in told] == [one.best[0] for one in ranges[1:]]
    for one, before, after in zip(told, ranges, ranges[1:], strict=False):
        first = next(c.cost["evaluations"] for c in cells if c.estimator == one.after)
        assert before.start <= one.at <= max(after.start, first)
        assert one.before == before.best[0]


@pytest.mark.parametrize("cost", ["evaluations", "seconds"])
def test_longer_budgets_begin_as_the_usual_ones_do(cost):
    usual = amounts(cost, 3e-5)
    longer = amounts(cost, 3e-5, 10.0 * usual[-1])
    assert longer[: len(usual)] == usual and len(longer) == len(usual) + 3
    assert longer[-1] == pytest.approx(10.0 * usual[-1])
