"""The comparison with storchastic, as far as it goes without storchastic: what it would judge."""

import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import benchmark, threshold

from gradbench.core.errors import GradbenchError
from gradbench.estimators import get_estimator

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def peer():
    return benchmark("peer")


@pytest.fixture(scope="module")
def truth(peer):
    return peer.truth()


def pretend(peer, monkeypatch, draw):
    """Puts these draws, as gradients of the mean of a batch, in the place of the peer's."""
    resets = []
    reset = SimpleNamespace(reset=lambda: resets.append(1))
    monkeypatch.setattr(peer, "load_peer", lambda: (None, reset))
    monkeypatch.setattr(peer, "peer_draws", lambda pair, a, f, n: lambda: draw(n) / n)
    return resets


def test_without_storchastic_one_sentence_says_what_to_do(peer, monkeypatch):
    monkeypatch.setitem(sys.modules, "storch", None)
    with pytest.raises(
        GradbenchError, match=r"^storchastic cannot be imported .*; run `make peer`"
    ):
        peer.load_peer()
    with pytest.raises(SystemExit, match=r"^error: storchastic cannot be imported"):
        peer.main()


@pytest.mark.slow
def test_the_truth_on_three_units_is_that_of_an_enumeration_by_hand(peer, truth):
    p = 1 / (1 + np.exp(-np.asarray(peer.LOGITS)))
    total = np.zeros(3)
    for bits in itertools.product((0.0, 1.0), repeat=3):
        b = np.asarray(bits)
        total += np.prod(np.where(b == 1, p, 1 - p)) * peer.three_bits(b) * (b - p)
    np.testing.assert_allclose(truth, total, rtol=1e-12)


def test_the_objective_on_three_units_is_not_separable(peer):
    f = {bits: peer.three_bits(np.asarray(bits)) for bits in itertools.product((0, 1), repeat=3)}
    for i, j in itertools.combinations(range(3), 2):
        corner = np.eye(3, dtype=int)
        one, other = tuple(corner[i]), tuple(corner[j])
        both = tuple(corner[i] + corner[j])
        assert abs(f[both] - f[one] - f[other] + f[0, 0, 0]) > 1


def test_every_counterpart_is_registered_and_every_timed_pair_has_one(peer):
    for pair in peer.PAIRS:
        assert pair.ours or not pair.timed
        if pair.ours:
            get_estimator(pair.ours)


@pytest.mark.parametrize("spec", ["reinforce", "rloo(samples=4)", "arm", "disarm"])
@pytest.mark.slow
def test_our_side_is_right_by_exact_moments(peer, truth, spec):
    ours = peer.our_mean(spec)
    assert ours.z is None
    np.testing.assert_allclose(ours.mean, truth, rtol=1e-12)
    assert peer.our_verdict(ours, truth, False).startswith("right")
    wrong = ours._replace(mean=ours.mean * (1 - 1e-8))
    assert peer.our_verdict(wrong, truth, False).startswith("wrong")


@pytest.mark.slow
def test_what_has_no_exact_moments_is_judged_by_its_draws(peer, truth, monkeypatch):
    monkeypatch.setattr(peer, "DRAWS", 20_000)
    monkeypatch.setattr(peer, "INTEGRAL", 1)
    ours = peer.our_mean("arm")
    assert ours.z is not None and peer.our_verdict(ours, truth, False).startswith("right")
    biased = peer.our_mean("concrete(temperature=1)")
    assert peer.our_verdict(biased, truth, False).startswith("wrong")


def test_a_peer_with_the_right_mean_is_right_and_one_with_the_sign_lost_or_scaled_is_wrong(
    peer, truth, monkeypatch
):
    generator = np.random.default_rng(0)
    pair = peer.PAIRS[0]._replace(draws=40_000)
    for factor, word in ((1, "right"), (0, "wrong by 100%"), (-1, "wrong by 2"), (0.9, "wrong by")):
        pretend(
            peer,
            monkeypatch,
            lambda n, factor=factor: factor * truth + 0.2 * generator.standard_normal((n, 3)),
        )
        verdict, visible = peer.peer_verdict(pair, truth, False)
        assert verdict.startswith(word)
        assert float(visible.rstrip("%")) < 10  # the bias of 10 % was there to be seen
    assert peer.peer_verdict(pair, 0.9 * truth, True)[0].startswith("biased as defined")
    assert peer.peer_verdict(pair, truth, True)[0].startswith("wrong")


def test_a_row_says_what_both_means_are(peer, truth, monkeypatch, capsys):
    generator = np.random.default_rng(0)
    pretend(peer, monkeypatch, lambda n: truth + 0.2 * generator.standard_normal((n, 3)))
    monkeypatch.setattr(peer, "PAIRS", [peer.PAIRS[0]._replace(draws=20_000)])
    peer.print_means()
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("ScoreFunction") and row.count(" right (") == 2


def test_a_peer_that_raises_fails_and_is_reset(peer, truth, monkeypatch):
    resets = pretend(peer, monkeypatch, lambda n: {}["missing"])
    assert peer.peer_verdict(peer.PAIRS[0], truth, False) == ("fails: KeyError", "")
    assert resets


def test_the_limit_has_the_false_alarm_rate_that_is_printed(peer):
    assert peer.limit(1) == pytest.approx(threshold(peer.FALSE_ALARM), abs=1e-9)
    assert threshold(peer.FALSE_ALARM, 3) <= peer.limit(3) < 1.001 * threshold(peer.FALSE_ALARM, 3)


def test_rounding_of_a_mean_without_variance_is_no_bias(peer):
    assert peer.largest_z(np.array([[0.25 + 1e-7, 1.0]]), np.array([0.25, 1.0]))[0] < 1
    assert peer.largest_z(np.array([[0.26, 1.0]]), np.array([0.25, 1.0]))[0] > 1000


@pytest.mark.slow
def test_our_draws_are_made_in_float32_each_with_a_gradient_of_its_own(peer):
    draws = peer.our_draws("moving_average", peer.UNITS, peer.distance, 4)()
    assert draws.shape == (4, peer.UNITS) and draws.dtype == np.float32
    assert len(np.unique(np.asarray(draws), axis=0)) == 4
