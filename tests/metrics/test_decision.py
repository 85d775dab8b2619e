"""The decision rule, on planted cases of known moments and against the ranking at every budget."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import assert_one_sentence, drawn

from gradbench.core.errors import GradbenchError
from gradbench.metrics import NETWORK, decide, layers_of, rank
from gradbench.metrics.decision import amounts
from gradbench.metrics.decisions import BUDGETS, Range
from gradbench.metrics.layers import scopes_of
from gradbench.metrics.measurement import HIDDEN
from gradbench.metrics.sentences import plain
from gradbench.metrics.verdict_text import explanation, headline, text

NAMES = ("reinforce", "arm", "psa", "zgr", "leg")
SIZES = {"layer 1": 3, "layer 2": 2, "output": 2}
SCALES = {"layer 1": 1.0, "layer 2": 2.0, "output": 10.0}  # of the gradient


def cell(name, cost=None, problem="toy", checkpoint="epoch 1", noise=None, **facts):
    """A cell whose draws have this relative bias and variance in each layer, or in all.

    `facts` are pairs by layer ("layer_1"), and `every` for the others. Of normal `noise`
    [N, layers] bias and variance are estimated, else they are exact.
    """
    gradient, draws, moments = [], [], []
    for k, (layer, size) in enumerate(SIZES.items()):
        bias, variance = facts.get(layer.replace(" ", "_"), facts.get("every", (0.0, 1.0)))
        norm = SCALES[layer]
        g = np.eye(size)[0] * norm
        mean = g + norm * bias * np.eye(size)[1]
        along = np.eye(size)[1] * norm * np.sqrt(variance)
        own = np.array([[-1.0], [1.0]]) if noise is None else noise[:, [k]]
        gradient.append(g)
        draws.append(mean + own * along)
        moments.append((mean, along**2))
    stored = drawn(
        draws,
        gradient,
        2 if noise is None else 16,
        (),
        estimator=name,
        problem=problem,
        checkpoint=checkpoint,
        moments=moments if noise is None else None,
        cost={} if cost is None else {"evaluations": cost, "seconds": cost * 3e-5, "spread": 0.0},
    )
    return stored._replace(layer_names=list(SIZES))


def best(verdict, layer=NETWORK):
    """The ranges of the only place, without ties."""
    return [(one.start, one.end, one.best) for one in verdict.ranges(layer)]


# --- planted cases ---


def test_the_same_estimator_everywhere_is_the_answer():
    verdict = decide([cell("psa", 2, every=(0.0, 1.0)), cell("arm", 2, every=(0.0, 2.0))])
    assert verdict.best == ("psa",) and verdict.depends_on == ()
    assert best(verdict) == [(2, 1000, ("psa",))]
    assert plain(headline(verdict)) == "psa"
    assert "psa has the smallest RMSE at equal cost in every layer at every budget" in text(verdict)


def test_equal_draws_are_not_equal_cost():
    """As in the experiment of the PSA paper: less error of a draw that costs thrice as much."""
    cells = [cell("straight_through", 2, every=(0.0, 1.0)), cell("psa", 6, every=(0.0, 0.8))]
    assert decide(cells).best == ("straight_through",)
    assert decide(cells, "draws").best == ("psa",)
    assert decide(cells, "seconds").best == ("straight_through",)


def test_the_winner_may_change_with_the_budget():
    cells = [cell("straight_through", 2, every=(0.1, 1.0)), cell("arm", 4, every=(0.0, 1.0))]
    verdict = decide(cells)
    assert verdict.best == () and verdict.depends_on == ("budget",)
    assert best(verdict) == [
        (2, 2, ("straight_through",)),
        (5, 200, ("straight_through",)),
        (500, 1000, ("arm",)),
    ]
    assert decide(cells).ranges(NETWORK)[1].tied == ("arm",)  # equal at 200, exactly
    assert plain(headline(verdict)) == "It depends on the budget"


def test_only_what_can_be_afforded_is_no_choice():
    cells = [cell("reinforce", 1, every=(0.0, 100.0)), cell("psa", 6, every=(0.0, 1.0))]
    verdict = decide(cells)
    assert verdict.best == ("psa",)  # wherever there is something to choose
    first, second = verdict.ranges(NETWORK)
    assert first == Range(1, 5, ("reinforce",), (), False)
    assert second == Range(10, 1000, ("psa",), (), True)
    assert "With 5 evaluations only reinforce can be afforded." in map(plain, explanation(verdict))
    alone = decide([cell("psa", 6)])
    assert plain(headline(alone)) == "Only psa was measured" and not alone.choices
    dear = decide([cell("reinforce", 1), cell("psa", 5000)])
    assert plain(headline(dear)) == "Only reinforce can be afforded"
    assert plain(headline(decide([cell("arm", 4000), cell("psa", 5000)]))) == "Nothing to choose"


def test_the_winner_may_change_with_the_layer_though_the_network_has_just_one():
    """The output layer has 95 % of the squared length, so that the network follows it alone."""
    cells = [
        cell("psa", 2, output=(0.0, 2.0), every=(0.0, 1.0)),
        cell("arm", 2, output=(0.0, 1.0), every=(0.0, 2.0)),
    ]
    verdict = decide(cells)
    assert verdict.shares == {("toy", 0, "epoch 1"): pytest.approx(100 / 105)}
    winner = {layer: best(verdict, layer) for layer in verdict.layers}
    assert winner == {
        layer: [(2, 1000, ("arm",) if layer in (NETWORK, "output") else ("psa",))]
        for layer in (NETWORK, HIDDEN, *SIZES)
    }
    assert verdict.depends_on == ("layer",)
    assert plain(headline(verdict)) == "It depends on the layer"
    assert "95.2 % of the squared length" in text(verdict)
    assert decide(cells, layers=["layer 2"]).best == ("psa",)


def test_a_single_layer_with_another_winner_is_said_where_the_network_has_one_alone():
    """Else an answer that depends on something would be followed by one winner everywhere."""
    cells = [
        cell("psa", 2, layer_1=(0.0, 2.0), every=(0.0, 1.0)),
        cell("arm", 2, layer_1=(0.0, 1.0), every=(0.0, 2.0)),
    ]
    told = text(decide(cells)).replace("\n", " ")
    assert told.startswith("It depends on the layer. Of 18 decisions")
    assert "psa has the smallest RMSE in 18." in told
    assert "In 9 of 27 decisions on single layers it is another one, as arm in layer 1 at 2" in told
    assert "single layers" not in text(decide([cell("psa", 2), cell("arm", 3)]))


@pytest.mark.parametrize("factor", ["problem", "checkpoint"])
def test_the_winner_may_change_with_the_place(factor):
    cells = [
        cell(name, 2, every=(0.0, variance), **{factor: value})
        for value, names in (("one", ("psa", "arm")), ("two", ("arm", "psa")))
        for name, variance in zip(names, (1.0, 2.0), strict=True)
    ]
    verdict = decide(cells)
    assert verdict.depends_on == (factor,)
    assert verdict.ranges(NETWORK) == []  # none for both
    assert [verdict.ranges(NETWORK, place)[0].best for place in verdict.places] == [
        ("psa",),
        ("arm",),
    ]
    shown = text(verdict)
    assert "one  2 to 1000 evaluations  psa" in shown and "two  2 to 1000 evaluations  arm" in shown


def test_exact_and_statistical_ties_are_ties():
    exact = decide([cell("psa", 2), cell("arm", 2), cell("leg", 2, every=(0.0, 3.0))])
    assert exact.best == ("psa", "arm") and plain(headline(exact)) == "psa or arm"
    noise = np.random.default_rng(1).normal(size=(2, 320, 3))
    cells = [cell("psa", 2, noise=noise[0]), cell("arm", 2, noise=noise[1])]
    drawn_apart = decide(cells)
    assert set(drawn_apart.best) == {"psa", "arm"}
    assert "without a significant difference" in plain(explanation(drawn_apart)[0])
    worse = [cells[0], cell("arm", 2, noise=noise[1], every=(0.0, 4.0))]
    assert decide(worse).best == ("psa",)


def test_a_tie_in_part_of_a_range_does_not_split_it():
    noise = np.random.default_rng(5).normal(size=(2, 640, 3))
    cells = [
        cell("psa", 2, noise=noise[0], every=(0.1, 1.0)),
        cell("arm", 2, noise=noise[1], every=(0.3, 1.0)),
    ]
    (found,) = decide(cells).ranges("output")
    assert found.best == ("psa",) and found.tied == ("arm",)
    assert "psa (in part tied with arm)" in text(decide(cells, layers=["output"]), ["output"])


def test_a_theorem_counts_as_in_the_ranking():
    """Without a bias by theorem the error falls with the draws, whatever the draws' mean is."""
    noise = np.random.default_rng(3).normal(size=(320, 3))
    sure = cell("arm", 2, noise=noise, every=(0.0, 4.0))._replace(claim="unbiased")
    cells = [sure, cell("psa", 2, every=(0.1, 1.0))]
    assert decide(cells).ranges(NETWORK)[-1].best == ("arm",)
    found = {one.layer: one.source for one in layers_of(sure)}
    assert set(found.values()) == {"theorem"}


# --- what it rests on ---


def test_the_hidden_layers_together_are_those_of_the_weights_of_their_gradients():
    """MSE = sum_l |G_l|^2 MSE_l / sum_l |G_l|^2, exact and of draws."""
    noise = np.random.default_rng(4).normal(size=(64, 3))
    facts = {"layer_1": (0.3, 1.0), "layer_2": (0.1, 5.0), "output": (0.0, 9.0)}
    for one in (cell("psa", **facts), cell("psa", noise=noise, **facts)):
        found = scopes_of(one)
        hidden = found["layer 1"], found["layer 2"]
        weights = [layer.sample.norm**2 for layer in hidden]
        assert found[HIDDEN].sample.norm ** 2 == pytest.approx(sum(weights))
        for average in (1, 7):
            parts = [layer.accuracy.mse(average).value for layer in hidden]
            mean = np.average(parts, weights=weights)
            assert found[HIDDEN].accuracy.mse(average).value == pytest.approx(mean, rel=1e-12)
        assert found[HIDDEN].exact == (one.moments is not None)


def test_without_several_hidden_layers_or_an_output_there_is_no_joint_one():
    one = cell("psa", 2)
    assert list(scopes_of(one)) == [NETWORK, HIDDEN, "layer 1", "layer 2", "output"]
    for names in (["a", "b", "output"], ["hidden layers", "b", "output"], ["a", "b", "c"]):
        joint = HIDDEN in scopes_of(one._replace(layer_names=names))
        assert joint == ("output" in names)
    short = one._replace(
        layer_names=["layer 1", "output"],
        gradient=one.gradient[1:],
        moments=one.moments[1:],
        blocks=[block._replace(layers=block.layers[1:]) for block in one.blocks],
    )
    assert HIDDEN not in scopes_of(short)
    rivals = [short, short._replace(estimator="arm")]
    assert decide(rivals, layers=[HIDDEN]).layers == ["layer 1"]
    assert set(rank(rivals, layer=HIDDEN)["layer"]) == {"layer 1"}
    with pytest.raises(GradbenchError) as caught:
        decide(rivals, layers=["layer 9"])
    assert_one_sentence(caught, "there is no layer 'layer 9'")


def test_which_layers_are_hidden_is_said_by_the_cell_whatever_their_names():
    def named(one, readout):
        return one._replace(layer_names=["first", "second", "head"], readout=readout)

    cells = [cell("psa", 2), cell("arm", 2, every=(0.0, 2.0))]
    verdict = decide([named(one, ("head",)) for one in cells])
    assert verdict.layers == [NETWORK, HIDDEN, "first", "second", "head"]
    assert verdict.shares == {("toy", 0, "epoch 1"): pytest.approx(100 / 105)}
    assert "Behind the last units, head has 95.2 % of the squared length" in text(verdict)
    two = decide([named(one, ("second", "head")) for one in cells])
    assert two.layers == [NETWORK, "first", "second", "head"]
    assert two.of(HIDDEN) == two.of("first")
    assert "second and head have" in " ".join(text(two).split())
    none = decide([named(one, ()) for one in cells])
    assert HIDDEN not in none.layers and not none.shares
    with pytest.raises(GradbenchError, match="there is no layer 'hidden layers'"):
        rank([named(one, ()) for one in cells], layer=HIDDEN)


def test_a_verdict_is_printed_and_shown_in_words():
    verdict = decide([cell("psa", 2), cell("arm", 4, every=(0.3, 0.1), problem="<b>")])
    assert str(verdict) == text(verdict)
    assert (
        repr(verdict)
        == f"<Verdict: {plain(headline(verdict))} (2 places, 5 layers, at equal evaluations)>"
    )
    cells = [cell("straight_through", 2, every=(0.1, 1.0)), cell("arm", 4, every=(0.0, 1.0))]
    page = decide(cells)._repr_html_()
    assert "<strong>It depends on the budget.</strong>" in page
    assert (
        "<td>hidden layers together</td><td>500 to 1000 evaluations</td><td><b>ARM</b></td>" in page
    )
    other = [one._replace(problem="<i>") for one in cells]
    assert "<td>&lt;i&gt;</td>" in decide([*cells, *other])._repr_html_()


FACTS = st.tuples(
    st.sampled_from([0.0, 0.03, 0.1, 0.5]),
    st.sampled_from([0.1, 1.0, 4.0, 50.0]),
    st.sampled_from([1, 2, 3, 7, 40, 2000]),
)


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(FACTS, min_size=1, max_size=4), st.booleans(), st.integers(0, 99))
def test_at_every_budget_the_unbeaten_have_rank_1_and_ranges_are_the_fewest(facts, exact, seed):
    rng = np.random.default_rng(seed)
    noises = [None if exact else rng.normal(size=(48, 3)) for _ in facts]
    cells = [
        cell(name, cost, every=(bias, variance), noise=noise)
        for name, (bias, variance, cost), noise in zip(NAMES, facts, noises, strict=False)
    ]
    verdict = decide(cells, layers=[NETWORK, "layer 1"])
    for case in verdict.cases:
        able = [one for one in cells if one.cost["evaluations"] <= case.budget]
        assert case.affordable == len(able) and case.measured == len(cells)
        if able:
            frame = rank(cells, "rmse", f"{case.budget:g}-evaluations", case.layer)
            first = frame[frame["rank"] == 1]
            assert set(case.best) == set(first["estimator"])
            assert case.rmse == frame["rmse"].iloc[0] and case.best[0] == frame["estimator"][0]
    for layer in verdict.layers:
        cases = [case for case in verdict.cases if case.layer == layer and case.best]
        ranges = verdict.ranges(layer)
        assert [r.start for r in ranges] == sorted({r.start for r in ranges})
        for one in ranges:
            within = [case for case in cases if one.start <= case.budget <= one.end]
            assert set(one.best) == set.intersection(*(set(case.best) for case in within))
            assert {case.is_choice for case in within} == {one.is_choice}
            cases = [case for case in cases if case not in within]
        assert cases == []
        for before, after in pairwise(ranges):
            following = next(
                c for c in verdict.cases if (c.layer, c.budget) == (layer, after.start)
            )
            assert before.is_choice != after.is_choice or not set(before.best) & set(following.best)


def test_times_are_judged_at_round_amounts_from_the_first_that_pays_a_draw():
    assert amounts("seconds", 3e-5)[:3] == [5e-5, 1e-4, 2e-4]
    assert amounts("seconds", 1e-3)[0] == 1e-3 and len(amounts("seconds", 1e-3)) == len(BUDGETS)
    assert amounts("seconds", 7e-4)[-1] == pytest.approx(1.0)
    assert amounts("evaluations", 3.0) == list(BUDGETS)


def test_what_has_no_cost_is_left_out_and_said_and_nothing_is_told_without_any():
    known = [cell("psa", 2), cell("arm", 2, every=(0.0, 2.0))]
    verdict = decide([*known, cell("leg", every=(0.0, 0.1))])
    assert verdict.best == ("psa",) and verdict.without_cost == ("leg",)
    assert "leg was left out: the results do not say what a draw costs." in map(
        plain, explanation(verdict)
    )
    none = decide([cell("psa"), cell("arm")])
    assert plain(headline(none)) == "Not known at equal cost" and not none.cases
    assert decide([cell("psa"), cell("arm")], "draws").best == ("psa", "arm")


def test_a_gradient_of_zero_decides_nothing():
    def without(one, layers):
        keep = [layer not in layers for layer in SIZES]
        gradient = [g * k for g, k in zip(one.gradient, keep, strict=True)]
        return one._replace(gradient=gradient)

    cells = [cell("psa", 2), cell("arm", 2)]
    assert decide([without(one, ["layer 1"]) for one in cells]).layers == [
        NETWORK,
        HIDDEN,
        "layer 2",
        "output",
    ]
    nothing = decide([without(one, list(SIZES)) for one in cells])
    assert nothing.cases == [] and plain(headline(nothing)) == "Nothing to choose"
    with pytest.raises(GradbenchError, match="unknown cost 'time'"):
        decide(cells, "time")
    with pytest.raises(GradbenchError, match="the only estimator is the exact one"):
        decide([cell("exact", 1)])
