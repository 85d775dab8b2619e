"""What a suite asks for is computed before anything is built, and too much is refused."""

import pytest
import tiny
import trained
from tiny import changed

from gradbench.core.errors import GradbenchError
from gradbench.suites.budget import _TRANSITION, MOST_HOURS, _transitions, _units, budget
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import list_suites, load_suite
from gradbench.suites.training import sweep
from gradbench.suites.training.budget import training_budget

MEASURED = [name for name in list_suites() if load_suite(name).plan is None]


@pytest.mark.parametrize("name", MEASURED)
def test_every_suite_of_the_package_is_within_the_budget(name):
    suite = load_suite(name)
    found = budget(suite)
    found.check(name)
    places = sum(len(problem.checkpoints) for problem in suite.problems) * suite.replicates
    assert found.cells == places * len(suite.estimators)
    assert found.draws == found.cells * suite.draws
    assert 1e-4 < found.hours < MOST_HOURS / 4


def test_the_hours_of_an_exact_gradient_are_counted():
    """The layers of conv have 16 and 8 units, 2^24 pairs of states, which 100 examples share."""
    (problem,) = load_suite("conv").problems
    assert _units(problem) == [16, 8]
    assert _transitions([16, 8]) == 2**16 + 2**24
    gradients = len(problem.checkpoints) * 100 * _transitions([16, 8]) * _TRANSITION / 3600
    assert 0.02 < gradients < budget(load_suite("conv")).hours


def suite_of(folder, *replacements, problem=()):
    """The tiny suite, with its text and that of its problem changed."""
    content = changed(tiny.PROBLEM, *problem)
    return tiny.write(folder, changed(tiny.SUITE, *replacements), tiny=content)


CLASSES = 'name = "overlapping_classes"\npoints = 8'
TOPICS = 'name = "topics"\ndocuments = 10000000\nwords = 10000000'
BOMBS = {
    "replicates": ([("averages", "replicates = 100000\naverages")], [], "800,000 cells"),
    "checkpoints": ([], [("[0, 10]", "[0, 1000000000000000]")], "1,000,000,000,000,000 epochs"),
    "samples": ([('"arm"', '"arms(samples=1000000000)"')], [], " GB of memory, more than 8"),
    "topics": (
        [],
        [(CLASSES, TOPICS), ("logistic_loss", "multinomial_likelihood")],
        " GB of memory, more than 8",
    ),
}


def assert_refused_at_once(path, out, words):
    for call in (lambda: describe(path), lambda: run(path, out, progress=False)):
        with pytest.raises(GradbenchError) as caught:
            call()
        said = str(caught.value)
        assert words in said and "--force" in said and "\n" not in said and len(said) < 400
    assert not out.exists()


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once_in_one_sentence(name, tmp_path):
    suite, problem, words = BOMBS[name]
    path = suite_of(tmp_path, *suite, problem=problem)
    assert_refused_at_once(path, tmp_path / "out", words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("steps = 30", "steps = 1000000000000000"), "8 runs with 8,000,000,000,000,000 steps"),
        (("replicates = 2", "replicates = 1000000000"), "2,000,000,004 runs with "),
    ],
)
def test_a_training_that_would_never_end_is_refused_before_it_begins(tmp_path, change, words):
    path = trained.write(tmp_path, change)
    assert_refused_at_once(path, tmp_path / "out", words)
    assert " hours on this machine's" in describe(path, force=True)


@pytest.mark.slow
def test_the_hours_of_train_digits_are_those_of_its_page():
    """Of which it says an hour, on two cores; the guess is one within a factor of some five."""
    suite = load_suite("train-digits")
    with sweep.precision(suite):
        found = training_budget(suite, list(sweep.build_problems(suite, 0)))
    assert 0.2 < found.hours < 5 and found.runs == 6720
    found.check("train-digits")


def test_more_variations_than_can_be_read_are_refused_before_they_are(tmp_path):
    rates = [k / 1e7 for k in range(1, 20_001)]
    sweep = f'[sweep]\nby = "rate"\n"training.rate" = {rates}'
    path = suite_of(tmp_path, ("averages = [3, 10]", sweep))
    with pytest.raises(GradbenchError, match="sweep makes 20,000 problems; give at most 10,000"):
        load_suite(path)


def test_force_describes_what_is_refused_without_it(tmp_path):
    path = suite_of(tmp_path, problem=[("[0, 10]", "[0, 1000000000000000]")])
    text = describe(path, force=True)
    assert "epoch 1000000000000000" in text and " hours on this machine's" in text


def test_a_description_tells_hours_the_size_on_disk_and_what_is_done(finished_run):
    text = describe(finished_run / "suite.toml", out=finished_run / "results")
    assert " hours on this machine's " in text and " MB on disk" in text
    assert text.endswith(f"{finished_run / 'results'}: 8 of 8 cells are done")
    assert describe(finished_run / "suite.toml").endswith("results/suite: 0 of 8 cells are done")
