"""A kind of model that the package does not know is treated as its own kinds are."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_batch, random_params, relative

import gradbench
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.noise import get_noise
from gradbench.estimators import make_estimator
from gradbench.exact import (
    Route,
    Size,
    brute_force,
    check_size,
    expected_loss,
    is_small,
    moments,
    route_of,
)
from gradbench.measure.exact_reference import exact_gradient
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.multisample import MultiSample, bound
from gradbench.models.network import RealNetwork, dense_network

pytestmark = pytest.mark.usefixtures("quick_compilation")
double = pytest.mark.usefixtures("float64")

# ------------------------------------------------- a chain of single units, solved by a recursion


def pair_loss(params, example, x, below):
    """The objective of two neighbours, x_k x_{k-1} times the input, with a weight of its own."""
    return params[1]["weight"] * example * x * below + (x - example) ** 2


@dataclass(frozen=True)
class Markov:
    """Units x_1, x_2, ... in a row, each drawn given the one before; f sums over neighbours.

    It is no SBN: all units have the same two parameters. Its route passes on two probabilities.
    """

    units: int = 5
    off: float = 0.0  # an error of the route, to be found
    asked: ClassVar[list[str]] = []

    def init(self, key):
        return {"weight": jnp.ones(()), "bias": jnp.zeros(())}, {"weight": jnp.ones(())}

    def __call__(self, params, example, binary):
        x, f = jnp.ones(()), 0.0
        for _ in range(self.units):
            below = x
            x = binary(params[0]["weight"] * below + params[0]["bias"] * example, noise="laplace")
            f += pair_loss(params, example, x, below)
        return f

    def check(self, params, batch):
        self.asked.append("check")
        if np.any(np.asarray(batch) == 7):
            raise GradbenchError("an example is 7; give another one")

    def expected_loss(self, params, batch):
        self.asked.append("expected_loss")
        cdf, signs = get_noise("laplace").cdf, jnp.array([-1.0, 1.0])

        def one(example):
            p, f = jnp.array([0.0, 1.0]), self.off * params[0]["bias"]
            for _ in range(self.units):
                a = params[0]["weight"] * signs + params[0]["bias"] * example
                table = jnp.stack([cdf(-a), cdf(a)], axis=1)  # [below, x]
                f += p @ (table * pair_loss(params, example, signs, signs[:, None])) @ jnp.ones(2)
                p = p @ table
            return f

        return jnp.mean(jax.vmap(one)(batch))

    def size(self, params, batch):
        self.asked.append("size")
        return Size(f"{self.units} units in a row", 8.0 * len(batch), 8.0 * self.units * len(batch))

    exact_route = Route("transfer_matrix", expected_loss, size)


MARKOV_PARAMS = (
    {"weight": np.array(0.7), "bias": np.array(-0.4)},
    {"weight": np.array(1.3)},
)
EXAMPLES = np.array([0.5, -1.1, 0.2])


@pytest.mark.slow
def test_the_exact_gradient_of_a_kind_of_model_is_by_its_own_route_and_checked_by_all_paths():
    Markov.asked.clear()
    found = exact_gradient(Markov(), MARKOV_PARAMS, EXAMPLES)
    assert found.route == "transfer_matrix" and {"check", "size", "expected_loss"} <= set(
        Markov.asked
    )
    assert set(found.agreement) == {"brute force", "finite difference"}
    assert all(0 <= value < 1e-9 for value in found.agreement.values())
    with gradbench.float64():
        truth = jax.jit(jax.grad(partial(brute_force, Markov())))(MARKOV_PARAMS, EXAMPLES)
    assert relative(found.gradient, truth) < 1e-12


@pytest.mark.slow
def test_a_model_too_large_for_all_paths_is_exact_by_its_own_route():
    long = Markov(30)
    assert is_small(long, MARKOV_PARAMS, EXAMPLES)
    found = exact_gradient(long, MARKOV_PARAMS, EXAMPLES)
    assert found.agreement["brute force"] is None and found.agreement["finite difference"] < 1e-9
    assert np.isfinite(found.value)


@pytest.mark.slow
def test_a_wrong_route_of_a_kind_of_model_is_found_by_the_second_one():
    with pytest.raises(GradbenchError, match="two routes to the exact gradient differ"):
        exact_gradient(Markov(off=1e-3), MARKOV_PARAMS, EXAMPLES)


def test_a_kind_of_model_refuses_its_own_parameters_and_data():
    with pytest.raises(GradbenchError, match="an example is 7"):
        exact_gradient(Markov(), MARKOV_PARAMS, np.array([7.0]))


def test_the_size_that_a_kind_of_model_gives_is_what_is_refused():
    class Large(Markov):
        exact_route = Route(
            "transfer_matrix",
            Markov.expected_loss,
            lambda self, params, batch: Size("very many spins", 1e12, 1.0),
        )

    class Slow(Markov):
        exact_route = replace(
            Markov.exact_route, size=lambda self, params, batch: Size("slow spins", 1.0, 1e15)
        )

    for model, what in ((Large(), r"very many spins .* GiB"), (Slow(), r"slow spins .*1e\+15")):
        assert not is_small(model, MARKOV_PARAMS, EXAMPLES)
        for refused in (check_size, expected_loss, exact_gradient):
            with pytest.raises(GradbenchError, match=what):
                refused(model, MARKOV_PARAMS, EXAMPLES)


@pytest.mark.slow
def test_a_route_may_name_its_own_second_route():
    class Checked(Markov):
        exact_route = replace(
            Markov.exact_route, second=Route("by_loops", brute_force, Markov.size, second=None)
        )

    class Unchecked(Markov):
        exact_route = replace(Markov.exact_route, second=None)

    class Unaffordable(Markov):
        slow = Route("slow", brute_force, lambda *_: Size("much", 1.0, 1e15), second=None)
        exact_route = replace(Markov.exact_route, second=slow)

    found = exact_gradient(Checked(), MARKOV_PARAMS, EXAMPLES)
    assert found.agreement["by loops"] < 1e-9 and "brute force" not in found.agreement
    assert exact_gradient(Unchecked(), MARKOV_PARAMS, EXAMPLES).agreement["brute force"] is None
    assert exact_gradient(Unaffordable(), MARKOV_PARAMS, EXAMPLES).agreement["slow"] is None


def test_a_route_that_does_not_exist_is_refused_with_the_closest_one():
    class Wrong(Markov):
        exact_route: Any = "recursio"

    with pytest.raises(GradbenchError, match=r"unknown exact route 'recursio'.*recursion"):
        check_size(Wrong(), MARKOV_PARAMS, EXAMPLES)
    Wrong.exact_route = 3
    with pytest.raises(GradbenchError, match="exact_route of Wrong is 3; give"):
        check_size(Wrong(), MARKOV_PARAMS, EXAMPLES)


@double
@pytest.mark.slow
def test_estimators_and_moments_take_the_route_of_a_kind_of_model():
    model = Markov(3)
    truth = exact_gradient(model, MARKOV_PARAMS, EXAMPLES)
    params = jax.tree.map(jnp.asarray, MARKOV_PARAMS)
    Markov.asked.clear()
    loss = make_estimator("exact", model)
    value, gradient = jax.jit(jax.value_and_grad(loss))(params, jax.random.key(0), EXAMPLES)
    assert "expected_loss" in Markov.asked and "size" in Markov.asked
    assert relative((value, gradient), (truth.value, truth.gradient)) < 1e-12
    found = jax.jit(partial(moments, make_estimator("reinforce", model)))(params, EXAMPLES)
    assert relative(found.mean, truth.gradient) < 1e-12


def test_the_work_of_a_run_that_a_model_knows_counts_in_the_size_of_all_paths():
    class Slow(Markov):
        exact_route: Any = "brute_force"

        def run_work(self, params, batch):
            return 1e13

    check_size(Markov(), MARKOV_PARAMS, EXAMPLES)
    with pytest.raises(GradbenchError, match=r"all 2\^5 paths .* operations"):
        check_size(Slow(), MARKOV_PARAMS, EXAMPLES)


# ----------------------------------------------- kinds with the structures that estimators ask for


@dataclass(frozen=True)
class Wrapped:
    """Another kind of model with all that an inner one offers, and no class of the package."""

    inner: Any

    def __call__(self, params, example, binary):
        return self.inner(params, example, binary)

    def __getattr__(self, name):
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        found = getattr(self.inner, name)
        if name in ("with_activations", "with_objective"):
            return lambda *args: Wrapped(found(*args))
        return found


CHAIN = dense_network((2, 2, 2, 1), noise="normal")


def small_model(kind):
    sizes = {"chain": (2, 2, 2, 1), "samples": (2, 2, 1)}.get(kind, (2, 1, 1))
    chain, params = dense_network(sizes, noise="normal"), random_params(sizes, scale=0.5)
    exactly = partial(make_estimator, "exact")
    model = {
        "chain": lambda: chain,
        "samples": lambda: MultiSample(chain, 2),
        "weights": lambda: BinaryWeights(RealNetwork(chain.layers, chain.objective)),
        "nested": lambda: BinaryWeights(chain, exactly),
    }[kind]()
    return model, params, random_batch(2, examples=2)


def program(loss, *args):
    """The traced program of value and gradient, without the addresses of functions."""
    return re.sub(" at 0x[0-9a-f]+", "", str(jax.make_jaxpr(jax.value_and_grad(loss))(*args)))


@pytest.mark.parametrize(
    ("kind", "specs"),
    [
        ("chain", ("psa", "sa", "ap2", "local_reparameterization")),
        ("samples", ("vimco", "ovis_mc")),
        ("weights", ("bayesbinn", "magnitude_aware", "local_reparameterization")),
        ("nested", ("nested(weights='arm', activations='psa')", "ap2")),
    ],
)
@pytest.mark.slow
def test_an_estimator_treats_a_kind_of_model_as_the_one_whose_members_it_has(kind, specs):
    model, params, batch = small_model(kind)
    params, key = jax.tree.map(jnp.asarray, params), jax.random.key(3)
    for spec in specs:
        right, found = (
            program(make_estimator(spec, one), params, key, batch)
            for one in (model, Wrapped(model))
        )
        assert found == right, spec


@pytest.mark.parametrize("kind", ["chain", "weights", "nested"])
@pytest.mark.slow
def test_the_exact_routes_treat_a_kind_of_model_as_the_one_whose_members_it_has(kind):
    model, params, batch = small_model(kind)
    route, other = route_of(model), Wrapped(model)
    assert route_of(other) == route
    assert route.size(other, params, batch) == route.size(model, params, batch)
    for way in (route, brute_force):
        right, found = (program(partial(way, one), params, batch) for one in (model, other))
        assert found == right


@pytest.mark.slow
def test_latent_weights_outside_the_support_are_told_for_any_kind_of_model():
    model, params, batch = small_model("weights")
    model = Wrapped(replace(model, noise="uniform"))
    far = jax.tree.map(lambda leaf: 3 + 0 * leaf, params)
    with pytest.warns(GradbenchWarning, match="outside the support"):
        exact_gradient(model, far, batch)


def test_a_model_without_the_structure_that_an_estimator_is_made_for_is_refused():
    for spec, what in (
        ("vimco", "no MultiSample"),
        ("bayesbinn", "rule for binary weights"),
        ("ap2", "no variances"),
        ("nested", "without binary weights"),
    ):
        with pytest.raises(GradbenchError, match=what):
            make_estimator(spec, Markov())


@pytest.mark.slow
def test_a_users_own_samples_have_the_baselines_of_vimco():
    @dataclass(frozen=True)
    class Pair:
        """Two runs of a chain under weights of their own: no MultiSample."""

        samples: int = 2

        def losses(self, params, example, binary):
            return jnp.stack([CHAIN(params, example, binary) for _ in range(2)])

        def __call__(self, params, example, binary):
            return bound(self.losses(params, example, binary))

    params, batch = random_params((2, 2, 2, 1)), random_batch(2, examples=2)
    right, found = (
        program(make_estimator("vimco", model), params, jax.random.key(1), batch)
        for model in (MultiSample(CHAIN, 2), Pair())
    )
    assert found == right


# ---------------------------------------------------------------------- the package keeps to it

KINDS = {"SBN", "BinaryWeights", "RealNetwork", "MultiSample", "Chain"}


def asked_for(source):
    """The lines that ask whether something is of one of these classes."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        tested: list[ast.AST] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "isinstance",
            "issubclass",
        ):
            tested = node.args[1:]
        if isinstance(node, ast.MatchClass):
            tested = [node.cls]
        if isinstance(node, ast.Compare):  # type(model) is SBN
            tested = [node.left, *node.comparators]
        parts = [part for one in tested for part in ast.walk(one)]
        names = {getattr(part, "id", getattr(part, "attr", "")) for part in parts}
        if names & KINDS:
            lines.append(node.lineno if hasattr(node, "lineno") else node.cls.lineno)
    return lines


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(model, SBN)",
        "isinstance(model, Dense | network.BinaryWeights)",
        "issubclass(kind, (int, RealNetwork))",
        "type(model) is MultiSample",
        "match model:\n    case SBN():\n        pass",
    ],
)
def test_a_question_for_a_class_would_be_found(line):
    assert asked_for(line) and not asked_for("model = SBN(layers, isinstance(model, Dense))")


@pytest.mark.slow
def test_nothing_outside_of_models_asks_for_the_class_of_a_model():
    root = Path(gradbench.__file__).parent
    files = [path for path in root.rglob("*.py") if path.parent != root / "models"]
    assert len(files) > 100
    found = {str(path.relative_to(root)): asked_for(path.read_text()) for path in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.slow
def test_the_folder_offers_its_public_names_and_loads_optax_for_optimisers_alone():
    program = (
        "import sys, gradbench.models as models\n"
        "assert 'optax' not in sys.modules\n"
        "assert all(hasattr(models, name) for name in models.__all__)\n"
        "assert 'optax' in sys.modules and models.optimisers.mirror_descent\n"
        "assert set(dir(models)) == set(models.__all__)\n"
        "assert not hasattr(models, 'SNB')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
