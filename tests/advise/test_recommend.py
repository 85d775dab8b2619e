"""The recommendation: what it says, what it rests on, and what it refuses.

What is said is tested on cells of known moments; few estimators are measured, as each is compiled.
"""

import math
import re
import sys

import jax
import numpy as np
import pandas as pd
import pytest
from stored import assert_one_sentence, drawn

import gradbench
from gradbench import metrics
from gradbench.advise import recommend as recommendation
from gradbench.advise.preselect import in_one_line
from gradbench.advise.recommend import recommend, recommendation_of
from gradbench.cli.main import main
from gradbench.core import plugins
from gradbench.core.errors import GradbenchError
from gradbench.measure.timing import DrawTime
from gradbench.metrics import Budget, rank
from gradbench.suites import times

pytestmark = pytest.mark.usefixtures("quick_compilation")

GRADIENT = np.array([3.0, 0.0, -4.0])  # |G| = 5
PARAMS = (np.array([[0.5, -1.0], [1.0, 0.3]]), np.array([0.7, -0.4]))
BATCH = (np.array([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.0]]), np.array([0.0, 1.0, 2.0]))
NAMES = ["straight_through", "reinforce", "concrete(temperature=0.5)", "vimco"]


def model(params, example, binary):
    x, target = example
    x = binary(params[0] @ x, noise="logistic")
    return (params[1] @ x - target) ** 2


def black_box(params, example, binary):
    x = binary(params[0] @ example[0], noise="logistic")

    def outside(x):
        return np.sum(np.asarray(x) * [1.0, 2.0], axis=-1) ** 2

    like = jax.ShapeDtypeStruct((), x.dtype)
    return jax.pure_callback(outside, like, x, vmap_method="expand_dims")


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    """The time of a draw is always a millisecond."""
    found = DrawTime(1e-3, 0.0, 9)
    monkeypatch.setattr(times, "time_draws", lambda cells, **_: [found] * len(cells))


@pytest.fixture(scope="module")
def measured(quick_compilation):
    return recommend(model, PARAMS, BATCH, "100-evaluations", NAMES, draws=300)


# --- what is measured ---


@pytest.mark.slow
def test_it_agrees_with_the_ranking_and_ends_with_its_sentence(measured):
    frame = measured.ranking
    assert set(frame["estimator"]) == set(NAMES[:3])
    assert frame["M"].tolist() == [100 // n for n in frame["evaluations"]]
    assert (frame["rmse"].diff().dropna() >= 0).all() and frame["rank"][0] == 1
    assert measured.best == frame["estimator"][0]
    assert measured.budget == Budget(100.0, "evaluations")
    text = str(measured)
    assert text.splitlines()[-1] == measured.sentence
    assert text.startswith("the whole gradient, at 100 evaluations\n  rank  estimator")
    assert measured.sentence.startswith(f"At 100 evaluations use {measured.best}")


@pytest.mark.slow
def test_moments_are_exact_where_they_can_be_enumerated_and_the_truth_is_the_reference(measured):
    rows = measured.ranking.set_index("estimator")
    assert rows.loc["reinforce", "exact"] and rows.loc["straight_through", "exact"]
    loss = gradbench.estimators.reinforce(model)
    truth = gradbench.reference(model, PARAMS, BATCH).gradient
    with gradbench.float64():
        found = gradbench.moments(loss, PARAMS, BATCH)
        variance = sum(float(np.sum(np.asarray(layer))) for layer in found.variance)
    norm = sum(np.sum(layer**2) for layer in truth)
    expected = math.sqrt(variance / 100 / norm)
    assert rows.loc["reinforce", "rmse"] == pytest.approx(expected, rel=1e-9)


def test_what_does_not_fit_the_problem_says_why(measured):
    assert list(measured.unfit) == ["vimco"]
    assert "MultiSample" in measured.unfit["vimco"]
    assert f"not measured:\n  vimco: {measured.unfit['vimco']}\n" in str(measured)


@pytest.mark.slow
def test_single_precision_parameters_give_the_answer_of_double_precision(measured):
    """Of parameters that single precision can hold, to the last bit."""
    halves = jax.tree.map(lambda x: np.round(8 * x) / 8, (PARAMS, BATCH))
    singles = jax.tree.map(lambda x: np.asarray(x, np.float32), halves)
    frames = [
        recommend(model, *problem, "8-draws", ["reinforce"], draws=20).ranking
        for problem in (halves, singles)
    ]
    pd.testing.assert_frame_equal(*frames, rtol=0, atol=0)
    assert not jax.config.read("jax_enable_x64")


@pytest.mark.slow
def test_what_cannot_be_differentiated_is_for_the_others_alone():
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)  # as the command does
    try:
        found = recommend(
            black_box, PARAMS[:1], BATCH, "20-evaluations", ["reinforce", "zgr", "muprop"], draws=9
        )
    finally:
        jax.config.update("jax_enable_x64", before)
    assert found.best == "reinforce" and set(found.unfit) == {"zgr", "muprop"}
    for reason in found.unfit.values():
        assert reason == (
            "needs an objective that JAX can differentiate in the states "
            "(ValueError: Pure callbacks do not support JVP)"
        )
    assert found.sentence.endswith("mean of 20 draws): no other was measured.")


def test_a_callback_in_another_precision_is_one_sentence():
    text = (
        "INTERNAL: CpuCallback error calling callback: Traceback (most recent call last):\n  File"
    )
    text += "\nRuntimeError: Incorrect output dtype: Expected: float64, Actual: float32\n----\nFor"
    found = in_one_line(RuntimeError(text))
    assert found.startswith("a callback of the model fails with RuntimeError: Incorrect output")
    assert found.endswith("; call jax.config.update('jax_enable_x64', True) before")
    assert in_one_line(ValueError("")) == "ValueError: "


# --- what is refused ---


def undefined(params, example, binary):
    return jax.numpy.log(model(params, example, binary) - 1e3)


@pytest.mark.parametrize(
    ("problem", "how", "words"),
    [
        ((model, PARAMS, BATCH), {"budget": "9-evals"}, "'9-evals' is not a budget"),
        ((model, PARAMS, BATCH), {"estimators": ["psb"]}, "unknown estimator 'psb'"),
        (
            (model, PARAMS, BATCH),
            {"estimators": []},
            "no estimator takes the problem: name one besides",
        ),
        ((model, PARAMS, BATCH), {"estimators": ["vimco"]}, "takes the problem: vimco got a"),
        ((model, PARAMS, BATCH), {"draws": 1}, "draws is 1; give a whole number of at least 2"),
        ((model, PARAMS, BATCH), {"seed": -1}, "the seed is -1; give a whole number"),
        ((model, "none", BATCH), {}, "the parameters, of type str, hold no real array; give"),
        ((model, (), BATCH), {}, "the parameters, of type tuple, hold no real array; give"),
        ((model, (PARAMS[0] * math.nan, PARAMS[1]), BATCH), {}, "the parameters hold nan at [0]"),
        ((model, (0 * PARAMS[0], 0 * PARAMS[1]), BATCH), {}, "the exact gradient is zero"),
        ((undefined, PARAMS, BATCH), {}, "the exact loss or its gradient is not finite"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(problem, how, words):
    with pytest.raises(GradbenchError) as caught:
        recommend(*problem, **{"estimators": ["reinforce"], "draws": 9} | how)
    assert_one_sentence(caught, words)


@pytest.mark.slow
def test_a_budget_that_pays_no_draw_is_refused():
    with pytest.raises(GradbenchError) as caught:
        recommend(model, PARAMS, BATCH, "0.5 evaluations", ["reinforce"], draws=9)
    assert_one_sentence(caught, "a budget of 0.5 evaluations pays for no draw of any estimator")


# --- what is said ---


def exactly(name, bias, variance, cost=1.0):
    moments = [(GRADIENT + 5 * bias * np.eye(3)[1], 25.0 * np.array([variance, 0, 0]))]
    draws = np.stack([GRADIENT, GRADIENT + 1.0])
    more = {"moments": moments, "cost": {"evaluations": cost, "seconds": 1e-3 * cost}}
    return drawn(draws, GRADIENT, 2, (1,), estimator=name, **more)


def sampled(name, seed, scale=1.0):
    noise = np.random.default_rng(seed).normal(size=(320, 3))
    draws = GRADIENT + 5.0 * scale / math.sqrt(3) * noise
    return drawn(draws, GRADIENT, 16, (), estimator=name)


def said(cells, at="100-draws"):
    return recommendation_of(cells, metrics.budget(at), {})


def test_the_sentence_names_the_best_the_runner_up_how_much_and_how_sure():
    found = said([exactly("psa", 0.1, 1.0), exactly("arm", 0.0, 4.0), exactly("zgr", 0.5, 0.1)])
    assert found.sentence == (
        "At 100 draws use psa (relative RMSE 0.1414, mean of 100 draws), 29 % less than the "
        "runner-up arm (relative RMSE 0.2, mean of 100 draws); exact, without doubt."
    )
    assert found.best == "psa"
    one = said([exactly("psa", 0.1, 1.0), exactly("arm", 0.0, 4.0)], "1-draw").sentence
    assert one.startswith("At 1 draw use psa (relative RMSE 1.005, one draw), 50 % less than the")


def test_what_is_sampled_is_said_with_its_p_value():
    cells = [sampled("psa", 0), sampled("arm", 1, 1.5)]
    sentence = said(cells, "1-draw").sentence
    p = float(re.search(r"; p-value of equality with the runner-up ([\d.e-]+)\.$", sentence)[1])
    one, two = (row for _, row in rank(cells, at="1-draw").iterrows())
    assert p == pytest.approx(metrics.difference_p(cells, (one, two), "1-draw"), rel=0.5)
    assert p < 0.01 and " use psa (relative RMSE " in sentence


def test_ties_are_said_to_be_ties():
    found = said([sampled(name, k) for k, name in enumerate(["psa", "arm", "zgr", "ram", "leg"])])
    assert found.ranking["rank"].tolist() == [1] * 5
    names = found.ranking["estimator"].tolist()
    start, end = found.sentence.split("; not told apart from it: ")
    assert start.startswith(f"At 100 draws use {names[0]} (")
    assert end.startswith(f"{', '.join(names[1:4])} and 1 more (p-values of equal errors up to ")
    assert end.endswith("); more draws would tell.")
    exact = said([exactly("psa", 0.1, 1.0), exactly("arm", 0.1, 1.0)]).sentence
    assert exact.endswith("mean of 100 draws); as good: arm.")


def test_times_are_no_more_certain_than_they_are_measured():
    cells = [exactly("psa", 0.1, 1.0, 5), exactly("arm", 0.1, 1.1, 5), exactly("zgr", 0.1, 9, 5)]
    tied = said(cells[:2], "100ms").sentence
    assert tied.startswith("At 100 ms use psa") and tied.endswith("); times vary by as much.")
    assert said(cells[::2], "100ms").sentence.endswith("with times of this machine.")
    assert said(cells[::2], "100-evaluations").sentence.endswith("exact, without doubt.")


@pytest.mark.parametrize(
    ("variance", "words"),
    [(1.05, "2.4 % less"), (1e4, "99 % less"), (1e5, "99.7 % less"), (1e9, "100 % less")],
)
def test_a_share_is_a_percentage_of_few_digits(variance, words):
    cells = [exactly("psa", 0.0, 1.0), exactly("arm", 0.0, variance)]
    assert words in said(cells).sentence


def test_what_the_budget_does_not_pay_is_no_runner_up():
    cells = [exactly("psa", 0.1, 1.0, 10), exactly("arm", 0.0, 1.0, 200)]
    found = said(cells, "100-evaluations")
    assert found.sentence == (
        "At 100 evaluations only psa can be afforded: psa (relative RMSE 0.3317, mean of 10 "
        "draws). The budget pays no draw of any other."
    )
    assert "a draw costs more" in str(found)


# --- files, and the command ---

FILE = """\
import numpy as np

def model(params, example, binary):
    return binary(params[0] @ example).sum()

problem = (model, (np.ones((2, 2)),), np.ones((3, 2)))

def make():
    return problem

def fails():
    raise RuntimeError("no data\\nhere")

def leaves():
    raise SystemExit(3)

number = 3
"""


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs a command in a folder of its own: exit code, output and error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def file(tmp_path):
    """A file under a name of its own, as modules stay imported."""
    path = tmp_path / f"mine_{abs(hash(tmp_path))}.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of the library, which is not run."""
    calls = []

    def recommend(*arguments, **more):
        calls.append((arguments, more, jax.config.read("jax_enable_x64")))
        return "the answer"

    monkeypatch.setattr(recommendation, "recommend", recommend)
    return calls


@pytest.mark.parametrize("name", ["problem", "make"])
def test_the_command_takes_a_problem_or_a_function_that_returns_it(call, file, asked, name):
    code, out, error = call("recommend", f"{file}:{name}", "--budget", "1ms", "--seed", "5")
    assert (code, out, error) == (0, "the answer\n", "")
    ((*problem, budget, estimators), more, double) = asked[0]
    assert problem[0].__name__ == "model" and len(problem) == 3
    assert (budget, estimators) == ("1ms", None)
    limits = {"out": None}
    assert more == {"draws": None, "seed": 5, "progress": True} | limits
    assert double and not jax.config.read("jax_enable_x64")  # for callbacks, while it measures
    call("recommend", f"{file.stem}:{name}", "--estimator", "psa", "--estimator", "arm")
    assert asked[1][0][-2:] == ("100-evaluations", ["psa", "arm"])


BAD = {
    "no such file": (
        "nothing.py:problem",
        "'nothing.py:problem' cannot be imported (ModuleNotFound",
    ),
    "no such module": (
        "no_such_thing:problem",
        "No module named 'no_such_thing'); give module:name",
    ),
    "no such name": (
        "FILE:promblem",
        "has no 'promblem'; did you mean",
    ),
    "no name": ("FILE", "names nothing in"),
    "nothing": ("", "cannot be imported"),
    "a number": (
        "FILE:number",
        "number' is of type int; give a tuple of a model, its parameters and",
    ),
    "the model": (
        "FILE:model",
        "fails when it is called without arguments (TypeError: model() miss",
    ),
    "fails": ("FILE:fails", "without arguments (RuntimeError: no data here); fix it"),
    "leaves": ("FILE:leaves", "without arguments (SystemExit: 3); fix it"),
    "broken": ("BROKEN:problem", "cannot be imported (ZeroDivisionError: division by zero, at bro"),
    "leaving": ("LEAVING:problem", "cannot be imported (SystemExit: 1, at "),
    "another": ("json.py:problem", "is the module"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_problem_that_is_none_is_one_sentence(call, file, tmp_path, asked, name):
    path, words = BAD[name]
    (tmp_path / f"broken_{file.stem}.py").write_text("1 / 0")
    (tmp_path / f"leaving_{file.stem}.py").write_text("raise SystemExit(1)")
    (tmp_path / "json.py").write_text("problem = 3")
    for key, value in {"BROKEN": f"broken_{file.name}", "LEAVING": f"leaving_{file.name}"}.items():
        path = path.replace(key, value)
    code, out, error = call("recommend", path.replace("FILE", str(file)))
    assert (code, out) == (2, "") and asked == []
    assert words in error and error.count("\n") == 1 and error.startswith("gradbench: ")


def test_a_file_is_found_wherever_it_lies_and_its_folder_is_not_kept(file):
    before = list(sys.path)
    assert plugins.imported(f"{file}:number", "thing") == 3
    assert sys.path == before


@pytest.mark.slow
def test_the_command_recommends_for_a_real_problem(call, tmp_path):
    path = tmp_path / "real_problem.py"
    path.write_text(FILE)
    how = ["--budget", "10-draws", "--estimator", "reinforce", "--draws", "20"]
    code, out, error = call("recommend", f"{path}:problem", *how)
    assert code == 0 and "Traceback" not in error
    assert re.fullmatch(
        r"At 10 draws use reinforce \(relative RMSE [\d.]+, mean of 10 draws\): no other was "
        r"measured\.",
        out.splitlines()[-1],
    )


@pytest.mark.slow
def test_parameters_in_another_form_have_the_same_recommendation():
    def of_dict(params, example, binary):
        return model((params["a"], params["b"]), example, binary)

    found = [
        recommend(f, params, BATCH, "64-draws", ["straight_through", "zgr"], draws=300).ranking
        for f, params in ((model, PARAMS), (of_dict, dict(zip("ab", PARAMS, strict=True))))
    ]
    assert np.allclose(found[0]["rmse"], found[1]["rmse"], rtol=1e-6)
    assert list(found[0]["estimator"]) == list(found[1]["estimator"])
