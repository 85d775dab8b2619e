"""Decisions against closed forms on exact moments, and simulated where they rest on draws.

Simulations have fixed seeds. Their limits are binomial: a correct rate is refused with a
probability of 1e-6 at most.
"""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm, t
from stored import assert_one_sentence, drawn

from gradbench import metrics
from gradbench.core.errors import GradbenchError
from gradbench.metrics import Budget, budget, crossovers, rank, sample_complexity, summary
from gradbench.metrics import tables as table
from gradbench.metrics.accuracy import Accuracy, mse_difference, mse_gap
from gradbench.metrics.ranking import difference_p
from gradbench.metrics.significance import holm

GRADIENT = np.array([3.0, 0.0, -4.0, 0.0])  # |G| = 5
ACROSS = np.array([0.0, 1.0, 0.0, 0.0])


def noisy(noise, bias=0.0, scale=1.0):
    """Draws [N, 4] with the relative bias and, of normal noise [N, 4], the variance scale^2."""
    return GRADIENT + 5.0 * (bias * ACROSS + 0.5 * scale * noise)


def sampled(noise, name, bias=0.0, scale=1.0, size=32, **more):
    """The cell of such draws, in blocks without groups."""
    return drawn(noisy(noise, bias, scale), GRADIENT, size, (), estimator=name, **more)


def exactly(name, bias, variance, cost=None, gradient=GRADIENT, **more):
    """A cell with these exact moments, relative, a time without error, and two draws."""
    norm = np.linalg.norm(gradient)
    moments = [(gradient + norm * bias * ACROSS, norm**2 * np.array([0, 0, 0, variance]))]
    cost = {} if cost is None else {"evaluations": cost, "seconds": cost * 1e-3, "spread": 0.0}
    draws = np.stack([gradient, gradient + 1.0])
    return drawn(draws, gradient, 2, (1,), estimator=name, moments=moments, cost=cost, **more)


def network(*cells):
    """One cell of several layers, from cells of one."""
    layers = [cell.blocks for cell in cells]
    blocks = [
        blocks[0]._replace(layers=tuple(b.layers[0] for b in blocks))
        for blocks in zip(*layers, strict=True)
    ]
    moments = [cell.moments for cell in cells]
    return cells[0]._replace(
        layer_names=[f"layer {k + 1}" for k in range(len(cells))],
        blocks=blocks,
        gradient=[cell.gradient[0] for cell in cells],
        moments=None if moments[0] is None else [part[0] for part in moments],
    )


# --- budgets ---


@pytest.mark.parametrize(
    ("text", "amount", "cost", "shown"),
    [
        ("64-draws", 64.0, "draws", "64 draws"),
        ("1-draw", 1.0, "draws", "1 draw"),
        ("1 draws", 1.0, "draws", "1 draw"),
        ("100-evaluations", 100.0, "evaluations", "100 evaluations"),
        ("1e3 evaluations", 1000.0, "evaluations", "1000 evaluations"),
        ("1ms", 1e-3, "seconds", "1 ms"),
        ("2.5 us", 2.5e-6, "seconds", "2.5 us"),
        ("2.5µs", 2.5e-6, "seconds", "2.5 us"),
        ("300-ns", 3e-7, "seconds", "300 ns"),
        ("90s", 90.0, "seconds", "90 s"),
    ],
)
def test_a_budget_is_read_and_shown(text, amount, cost, shown):
    found = budget(text)
    assert (found.amount, found.cost) == (pytest.approx(amount, rel=1e-15), cost)
    assert str(found) == shown
    assert budget(found) is found


@given(
    st.integers(1, 999_999),
    st.integers(-5, 4),
    st.sampled_from(["draws", "evaluations", "s", "us"]),
)
def test_a_budget_of_six_digits_is_what_it_is_shown_as(digits, power, unit):
    found = budget(f"{digits}e{power}{unit}")
    again = budget(str(found))
    assert again.cost == found.cost and again.amount == pytest.approx(found.amount, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", "64", "draws", "0-draws", "-1-draws", "nan-draws", "inf-s", "1e999s", "1h", "1day"],
)
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(GradbenchError) as caught:
        budget(text)
    assert_one_sentence(caught, repr(text), "64-draws")


@given(
    st.sampled_from(["draws", "evaluations", "seconds"]),
    st.integers(1, 10**9),
    st.floats(1e-7, 1e4),
    st.floats(0.01, 0.99),
)
def test_a_budget_pays_for_whole_draws_rounded_down(cost, draws, each, rest):
    cell = exactly("psa", 0.0, 1.0)._replace(cost={"evaluations": each, "seconds": each})
    price = 1.0 if cost == "draws" else each
    assert Budget(draws * price, cost).draws(cell) == draws
    assert Budget((draws - rest) * price, cost).draws(cell) == draws - 1


def test_no_budget_is_too_large():
    cells = [exactly("psa", 0.1, 1.0, cost=1), exactly("arm", 0.0, 1.0, cost=1)]
    for at in ("1e300s", "1e308-draws", "1e308 evaluations"):
        assert rank(cells, at=at)["estimator"].tolist() == ["arm", "psa"]


# --- rank ---


def test_a_ranking_is_by_the_closed_form_at_as_many_draws_as_the_budget_pays_for():
    facts = {"psa": (0.4, 1.0, 6), "arm": (0.0, 4.0, 2), "reinforce": (0.0, 40.0, 1)}
    cells = [exactly(name, *fact) for name, fact in facts.items()]
    for at, cost in [("1-draw", "draws"), ("25-evaluations", "evaluations"), ("1s", "seconds")]:
        amount = {"1-draw": 1, "25-evaluations": 25, "1s": 1000}[at]
        frame = rank(cells, "rmse", at).set_index("estimator")
        expected = {}
        for name, (bias, variance, price) in facts.items():
            average = amount // (1 if cost == "draws" else price)
            expected[name] = math.sqrt(bias**2 + variance / average)
            assert frame.loc[name, "M"] == average
            assert frame.loc[name, "rmse"] == pytest.approx(expected[name], rel=1e-12)
            assert frame.loc[name, ["rmse_se", "exact", "evaluations"]].tolist() == [0, True, price]
        assert frame.index.tolist() == sorted(facts, key=expected.get)
        assert frame["rank"].tolist() == [1, 2, 3]


def test_estimators_that_the_budget_does_not_pay_have_no_rank_and_come_last():
    cells = [exactly("psa", 0.0, 0.1, 50), exactly("arm", 0.0, 8.0, 2), exactly("rloo", 0.0, 1, 9)]
    frame = rank(cells, at="10-evaluations")
    assert frame["estimator"].tolist() == ["rloo", "arm", "psa"]
    assert frame["M"].tolist() == [1, 5, 0]
    assert frame["rank"].tolist()[:2] == [1, 2] and math.isnan(frame["rank"][2])


def test_times_that_are_known_to_a_tenth_do_not_tell_estimators_apart():
    cells = [exactly("psa", 0.1, 1.0, 6), exactly("arm", 0.1, 1.1, 6), exactly("rloo", 0.1, 2, 6)]
    cells = [cell._replace(cost={**cell.cost, "spread": 0.1}) for cell in cells]
    assert rank(cells, at="60ms")["rank"].tolist() == [1, 1, 3]
    assert rank(cells, at="60-evaluations")["rank"].tolist() == [1, 2, 3]


def test_a_metric_that_is_better_when_high_is_ranked_downwards():
    cells = [exactly("psa", 0.5, 1.0), exactly("arm", 0.0, 0.25), exactly("rloo", 0.0, 4.0)]
    assert rank(cells, "snr", at="1-draw")["estimator"].tolist() == ["arm", "psa", "rloo"]
    assert rank(cells, "variance", at="1-draw")["estimator"].tolist() == ["arm", "psa", "rloo"]
    assert rank(cells, "bias", at="1-draw")["estimator"].tolist()[-1] == "psa"
    assert rank(cells, "bias", at="1-draw")["rank"].tolist() == [1, 1, 3]


def test_an_infinite_signal_to_noise_ratio_is_no_tie_with_a_finite_one():
    cells = [exactly("arm", 0.0, 0.25), exactly("psa", 0.5, 0.0), exactly("zgr", 0.1, 0.0)]
    frame = rank(cells, "snr", at="1-draw")
    assert frame["rank"].tolist() == [1, 1, 3] and frame["estimator"].iloc[-1] == "arm"


def test_what_is_not_known_has_no_rank():
    once = drawn(noisy(np.ones((1, 4))), GRADIENT, estimator="psa")  # no variance from one draw
    frame = rank([once, exactly("arm", 0.0, 1.0)], at="1-draw")
    assert frame["estimator"].tolist() == ["arm", "psa"]
    assert frame["rank"].tolist()[0] == 1 and math.isnan(frame["rank"][1])


def test_a_metric_of_groups_is_that_of_the_largest_m_stored_that_is_paid():
    noise = np.random.default_rng(0).normal(size=(512, 4))
    facts = {"psa": (0.0, 3), "arm": (0.5, 2)}
    cells = [
        drawn(noisy(noise, bias), GRADIENT, 32, (1, 4, 16), estimator=name, cost={"evaluations": n})
        for name, (bias, n) in facts.items()
    ]
    frame = rank(cells, "cosine", "30-evaluations").set_index("estimator")
    assert frame["M"].to_dict() == {"psa": 4, "arm": 4}
    expected = summary(cells, 4).set_index("estimator")["cosine"]
    assert frame["cosine"].to_dict() == expected.to_dict()
    assert not frame["exact"].any()
    assert rank(cells, "cosine", "2-evaluations")["M"].tolist() == [1, 0]


def test_the_exact_gradient_is_left_out_and_alone_it_is_said():
    cells = [exactly("exact", 0.0, 0.0), exactly("psa", 0.1, 1.0)]
    assert rank(cells, at="1-draw")["estimator"].tolist() == ["psa"]
    with pytest.raises(GradbenchError) as caught:
        rank(cells[:1], at="1-draw")
    assert_one_sentence(caught, "the only estimator is the exact one")


@settings(max_examples=10)
@given(st.permutations(range(5)))
@pytest.mark.slow
def test_the_order_of_the_cells_does_not_matter(order):
    cells = [exactly(f"psa(k={k})", 0.1 * k, 4.0 - k, 1 + k) for k in range(5)]
    shuffled = [cells[k] for k in order]
    pd.testing.assert_frame_equal(rank(shuffled, at="9-draws"), rank(cells, at="9-draws"))
    keys = ["first", "then"]
    found = [crossovers(x).sort_values(keys, ignore_index=True) for x in (shuffled, cells)]
    pd.testing.assert_frame_equal(*found)


def test_every_place_is_ranked_for_itself_and_a_layer_can_be_named():
    one = network(exactly("psa", 0.5, 0.0), exactly("psa", 0.0, 1.0))
    two = network(exactly("arm", 0.0, 1.0), exactly("arm", 0.0, 2.0))
    later = [cell._replace(checkpoint="epoch 200") for cell in (two, one)]
    frame = rank([one, two, *later], layer="layer 1", at="1-draw")
    assert frame["checkpoint"].tolist() == ["epoch 100"] * 2 + ["epoch 200"] * 2
    assert frame["estimator"].tolist() == ["psa", "arm"] * 2
    whole = rank([one, two], at="1-draw")
    assert set(whole["layer"]) == {"network"}
    # Layers of the same norm: the squared errors of the network are the mean of theirs.
    assert whole["rmse"].tolist() == pytest.approx([math.sqrt(x / 2) for x in (1.25, 3.0)])
    alone = exactly("psa", 0.5, 0.0)
    assert rank([alone], at="1-draw")["layer"].tolist() == [
        "layer 1"
    ]  # of one layer it is the network


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda cells: rank(cells, "rsme", at="1-draw"),
            "unknown metric 'rsme'; did you mean 'rmse'?",
        ),
        (lambda cells: rank(cells, at="9-evals"), "'9-evals' is not a budget"),
        (
            lambda cells: rank(cells, layer="layer 9", at="1-draw"),
            "no layer 'layer 9' at toy/0/epoch 100; did",
        ),
        (lambda cells: rank(cells, at="1ms"), "how many seconds a draw of 'psa' takes"),
        (
            lambda cells: crossovers(cells, "evaluations"),
            "run the suite again in another dir",
        ),
        (
            lambda cells: crossovers(cells, "second"),
            "unknown cost 'second'; did you mean",
        ),
        (lambda cells: sample_complexity(cells, 0.0), "eps is 0.0; give a positive"),
        (lambda cells: sample_complexity(cells, math.nan), "eps is nan; give a positive"),
        (lambda cells: sample_complexity(cells, 0.1, "output"), "there is no layer 'output'"),
    ],
)
def test_what_the_results_cannot_tell_is_one_sentence(call, words):
    with pytest.raises(GradbenchError) as caught:
        call([exactly("psa", 0.1, 1.0), exactly("arm", 0.0, 2.0)])
    assert_one_sentence(caught, words)


def test_a_gradient_of_zero_is_refused_in_a_ranking_and_is_nowhere_infinite():
    zero = np.zeros(4)
    cells = [
        drawn(np.random.default_rng(1).normal(size=(64, 4)), zero, 8, (1,), estimator=name)
        for name in ("psa", "arm")
    ]
    with pytest.raises(GradbenchError) as caught:
        rank(cells, at="1-draw")
    assert_one_sentence(caught, "the gradient of 'layer 1' is zero", "another layer")
    other = [exactly("psa", 0.1, 1.0)._replace(checkpoint="epoch 200")]
    frame = rank(cells + other, at="1-draw")
    assert frame["zero_gradient"].tolist() == [True, True, False]
    assert frame["rank"].isna().tolist() == [True, True, False]
    assert "zero gradient" in table.ranking(frame, "rmse", "1 draw")
    assert crossovers(cells).empty
    needed = sample_complexity(cells, 0.1)
    assert needed["draws"].isna().all() and "zero gradient" in table.needed(needed, 0.1)
    assert set(metrics.unbiasedness(cells)["verdict"]) == {"zero gradient"}
    assert metrics.coordinates(cells).empty


# --- ties ---


def rankings(pair, repeats, seed, at="1-draw", **how):
    """The rankings of many pairs of cells of the same numbers, made of normal noise [640, 4]."""
    rng = np.random.default_rng(seed)
    return [rank(pair(rng.normal(size=(640, 4))), at=at, **how) for _ in range(repeats)]


def told_apart(frames):
    return sum(frame["rank"].tolist() == [1, 2] for frame in frames)


@pytest.mark.slow
def test_estimators_of_equal_error_are_told_apart_no_more_often_than_stated():
    """At M = 1 both have the MSE 1; one by bias, and they share their random numbers."""
    frames = rankings(
        lambda noise: [sampled(noise, "a", 0.6, 0.8), sampled(noise, "b", 0.0, 1.0)], 300, 1
    )
    assert told_apart(frames) <= binom.isf(1e-6, 300, 0.05)
    assert {frame["estimator"][0] for frame in frames} == {"a", "b"}  # by chance


@pytest.mark.slow
def test_a_real_difference_is_found():
    frames = rankings(
        lambda noise: [sampled(noise, "a", 0.6, 0.8), sampled(noise, "b", 0.0, 1.15)], 100, 2
    )
    assert told_apart(frames) >= 90
    assert all(frame["estimator"][0] == "a" for frame in frames if frame["rank"][1] == 2)


@pytest.mark.slow
def test_estimators_that_share_their_random_numbers_are_told_apart_more_sharply():
    """A variance 6 % larger: hidden in independent draws of 640, plain in shared ones."""

    def shared(noise):
        return [sampled(noise, "a"), sampled(noise, "b", scale=1.03)]

    def independent(noise):
        return [sampled(noise, "a"), sampled(noise[::-1].copy(), "b", scale=1.03)]

    assert told_apart(rankings(shared, 60, 3)) == 60
    assert told_apart(rankings(independent, 60, 3)) <= 30


@pytest.mark.slow
def test_an_unbiased_estimator_is_seldom_told_from_an_exactly_unbiased_one_by_its_bias():
    """Estimates of |b| at its limit are skewed; 5 % of 300 repeats, binomial limit of 1e-6."""
    pair = lambda noise: [exactly("a", 0.0, 1.0), sampled(noise, "b")]  # noqa: E731
    told = sum(frame["rank"].max() > 1 for frame in rankings(pair, 300, 8, by="bias"))
    assert told <= binom.isf(1e-6, 300, 0.05)
    biased = lambda noise: [exactly("a", 0.0, 1.0), sampled(noise, "b", 0.3)]  # noqa: E731
    assert all(frame["rank"].max() > 1 for frame in rankings(biased, 20, 9, by="bias"))


def test_a_rank_is_one_more_than_the_number_significantly_better():
    noise = np.random.default_rng(4).normal(size=(4, 640, 4))
    scales = (1.0, 1.01, 2.0, 2.01)
    cells = [sampled(n, f"e(k={s})", scale=s) for n, s in zip(noise, scales, strict=True)]
    assert rank(cells, at="1-draw")["rank"].tolist() == [1, 1, 3, 3]
    # The same noise, but not at the same time: the third ties with the second, not with the first,
    # which alone is better than it.
    scales = (1.0, 1.03, 1.06)
    chain = [np.roll(noise[0], 96 * k, axis=0) for k in range(3)]
    cells = [sampled(n, f"e(k={s})", scale=s) for n, s in zip(chain, scales, strict=True)]
    assert (
        rank(cells[:2], at="1-draw")["rank"].tolist()
        == rank(cells[1:], at="1-draw")["rank"].tolist()
        == [1, 1]
    )
    assert rank(cells, at="1-draw")["rank"].tolist() == [1, 1, 2]
    # What is exact between two that are uncertain is not told apart from the later one either.
    unsure = sampled(noise[0][:64], "unsure", scale=1.0)
    better = exactly("better", 0.0, unsure_variance(unsure) * 1.001)
    assert rank([better, unsure], at="1-draw")["rank"].tolist() == [1, 1]


def unsure_variance(cell):
    (found,) = metrics.layers_of(cell)
    return found.accuracy.variance


def test_the_p_value_of_two_rows_agrees_with_their_ranks():
    noise = np.random.default_rng(5).normal(size=(640, 4))
    cells = [sampled(noise, "a"), sampled(noise, "b", scale=1.03), sampled(-noise, "c")]
    frame = rank(cells, at="1-draw")
    rows = {row["estimator"]: row for _, row in frame.iterrows()}
    assert difference_p(cells, (rows["a"], rows["b"]), "1-draw") < 1e-6
    p = difference_p(cells, (rows["a"], rows["c"]), "1-draw")
    assert (p < 0.05) == (rows["a"]["rank"] != rows["c"]["rank"])
    known = [exactly("a", 0.0, 1.0), exactly("b", 0.0, 1.0), exactly("c", 0.1, 1.0)]
    one, two, three = (row for _, row in rank(known, at="1-draw").iterrows())
    assert difference_p(known, (one, two), "1-draw") == 1.0
    assert difference_p(known, (one, three), "1-draw") == 0.0


# --- as a function of the cost ---


FACTS = st.tuples(st.floats(0, 2), st.floats(0.01, 100), st.integers(1, 20))


@settings(max_examples=60)
@given(FACTS, FACTS, st.sampled_from(["draws", "evaluations", "seconds"]))
def test_a_crossover_is_the_closed_form_and_the_ranking_flips_there(one, two, cost):
    (bias, variance, price), (less, more, other) = one, two
    unit = {"draws": 0.0, "evaluations": 1.0, "seconds": 1e-3}[cost]
    each = [unit * p or 1.0 for p in (price, other)]
    cells = [exactly("psa", *one), exactly("arm", *two)]
    frame = crossovers(cells, cost)
    gap = bias**2 - less**2
    at = (more * each[1] - variance * each[0]) / gap if abs(gap) > 1e-6 else 0.0
    if abs(gap) <= 1e-6 or abs(at - max(each)) < 1e-6 * at:
        return  # too near to none
    if at <= max(each):
        assert frame.empty
        return
    (row,) = frame.to_dict("records")
    names = ("psa", "arm") if gap > 0 else ("arm", "psa")
    assert (row["first"], row["then"]) == names
    assert row["at"] == pytest.approx(at, rel=1e-9)
    assert (row["low"], row["high"]) == (pytest.approx(at, rel=1e-6), pytest.approx(at, rel=1e-6))
    if cost == "draws" and 3 < at < 1e6:
        before, after = (
            rank(cells, at=f"{m}-draws") for m in (math.floor(at - 1), math.ceil(at + 1))
        )
        assert (before["estimator"][0], after["estimator"][0]) == names


@pytest.mark.slow
def test_the_limits_of_a_crossover_cover_it():
    """Of 200, with the variance and the squared bias of draws that share random numbers."""
    rng = np.random.default_rng(6)
    true, covered, widths = (2.0**2 - 1.0) / (0.8**2 - 0.3**2), 0, []
    for _ in range(200):
        noise = rng.normal(size=(640, 4))
        other = 0.6 * noise + 0.8 * rng.normal(size=(640, 4))
        cells = [sampled(noise, "psa", 0.8, 1.0), sampled(other, "arm", 0.3, 2.0)]
        (row,) = crossovers(cells).to_dict("records")
        assert (row["first"], row["then"]) == ("psa", "arm")
        covered += row["low"] <= true <= row["high"]
        widths.append(row["high"] / row["low"])
    assert covered >= binom.ppf(1e-6, 200, 0.95)
    assert np.median(widths) < 2.0  # not for being wide


def test_a_crossover_that_is_not_sure_has_no_limits():
    rng = np.random.default_rng(7)
    noise = rng.normal(size=(64, 4))
    cells = [sampled(noise, "psa", 0.02, 1.0, 4), sampled(noise, "arm", 0.0, 2.0, 4)]
    rows = crossovers(cells)
    for row in rows.to_dict("records"):
        assert (row["low"] == 0.0 or row["low"] <= row["at"]) and row["high"] == math.inf


@settings(max_examples=60)
@given(st.lists(FACTS, min_size=1, max_size=3), st.floats(0.01, 3))
@pytest.mark.slow
def test_the_sample_complexity_is_the_closed_form(facts, eps):
    cells = [exactly(f"psa(k={k})", *fact) for k, fact in enumerate(facts)]
    frame = sample_complexity(cells, eps)
    for (bias, variance, price), row in zip(facts, frame.to_dict("records"), strict=True):
        room = eps**2 - bias**2
        if abs(room) < 1e-6:
            continue
        expected = max(variance / room, 1.0) if room > 0 else math.inf
        assert row["draws"] == pytest.approx(expected, rel=1e-6)
        assert row["draws_low"] == pytest.approx(expected, rel=1e-6)
        assert row["draws_high"] == pytest.approx(expected, rel=1e-6)
        if math.isinf(expected):
            assert row["evaluations"] == row["seconds"] == math.inf
        else:
            assert row["evaluations"] == price * math.ceil(row["draws"])
            assert row["seconds"] == pytest.approx(1e-3 * row["evaluations"])
            found = rank([cells[0]], at=f"{math.ceil(row['draws'])}-draws")
            if row["estimator"] == "psa(k=0)":
                assert found["rmse"][0] <= eps * (1 + 1e-9)


# --- tests of the bias ---


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=8))
def test_holm_is_the_method_step_by_step(p):
    p = np.array(p, float)
    tested = np.flatnonzero(~np.isnan(p))
    expected = np.full(len(p), math.nan)
    for k in tested:
        # Rejected at the least level at which it and all smaller ones are.
        smaller = [j for j in tested if p[j] < p[k] or (p[j] == p[k] and j <= k)]
        needed = [
            (len(tested) - sum(p[i] < p[j] or (p[i] == p[j] and i < j) for i in tested)) * p[j]
            for j in smaller
        ]
        expected[k] = min(max(needed), 1.0)
    np.testing.assert_allclose(holm(p), expected, rtol=1e-12)


def estimators(rng, count, biases=()):
    """Cells of two layers of 128 draws, some of them with a bias in the second layer."""
    cells = []
    for k in range(count):
        bias = biases[k] if k < len(biases) else 0.0
        draws = [noisy(rng.normal(size=(128, 4))), noisy(rng.normal(size=(128, 4)), bias)]
        cells.append(drawn(draws, [GRADIENT] * 2, 32, (), estimator=f"psa(k={k})"))
    return cells


@pytest.mark.slow
def test_a_false_alarm_anywhere_is_as_rare_as_stated():
    """Over 100 results of six tests each, at a rate that can be counted, 20 %."""
    rng = np.random.default_rng(9)
    alarms = 0
    for _ in range(100):
        frame = metrics.unbiasedness(estimators(rng, 3), alpha=0.2)
        assert len(frame) == 6 and set(frame["verdict"]) <= {"bias found", "no bias seen"}
        alarms += (frame["verdict"] == "bias found").any()
    assert binom.ppf(1e-6, 100, 0.15) <= alarms <= binom.isf(1e-6, 100, 0.2)


@pytest.mark.slow
def test_a_detectable_bias_is_detected_nine_times_in_ten():
    rng = np.random.default_rng(10)
    size = metrics.unbiasedness(estimators(rng, 3))["detectable"].to_numpy()
    assert np.allclose(size, size[0], rtol=0.2) and 0.1 < size[0] < 0.4
    found = 0
    for _ in range(100):
        frame = metrics.unbiasedness(estimators(rng, 3, [size.mean()]))
        assert (frame["verdict"] == "bias found").sum() <= 2
        found += frame["verdict"][1] == "bias found"
    # The spread of the first estimate is a few per cent of the size, the slope 1 % for each.
    assert binom.ppf(1e-6, 100, 0.85) <= found <= binom.isf(1e-6, 100, 0.95)


def test_a_planted_bias_is_found_and_what_is_known_is_not_tested():
    cells = estimators(np.random.default_rng(11), 3, [0.0, 0.8])
    known = network(exactly("arm", 0.0, 1.0), exactly("arm", 1e-3, 1.0))
    still = network(*(drawn(np.tile(GRADIENT, (9, 1)), GRADIENT, 3, (), estimator="zgr"),) * 2)
    frame = metrics.unbiasedness([*cells, known, still])
    assert "network" not in set(frame["layer"])
    words = frame.set_index(["estimator", "layer"])["verdict"]
    assert words["psa(k=1)", "layer 2"] == "bias found"
    assert (words == "bias found").sum() == 1 and (words == "no bias seen").sum() == 5
    assert words["arm"].tolist() == ["unbiased", "biased"]
    assert words["zgr"].tolist() == ["unbiased", "unbiased"]
    tested = frame["verdict"].str.contains("bias ")
    for column in ("p", "p_adjusted", "detectable"):
        assert (frame[column].notna() == tested).all()
    assert frame["bias"].tolist()[7] == pytest.approx(1e-3, rel=1e-9)


def test_a_single_draw_tells_no_bias_and_any_could_hide():
    once = drawn(noisy(np.ones((1, 4))), GRADIENT, estimator="psa")
    (row,) = metrics.unbiasedness([once]).to_dict("records")
    assert row["verdict"] == "no bias seen" and row["detectable"] == math.inf
    assert math.isnan(row["p"])
    assert metrics.unbiasedness([]).empty


def test_what_is_detectable_does_not_depend_on_how_draws_are_cut():
    draws = noisy(np.random.default_rng(12).normal(size=(150, 4)) + 3.0)
    found = [
        metrics.unbiasedness([drawn(draws, GRADIENT, size, ())])["detectable"].item()
        for size in (150, 64, 7)  # the last block is short
    ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-12)
    error = draws.std(0, ddof=1).max() / 5.0 / math.sqrt(150)
    limit = t.isf((1 - 0.99**0.25) / 2, 149) + norm.isf(0.1)  # 1 % over four coordinates; 90 %
    assert found[0] == pytest.approx(error * limit, rel=1e-9)


# --- coordinates ---


def test_the_coordinates_add_up_to_the_bias_of_their_layer():
    draws = [noisy(np.random.default_rng(13).normal(size=(100, 4)), 0.3) for _ in range(2)]
    cell = drawn(draws, [GRADIENT, 2 * GRADIENT], 32, ())
    known = network(exactly("arm", 0.3, 1.0), exactly("arm", 0.1, 2.0))
    frame = metrics.coordinates([cell, known])
    assert "network" not in set(frame["layer"])
    table = summary([cell, known]).set_index(["estimator", "layer"])
    for key, part in frame.groupby(["estimator", "layer"]):
        row = table.loc[key]
        assert part["coordinate"].tolist() == [0, 1, 2, 3]
        assert part["gradient"].to_numpy() == pytest.approx([0.6, 0, -0.8, 0])
        noise = 0.0 if row["exact"] else row["variance"] / 100
        assert (part["bias"] ** 2).sum() == pytest.approx(row["bias2"] + noise, rel=1e-9)
        assert (part["bias_se"] ** 2).sum() == pytest.approx(noise, rel=1e-9)
    exact = frame[frame["estimator"] == "arm"]
    assert exact["bias"].to_numpy() == pytest.approx([0, 0.3, 0, 0, 0, 0.1, 0, 0], abs=1e-12)


def test_the_bias_of_a_coordinate_is_that_of_its_mean():
    draws = noisy(np.random.default_rng(14).normal(size=(100, 4)), 0.3)
    frame = metrics.coordinates([drawn(draws, GRADIENT, 32, ())])
    np.testing.assert_allclose(frame["bias"], (draws.mean(0) - GRADIENT) / 5.0, rtol=1e-9)
    np.testing.assert_allclose(frame["bias_se"], draws.std(0, ddof=1) / 50.0, rtol=1e-9)


def test_pairs_of_equal_cells_never_cross():
    cells = [exactly(name, 0.1, 1.0, 1) for name in ("a", "b", "c")]
    assert crossovers(cells).empty


def test_estimators_without_errors_are_compared_as_all_others_are():
    """The difference of exact numbers needs no blocks: it is that of the long way, to the bit."""
    a, b = (Accuracy(x, v, np.zeros((2, 2))) for x, v in ((0.1, 0.7), (0.3, 0.2)))
    bias2, variance, covariance = mse_difference(a, b, (3, 7))
    assert a.exact and b.exact and not covariance.any()
    assert mse_gap(a, b, (3, 7)) == (bias2 + variance, 0.0, (0.0, math.inf, 0.0), math.inf)
    assert mse_gap(a, b, (3, 7)).t == math.inf * np.sign(bias2 + variance)
    for other in (
        a._replace(covariance=np.diag([0.0, 1.0])),
        a._replace(covariance=np.full((2, 2), math.nan)),
        a._replace(counts=np.ones(3)),
    ):
        assert not other.exact


def test_the_error_of_a_decision_is_that_of_the_metric():
    for bias2 in (-0.5, 0.0, 0.02):
        one = Accuracy(bias2, 0.3, np.diag([0.01, 0.02]))
        for average in (1, 3, 1000):
            assert one.error(average) == one.rmse(average).value
