"""The certificate sees bugs of single kinds of networks, batches, types and transformations."""

import math

import narrow_bugs as bugs
import pytest

from gradbench.core.precision import float64
from gradbench.estimators import psa, reinforce, straight_through
from gradbench.estimators.registry import ESTIMATORS
from gradbench.testing import check_estimator
from gradbench.testing.bias import RARE
from gradbench.testing.definitions import definition_checks
from gradbench.testing.depth import depth_checks

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Each bug, the problem that shows it, and what it is seen by: its bias, or a requirement.
BUGS = {
    "first_unit_only": ("four layers", "bias"),
    "no_fourth_layer": ("four layers", "bias"),
    "objective_of_the_last_layer": ("four layers", "bias"),
    "clipped_score": ("five units", "bias"),
    "clipped_far_out": ("five units", "bias"),
    "half_of_the_objectives_own": ("five units", "bias"),
    "no_direct_terms": ("five units", "bias"),
    "no_fifth_unit": ("five units", "bias"),
    "wrong_for_four_units": ("five units", "bias"),
    "wrong_for_bits": ("five units", "bias"),
    "wrong_for_convolutions_above": ("four layers", "bias"),
    "only_the_next_layer": ("four layers", "bias"),
    "half_for_bits_when_called": ("five units", "draws"),
    "half_when_called": ("four layers", "draws"),
    "noisier_when_called": ("four layers", "draws"),
    "wrong_for_five": ("five units", "draws"),
    "wrong_for_one": ("four layers", "one example"),
    "less_in_single_batches": ("five units", "single precision"),
    "wrong_under_jit": ("four layers", "draws"),
    "wrong_under_scan": ("four layers", "draws"),
    "less_in_single_precision": ("four layers", "single precision"),
}


def assert_seen(name, by):
    found = check_estimator(getattr(bugs, name), "unbiased")
    assert not found.passed
    if by == "bias":
        assert found.found != "unbiased", str(found)
        assert not found.failed, str(found)
    else:
        assert found.found == "unbiased", str(found)
        assert by in found.failed, str(found)


FAST = ("first_unit_only", "clipped_score", "half_when_called", "less_in_single_precision")


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in BUGS]
)
@pytest.mark.first(1)
def test_a_bug_is_seen_on_the_problem_that_is_there_for_it(name, only):
    problem, by = BUGS[name]
    only(problem)
    assert_seen(name, by)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_seen_by_the_whole_check(name):
    found = check_estimator(getattr(bugs, name), "unbiased")
    assert not found.passed, str(found)


@pytest.mark.slow
def test_the_bugs_are_in_estimators_that_pass_without_them():
    assert check_estimator(bugs.weighted(lambda *_: 1.0), "unbiased").passed
    assert check_estimator(bugs.called(lambda *_: 1.0), "unbiased").passed
    assert check_estimator(reinforce, "unbiased").passed


# ----------------------------------------------------------------------- claims for deep networks


@pytest.mark.slow
def test_a_doubled_deep_part_of_psa_breaks_what_is_claimed_for_deep_networks():
    with float64():
        claims = ("in-trees",)
        assert all(check.passed for check in depth_checks(psa, claims, 0))
        assert not any(check.passed for check in depth_checks(bugs.doubled_below, claims, 0))


@pytest.mark.slow
def test_what_the_registry_claims_for_deep_networks_holds():
    with float64():
        for name in ("psa", "straight_through"):
            entry = ESTIMATORS[name]
            checks = depth_checks(entry.make, entry.claim_in_depth(), 0)
            assert checks and all(check.passed for check in checks), checks


@pytest.mark.slow
def test_what_is_not_claimed_for_deep_networks_does_not_hold():
    with float64():
        for claim in ("in-trees", "width-1 tails", "last layer"):
            assert not depth_checks(straight_through, (claim,), 0)[0].passed


@pytest.mark.slow
def test_draws_that_are_not_those_of_the_definition_are_seen():
    with float64():
        assert not definition_checks(bugs.doubled_below, "psa", 0)[0].passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["psa", "straight_through"])
def test_deep_draws_are_those_of_the_definition(name):
    with float64():
        (check,) = definition_checks(ESTIMATORS[name].make, name, 0)
        assert check.passed, check


# ------------------------------------------------------------------------------- skewed draws


@pytest.mark.slow
def test_the_limit_of_a_test_says_that_it_knows_nothing_of_rarer_events(only):
    only("five units")
    found = check_estimator(bugs.rare_and_large, "unbiased")
    rarer = f"but nothing rarer than {RARE:.0e}"
    assert not found.passed or rarer in found.evidence
    assert 2e-6 < RARE < 1e-4


@pytest.mark.slow
def test_no_limit_is_stated_where_single_draws_have_much_of_the_variance(only):
    only("five units")
    found = check_estimator(bugs.seldom, "unbiased")
    assert found.bound == math.inf, str(found)
    assert "its limit is not known" in found.evidence
