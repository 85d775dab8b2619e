"""The JSON Schemas accept what gradbench reads, and refuse what it refuses."""

import json
import tomllib
from copy import deepcopy
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import gradbench.suites
from gradbench.cli.main import main
from gradbench.core.errors import GradbenchError
from gradbench.suites.config import Document
from gradbench.suites.json_schema import schema
from gradbench.suites.library import PROBLEMS, SUITES
from gradbench.suites.read_problem import read_problem

FOLDER = Path(gradbench.suites.__file__).parent


@pytest.fixture(scope="module")
def validators():
    return {kind: Draft202012Validator(schema(kind)) for kind in ("suite", "problem")}


@pytest.mark.parametrize("kind", ["suite", "problem"])
def test_the_command_prints_a_valid_schema_of_each_kind(kind, capsys):
    assert main(["schema", kind]) == 0
    printed = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(printed)
    assert printed["title"] == f"gradbench {kind}" and printed == schema(kind)


def test_another_kind_has_no_schema(capsys):
    with pytest.raises(GradbenchError, match="no schema of 'suit'; did you mean 'suite'"):
        schema("suit")
    assert main(["schema", "suit"]) == 2


@pytest.mark.parametrize("path", [*FOLDER.glob("*.toml"), *FOLDER.glob("problems/*.toml")], ids=str)
def test_every_packaged_file_is_valid(validators, path):
    kind = "problem" if path.parent.name == "problems" else "suite"
    validators[kind].validate(tomllib.loads(path.read_text()))


PROBLEM = {
    "title": "A problem",
    "data": {"name": "binary_digits", "split": "test"},
    "measured": {"examples": 8},
    "network": {
        "hidden": [{"dense": 2, "through": [3]}, 2],
        "outputs": 64,
        "objective": "bernoulli_likelihood",
        "weights": {"activation": "tanh"},
    },
    "training": {
        "estimator": "psa",
        "rate": 1,
        "batch": 4,
        "checkpoints": [0],
        "weights": {"optimiser": "sgd", "rate": 1},
    },
}
# A change at a path, None to take the key away.
WRONG = [
    ("title", None),
    ("titel", "x"),
    ("data.name", "digts"),
    ("data.points", 3),
    ("data.split", "tst"),
    ("measured.example", 3),
    ("network", None),
    ("network.hidden", []),
    ("network.hidden", [0]),
    ("network.hidden", [True]),
    ("network.hidden", [{"conv": 2, "kernl": 3}]),
    ("network.hidden", [{"conv": 2, "dense": 3}]),
    ("network.hidden", [{"through": [2]}]),
    ("network.objective", "distance"),
    ("network.objective", "no_loss"),
    ("network.objective", {"distance": [0.5], "power": 0.5}),
    ("network.noise", "logstic"),
    ("network.kl", "open"),
    ("network.states", [1, 1]),
    ("network.scale", 0),
    ("network.initialisation", "nrmalised"),
    ("network.weights.activation", "tahn"),
    ("training.batch", 1.5),
    ("training.momentum", 1),
    ("training.optimiser", "adm"),
    ("training.weights.optimiser", "adam"),
    ("training.checkpoints", [3, 3]),
]


def changed(path, value):
    problem = deepcopy(PROBLEM)
    *above, key = path.split(".")
    inner = problem
    for name in above:
        inner = inner[name]
    if value is None:
        del inner[key]
    else:
        inner[key] = value
    return problem


def test_the_problem_that_is_changed_is_valid(validators):
    assert list(validators["problem"].iter_errors(PROBLEM)) == []
    assert read_problem("p", Document("p", PROBLEM)).title == "A problem"


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_the_schema_refuses_what_gradbench_refuses(validators, path, value):
    problem = changed(path, value)
    assert list(validators["problem"].iter_errors(problem)) != []
    with pytest.raises(GradbenchError):
        read_problem("p", Document("p", problem))


@pytest.mark.parametrize(
    "suite",
    [
        {"draws": 0},
        {"drawz": 1},
        {"dtype": "float23"},
        {"estimators": []},
        {"quick": {"drawz": 3}},
        {"quick": {"draws": 0}},
        {"variants": {"a": 3}},
    ],
)
def test_the_schema_of_suites_refuses_too(validators, suite):
    whole = {"title": "t", "problems": ["psa"], "estimators": ["psa"], "draws": 4}
    assert list(validators["suite"].iter_errors(whole)) == []
    assert list(validators["suite"].iter_errors(whole | suite)) != []


def test_the_packaged_files_are_those_of_the_registries():
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == SUITES.names()
    assert sorted(path.stem for path in FOLDER.glob("problems/*.toml")) == PROBLEMS.names()
