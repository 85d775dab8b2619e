"""The box of the report, its circles, ``rank`` and ``recommend`` give one verdict, on ten suites.

The networks and exact gradients are those that come with the package; bias, variance and cost of
the suites' estimators are made up, and some are seen through draws. What is expected is worked out
from ``rank`` at every budget.
"""

import copy
import html
import io
import re
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from stored import drawn

from gradbench.advise.recommend import recommendation_of
from gradbench.cli.main import main
from gradbench.core.display import display_name
from gradbench.core.specs import family
from gradbench.metrics import NETWORK, Budget, measurements, rank
from gradbench.metrics.changes import changes
from gradbench.metrics.decisions import BUDGETS
from gradbench.metrics.layers import scopes_of
from gradbench.metrics.measurement import HIDDEN
from gradbench.metrics.sentences import plain
from gradbench.report import html as reporting
from gradbench.results.published import FOLDER
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results

SUITES = ["depth", "toy", "psa", "digits", "conv", "quick", "seeds", "vae", "weights", "zoo"]
PLACES, ESTIMATORS, DRAWS, BLOCK = 2, 5, 32, 8
COSTS = (1, 2, 2, 4, 7)


@pytest.fixture(scope="session")
def results_of(tmp_path_factory):
    """A function: the results of a suite in small, with its networks."""
    made = {}

    def make(suite):
        if suite not in made:
            made[suite] = _write(tmp_path_factory.mktemp("verdict") / suite, suite)
        return made[suite]

    return make


def _write(directory, name):
    published = Results.open(FOLDER / name)
    suite = copy.deepcopy(published.manifest["suite"])
    suite["problems"] = (
        suite["problems"][:1] if suite["problems"][0]["training"] else (suite["problems"][:PLACES])
    )
    for problem in suite["problems"]:
        if problem["training"]:
            last = problem["training"]["checkpoints"][-PLACES:]
            problem["training"]["checkpoints"] = last
    rivals = [one for one in suite["estimators"] if family(one) != "exact"]
    suite |= {"replicates": 1, "draws": DRAWS, "estimators": rivals[:ESTIMATORS]}
    generator = np.random.default_rng(list(name.encode()))
    with (
        mock.patch("gradbench.results.manifest.provenance", lambda: {"device": "cpu"}),
        Results.open_or_create(directory, suite, 0, DRAWS) as results,
    ):
        for problem in suite["problems"]:
            training = problem["training"]
            names = [f"epoch {n}" for n in training["checkpoints"]] if training else ["untrained"]
            for checkpoint in names:
                place = CheckpointId(problem["name"], 0, checkpoint)
                results.save_checkpoint(place, published.load_checkpoint(place))
                found = published.load_reference(place)
                results.save_reference(place, found.value, found.gradient, found.info)
                for number, spec in enumerate(suite["estimators"]):
                    _write_cell(results, place, spec, number, found.gradient, generator)
    return directory


def _write_cell(results, place, spec, number, gradient, generator):
    """Store a cell: of even number its exact moments, of odd number the draws alone tell them."""
    samples, mean, variance = [], [], []
    for g in gradient:
        norm = np.linalg.norm(g) or 1.0
        shift = generator.normal(size=g.size) / np.sqrt(g.size)
        bias = generator.choice([0.0, 0.05, 0.2, 0.8]) * norm * shift
        spread = generator.choice([0.3, 1.0, 5.0]) * norm / np.sqrt(g.size)
        samples.append(g + bias + spread * generator.normal(size=(DRAWS, g.size)))
        mean.append(g + bias)
        variance.append(np.full(g.size, spread**2))
    names = [f"layer {k + 1}" for k in range(len(gradient) - 1)] + ["output"]
    cell = drawn(samples, list(gradient), BLOCK)
    meta = {"draws": DRAWS, "block": BLOCK, "averages": [1, 4], "head_sizes": [], "larger": []}
    results.cell(*place, spec).append(cell.blocks, meta | {"layer_names": names})
    if number % 2 == 0:
        results.save_moments(place, spec, mean, variance)
    price = COSTS[number % len(COSTS)]
    time = {"seconds": price * 1e-4, "spread": 0.05, "repeats": 9, "machine": "cpu, 2 cores"}
    alone = {"latency": 1e-3, "latency_spread": 0.0}
    results.save_cost(place, spec, {"evaluations": price, **time, **alone})


def expected(cells):
    """The set of estimators of rank 1 at each place, layer and budget that leaves a choice."""
    found = {}
    for place in dict.fromkeys(cell.place for cell in cells):
        own = [cell for cell in cells if cell.place == place]
        for layer in scopes_of(own[0]):
            for amount in BUDGETS:
                frame = rank(own, "rmse", Budget(amount, "evaluations"), layer)
                if frame["rank"].notna().sum() > 1:
                    first = frame["estimator"][frame["rank"] == 1]
                    found[place, layer, amount] = set(first)
    return found


def answer(cases):
    """What is said of these cases: the estimators of all, or what it depends on."""
    if everywhere := set.intersection(*cases.values()):
        return everywhere
    factors = []
    for number, name in ((4, "budget"), (3, "layer"), (2, "checkpoint"), (0, "problem")):
        groups = {}
        for (place, layer, amount), first in cases.items():
            others = [*place, layer, amount]
            del others[number]
            groups.setdefault(tuple(others), []).append(first)
        if any(not set.intersection(*group) for group in groups.values()):
            factors.append(f"the {name}")
    *some, last = factors
    return "It depends on " + (f"{', '.join(some)} and {last}" if some else last)


def said(text):
    """What a headline says: a sentence, or the names of estimators."""
    text = text.strip().rstrip(".")
    return text if text.startswith("It depends") else set(re.split(r" or |, (?![^(]*\))", text))


def told_of(cell):
    """The layers that the table of the box has a row for at the place of a cell."""
    known = scopes_of(cell)
    if NETWORK not in known:
        return list(known)
    return [NETWORK, HIDDEN if HIDDEN in known else "layer 1"]


def ranges(cells):
    """The budgets of each range that a row of the table has, with its estimators."""
    for line in cells.split("<li")[1:]:
        low, _, high = re.search(r'class="range">([^<]*)<', line)[1].partition(" to ")
        names = set(re.findall(r"<b>(.*?)</b>", line.split("<small>")[0]))
        within = [b for b in BUDGETS if float(low) <= b <= float(high or low)]
        yield within, {html.unescape(name) for name in names}, "can be afforded" in line


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.first(1)
def test_box_rank_and_recommend_agree(suite, results_of, capsys, monkeypatch):
    directory = results_of(suite)
    cells = list(measurements(directory))
    cases = expected(cells)
    assert {amount for *_, amount in cases} >= set(BUDGETS[2:])

    monkeypatch.setattr(reporting, "pictures", lambda *arguments: ([], ""))
    monkeypatch.setattr(reporting, "wide_figures", lambda *arguments: ([], ""))
    page = reporting.html(directory)
    box = page.split('<p class="answer">')[1].split("</p>")[0]
    shown = set(map(html.unescape, re.findall("<b>(.*?)</b>", box))) or box
    expected_here = answer(cases)
    if not isinstance(expected_here, str):
        expected_here = set(map(display_name, expected_here))
    assert shown == expected_here

    assert main(["rank", str(directory)]) == 0
    assert said(capsys.readouterr().out.splitlines()[0]) == answer(cases)

    # In the table of the box, ranges name what has rank 1 at each of their budgets.
    table = page.split('<table class="choices" id="best">')[1].split("</table>")[0]
    places = list(dict.fromkeys(cell.place for cell in cells))
    told_here = [
        (cell.place, one) for cell in cells[:: len(cells) // len(places)] for one in told_of(cell)
    ]
    rows = table.split("<tr>")[2:]
    circles = changes(cells)
    for row, (place, layer) in zip(rows, told_here, strict=True):
        told = []
        shown_here = list(ranges(row.split("<td")[1]))
        # Figures have a circle between any two of these ranges, on the curve of the next best.
        steps = [names for _, names, alone in shown_here if not alone]
        found = [one for one in circles[place, layer] if one.cost == "evaluations"]
        for circle, names in zip(found, steps[1:], strict=False):
            assert display_name(circle.after) in names and circle.at <= BUDGETS[-1]
        assert len(found) >= len(steps) - 1
        for within, names, alone in shown_here:
            for amount in within:
                first = cases.get((place, layer, amount))
                assert alone if first is None else names <= set(map(display_name, first))
                told += [amount] * (not alone)
        assert told == [amount for *where, amount in cases if where == [place, layer]]

    # At a budget, recommend names the first of rank 1, and whether it is tied, as rank does.
    for place in places:
        own = [cell for cell in cells if cell.place == place]
        here = answer({key: first for key, first in cases.items() if key[0] == place})
        for amount in (5, 100, 1000):
            found = recommendation_of(own, Budget(amount, "evaluations"), {})
            asked = ["--at-cost", f"{amount}-evaluations", "--problem", place[0]]
            assert main(["rank", str(directory), *asked, "--format", "csv"]) == 0
            frame = pd.read_csv(io.StringIO(capsys.readouterr().out))
            frame = frame[frame["checkpoint"] == place[2]]
            assert found.best == frame["estimator"].iloc[0]
            tied = " as good: " in found.sentence or "not told apart" in found.sentence
            assert tied == ((frame["rank"] == 1).sum() > 1)
            assert here in [said(part.splitlines()[0]) for part in str(found).split("\n\n")]


def test_names_in_sentences_are_marked_apart_from_text():
    from gradbench.metrics.sentences import Name, names

    assert plain(names(["psa", "arm"])) == "psa or arm"
    assert [part for part in names(["psa", "arm"]) if isinstance(part, Name)] == ["psa", "arm"]
    assert plain(names(list("abcdefg"), " and ", 3)) == "a, b, c and 4 more"
