"""Problems of one's own on the command line: read, measured, continued, refused."""

import numpy as np
import pytest
from stored import assert_one_sentence

from gradbench.advise import evaluate as evaluation
from gradbench.advise.own import OwnProblem, default_directory, read_own
from gradbench.cli.main import main
from gradbench.cli.own import is_own
from gradbench.core.errors import GradbenchError
from gradbench.results.store import Results

pytestmark = pytest.mark.usefixtures("quick_compilation")

FILE = """\
import numpy as np

def model(params, example, binary):
    x, target = example
    return (params[1] @ binary(params[0] @ x) - target) ** 2

PARAMS = (np.array([[0.5, -1.0], [1.0, 0.3]]), np.array([0.7, -0.4]))
problem = [model, PARAMS, (np.ones((3, 2)), np.array([0.0, 1.0, 2.0]))]
pair = model, PARAMS
_hidden = problem

def make(scale=1.0):
    return tuple(problem)

def pairs():
    return pair
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
    path = tmp_path / f"own_{abs(hash(tmp_path))}.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("name", ["problem", "make"])
def test_a_tuple_or_a_function_that_returns_one_is_a_problem(file, name):
    found = read_own(f"{file}:{name}")
    assert isinstance(found, OwnProblem) and found.name == name
    assert found.model.__name__ == "model" and found.params[0].shape == (2, 2)
    assert np.shape(found.batch[0]) == (3, 2)
    assert str(default_directory(f"{file}:{name}")) == f"results/{file.stem}-{name}"
    assert str(default_directory(f"package.{file.stem}:{name}")) == f"results/{file.stem}-{name}"


@pytest.mark.parametrize("name", ["psa", "mine.toml", "a/b", "C:/mine.toml"])
def test_suites_are_no_problems_of_ones_own(name):
    assert not is_own(name)
    assert is_own("mine.py") and is_own("mine.py:problem") and is_own("package.mine:problem")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("FILE", "names nothing in FILE; give FILE:NAME, such as FILE:problem or FILE:make"),
        ("FILE:", "names nothing in FILE; give FILE:NAME, such as FILE:problem or FILE:make"),
        ("FILE:promblem", "as FILE has no 'promblem'; did you mean FILE:problem?"),
        ("FILE:pair", "is a tuple of 2, not of 3; give a tuple of a model, its parameters and a"),
        ("FILE:pairs", "returns a tuple of 2, not of 3; give a tuple of a model, its parameters"),
        ("FILE:PARAMS", "is a tuple of 2, not of 3"),
        ("FILE:np", "is of type module; give a tuple of a model"),
        ("FILE:model", "fails when it is called without arguments (TypeError: model() missing"),
        ("BROKEN:problem", "(ZeroDivisionError: division by zero, at BROKEN, line 2); fix it"),
        (
            "nothing.py:problem",
            "(ModuleNotFoundError: No module named 'nothing'); give module:name",
        ),
    ],
)
def test_what_is_no_problem_is_one_sentence_with_the_remedy(call, file, path, words):
    broken = file.with_name(f"broken_{file.name}")
    broken.write_text("import math\n1 / 0\n")
    for name, real in (("FILE", file.name), ("BROKEN", broken.name)):
        path, words = path.replace(name, real), words.replace(name, real)
    code, out, error = call("run", path)
    assert (code, out) == (2, "") and words in error and error.count("\n") == 1
    with pytest.raises(GradbenchError) as caught:
        read_own(path)
    assert_one_sentence(caught, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["own.py:problem", "--quick"], "--quick is for suites, and 'own.py:problem' is none"),
        (["own.py:problem", "--until", "rel_se=1%"], "--until is for suites"),
        (["quick", "--time-limit", "x"], "'x'"),
    ],
)
def test_options_of_suites_are_refused(call, arguments, words):
    code, _, error = call("run", *arguments)
    assert code == 2 and words in error


def test_the_command_asks_for_the_same_as_the_function(call, file, monkeypatch):
    asked = []

    def evaluate(*problem, **how):
        asked.append((problem, how))
        raise GradbenchError("that is all")

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    code, _, error = call("run", f"{file.name}:problem", "-e", "psa", "--draws", "9")
    assert (code, error) == (2, "gradbench: that is all\n")
    ((_, params, _), how) = asked[0]
    assert params[0].shape == (2, 2) and how["estimators"] == ["psa"] and how["draws"] == 9
    assert str(how["out"]) == f"results/{file.stem}-problem" and how["name"] == "problem"
    assert "time_limit" not in how and how["seed"] == 0
    call("run", f"{file.name}:problem", "--time-limit", "inf", "--out", "there")
    assert asked[1][1]["time_limit"] is None and str(asked[1][1]["out"]) == "there"
    assert asked[1][1]["estimators"] is None


@pytest.mark.slow
def test_a_problem_ends_with_figures_a_verdict_and_a_report(call, file, tmp_path):
    how = ["-e", "reinforce", "-e", "zgr", "--draws", "40"]
    code, out, error = call("run", f"{file.name}:make", *how)
    assert code == 0 and "Traceback" not in error
    directory = tmp_path / "results" / f"{file.stem}-make"
    assert (directory / "report.html").is_file() and "the report: " in out
    assert "make: 2 binary units, 3 examples: 2 of 2 cells" in out
    assert len(Results.open(directory).cells()) == 2
    assert call("show", directory)[0] == 0
