"""A plugin file adds parts of suites, which TOML then says; nothing else is changed."""

import json
import sys
from contextlib import ExitStack

import numpy as np
import pytest
import tiny

from gradbench.cli.main import main
from gradbench.core import plugins
from gradbench.core.errors import GradbenchError
from gradbench.core.registry import registry
from gradbench.results.store import Results
from gradbench.suites.json_schema import schema
from gradbench.suites.library import PROBLEMS, SUITES, add_problem
from gradbench.suites.read_problem import load_problem
from gradbench.suites.suite import load_suite

PLUGIN = '''
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

from gradbench.core.fields import Count, Positive
from gradbench.models.dense import Dense
from gradbench.models.layer import LAYERS, units
from gradbench.models.losses import OBJECTIVES
from gradbench.suites.data import Examples, data_set
from gradbench.suites.initialise import INITIALISATIONS
from gradbench.suites.library import add_problem, add_problems, add_suite, add_suites
from gradbench.suites.networks import ACTIVATIONS
from gradbench.suites.train import OPTIMISERS
from gradbench.suites.weight_optimisers import weight_optimiser


@LAYERS.register("twins")
@dataclass(frozen=True)
class Twins:
    """Pairs of dense units: `{ twins = PAIRS, gain = 2 }`."""

    twins: Count
    gain: Positive = 1.0

    def layer(self, below, noise):
        return Dense(units(below), 2 * self.twins, noise)


@OBJECTIVES.register("parity")
@dataclass(frozen=True)
class Parity:
    """The product of all states, times `parity`: `{ parity = 3 }`."""

    parity: float

    def objective(self, stack):
        return lambda theta, x, target: self.parity * jnp.prod(x)


@OBJECTIVES.register()
def absolute_error(out, target):
    """Return the absolute error of one output."""
    return jnp.sqrt(jnp.sum((out[0] - target) ** 2) + 1e-6)


@data_set
def corners(rng, points: int = 4, spread: float = 0.0):
    """The corners of a square, at random."""
    inputs = rng.choice([-1.0, 1.0], (points, 2)) + spread * rng.standard_normal((points, 2))
    return Examples(inputs, np.sign(inputs[:, 0]))


@INITIALISATIONS.register()
def halves(network, key, inputs, scale):
    """Halve every parameter."""
    import jax

    return jax.tree.map(lambda leaf: leaf / 2, network.init(key))


@OPTIMISERS.register()
def signs(rate, momentum):
    """Step by the sign of the gradient."""
    return optax.chain(optax.stateless(lambda g, p: __import__("jax").tree.map(jnp.sign, g)),
                       optax.sgd(rate))


@weight_optimiser(reads_latent=True)
def half_sgd(rate, noise):
    """Step half as far."""
    return optax.sgd(rate / 2)


ACTIVATIONS.add("softsign", lambda x: x / (1 + jnp.abs(x)), summary="x / (1 + |x|)")

PROBLEM = """
title = "Twins at the corners of a square"
[data]
name = "corners"
points = 6
spread = 0.5
[network]
hidden = [{ twins = 1, gain = 2 }]
objective = "absolute_error"
initialisation = "halves"
[training]
estimator = "reinforce"
optimiser = "signs"
rate = 0.25
batch = 3
checkpoints = [0, 2]
"""
add_problem("twins-at-corners", PROBLEM)
add_problem(
    "parity-of-twins",
    {
        "title": "Parity",
        "data": {"name": "corners"},
        "network": {"hidden": [{"twins": 1}], "objective": {"parity": 3}, "initialisation": "own"},
    },
)
add_problem(
    "binary-twins",
    PROBLEM.replace("[training]", '[network.weights]\\nactivation = "softsign"\\n[training]')
    + '[training.weights]\\noptimiser = "half_sgd"\\nrate = 0.5\\n',
)
add_suite(
    "twins",
    """
title = "A suite of a plugin"
problems = ["twins-at-corners", "parity-of-twins", "binary-twins", "from-file"]
estimators = ["exact", "straight_through"]
draws = 20
""",
)
add_problems(Path(__file__).parent / "problems")
add_suites(Path(__file__).parent / "suites")
'''


PARTS = (
    "layers",
    "objectives",
    "data_sets",
    "initialisations",
    "optimisers",
    "weight_optimisers",
    "activations",
    "problems",
    "suites",
)


@pytest.fixture(autouse=True)
def forgotten():
    """What a test registers is gone after it."""
    loaded = dict(plugins._loaded)
    with ExitStack() as stack:
        for plural in PARTS:
            registry(plural).names()
            stack.enter_context(registry(plural).restored())
        yield
    plugins._loaded.clear()
    plugins._loaded.update(loaded)
    for name in [name for name in sys.modules if name.endswith("parts.py")]:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path):
    for folder, name, text in (
        ("problems", "from-file", tiny.PROBLEM),
        ("suites", "small", tiny.SUITE.replace("tiny.toml", "parity-of-twins")),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.toml").write_text(text)
    (tmp_path / "parts.py").write_text(PLUGIN)
    return tmp_path / "parts.py"


@pytest.mark.slow  # tests/test_extending.py does as much with the examples of the documentation
def test_a_suite_of_a_plugin_runs_on_the_command_line_with_all_its_parts(plugin, tmp_path):
    out = tmp_path / "results"
    assert main(["run", "twins", "--plugin", str(plugin), "--out", str(out)]) == 0
    results = Results.open(out)
    network = json.loads((out / "manifest.json").read_text())["suite"]["problems"][0]["network"]
    assert network["hidden"] == [{"twins": 1, "gain": 2.0}]
    names = {"twins-at-corners", "parity-of-twins", "binary-twins", "from-file"}
    assert {cell.place.problem for cell in results.cells()} == names
    # Steps of signs move every parameter by a multiple of the rate.
    places = sorted({c.place for c in results.cells() if c.place.problem == "twins-at-corners"})
    before, after = (results.load_checkpoint(place) for place in places)
    moved = (np.asarray(after[0]["weight"]) - np.asarray(before[0]["weight"])) / 0.25
    np.testing.assert_allclose(moved, np.round(moved), atol=1e-9)
    assert np.abs(moved).max() >= 1
    assert np.abs(before[0]["weight"]).max() <= 0.5  # halves of U(-1, 1)


def test_the_parts_of_a_plugin_are_listed_and_have_summaries(plugin):
    plugins.load(plugin)
    expected = {
        "layers": ("twins", "Pairs of dense units"),
        "objectives": ("parity", "The product of all states"),
        "data_sets": ("corners", "The corners of a square"),
        "initialisations": ("halves", "Halve every parameter"),
        "optimisers": ("signs", "Step by the sign"),
        "weight_optimisers": ("half_sgd", "Step half as far"),
        "activations": ("softsign", "x / (1 + |x|)"),
        "problems": ("twins-at-corners", "Twins at the corners of a square"),
        "suites": ("twins", "A suite of a plugin"),
    }
    assert set(expected) == set(PARTS)
    for plural, (name, summary) in expected.items():
        assert name in registry(plural).names()
        assert registry(plural).facts(name).summary.startswith(summary)
    assert load_suite("small").problems[0].name == "parity-of-twins"


def test_the_schema_has_the_parts_of_a_plugin(plugin):
    before = json.dumps(schema("problem"))
    plugins.load(plugin)
    after = json.dumps(schema("problem"))
    for name in ("twins", "parity", "absolute_error", "corners", "halves", "signs", "half_sgd"):
        assert f'"{name}"' in after and f'"{name}"' not in before


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("twins = 1", "twins = 0", "network.hidden[0].twins is 0; give a whole number of at"),
        ("gain = 2", "gian = 2", "unknown key network.hidden[0].gian; did you mean 'gain'?"),
        ("twins = 1", "twinz = 1", "unknown key network.hidden[0].twinz; did you mean 'twins'?"),
        ('"absolute_error"', "{ parity = true }", "network.objective.parity is true; give a fini"),
        ('"absolute_error"', '"absolut_error"', "did you mean 'absolute_error'?"),
        ('"corners"', '"corner"', "data.name is \"corner\"; did you mean 'corners'?"),
        ("spread = 0.5", 'spread = "x"', 'data.spread is "x"; give a finite number'),
        ('"halves"', '"halfs"', "network.initialisation is \"halfs\"; did you mean 'halves'?"),
        ('"signs"', '"sings"', "training.optimiser is \"sings\"; did you mean 'signs'?"),
    ],
)
def test_what_is_wrong_with_a_part_of_a_plugin_is_told_as_of_our_own(plugin, old, new, sentence):
    plugins.load(plugin)
    text = tiny.changed(PROBLEMS["twins-at-corners"].content, (old, new))
    path = plugin.parent / "wrong.toml"
    path.write_text(text)
    with pytest.raises(GradbenchError) as caught:
        load_problem(path)
    assert sentence in str(caught.value) and "wrong.toml, line " in str(caught.value)


@pytest.mark.parametrize("name", ["psa", "twins-at-corners"])
def test_no_problem_is_redefined(plugin, name):
    plugins.load(plugin)
    title = PROBLEMS.facts(name).summary
    with pytest.raises(GradbenchError, match=f"the problem '{name}' .* give it another name"):
        add_problem(name, tiny.PROBLEM)
    assert PROBLEMS.facts(name).summary == title


def test_a_problem_without_a_title_is_refused(plugin):
    add_problem("untitled", {"data": {"name": "nothing"}})
    with pytest.raises(GradbenchError, match="problem 'untitled': title is missing; add it"):
        load_problem("untitled")


def test_a_form_whose_first_field_is_not_its_name_is_refused_with_its_place(plugin):
    text = PLUGIN.replace("    twins: Count\n", "    pairs: Count\n")
    plugin.write_text(text.replace("self.twins", "self.pairs"))
    plugins.load(plugin)
    with pytest.raises(GradbenchError) as caught:
        load_problem("twins-at-corners")
    assert "the layer 'twins' (parts.py, line" in str(caught.value)
    assert "make it a dataclass whose first field is twins" in str(caught.value)


def test_suites_and_problems_are_found_whatever_their_hyphens():
    assert SUITES.canonical("PSA") == "psa" and load_problem("vae_12_12").name == "vae-12-12"
