"""What a suite asks for is computed before anything is built, and too much is refused."""

import pytest
import tiny
from tiny import changed

from gradbench.core.errors import GradbenchError
from gradbench.suites.budget import MOST_HOURS, budget
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import list_suites, load_suite


@pytest.mark.parametrize("name", list_suites())
def test_every_suite_of_the_package_is_within_the_budget(name):
    suite = load_suite(name)
    found = budget(suite)
    found.check(name)
    places = sum(len(problem.checkpoints) for problem in suite.problems) * suite.replicates
    assert found.cells == places * len(suite.estimators)
    assert found.draws == found.cells * suite.draws
    assert 1e-4 < found.hours < MOST_HOURS / 4


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


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once_in_one_sentence(name, tmp_path):
    suite, problem, words = BOMBS[name]
    path = suite_of(tmp_path, *suite, problem=problem)
    for call in (lambda: describe(path), lambda: run(path, tmp_path / "out", progress=False)):
        with pytest.raises(GradbenchError) as caught:
            call()
        said = str(caught.value)
        assert words in said and "--force" in said and "\n" not in said and len(said) < 400
    assert not (tmp_path / "out").exists()


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
