"""The costs of the registry are counted, not believed: a network counts what is asked of it.

A callback ticks in every run of the network, in every evaluation of its objective, of a layer or of
a sheet of flips beside a run, and where the gradient of the objective in the states arrives. A run
counts as all its layers, also where some of its states are kept from another one.
"""

import ast
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from conftest import random_batch, random_params
from jax.lax import stop_gradient

import gradbench
from gradbench.core.autodiff import gradient_term
from gradbench.core.errors import GradbenchError
from gradbench.core.run import sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import ESTIMATORS
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.cost import Cost, D, Formula, L
from gradbench.models.dense import Dense
from gradbench.models.network import SBN

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

PACKAGE = Path(gradbench.__file__).parent
WIDTHS = (2, 3, 2, 2)
EXAMPLES = 2  # some estimators compare the examples of a batch
CALLS: list[str] = []  # appending is safe in any thread


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def tick(what, x):
    """x, counted once for each row of a batch of it; its derivatives are not counted."""
    jax.debug.callback(lambda x: CALLS.append(what), x)
    return x


@tick.defjvp
def _tick_jvp(what, primals, tangents):
    return tick(what, *primals), tangents[0]


@jax.custom_vjp
def tick_gradient(x):
    """x, counted where a gradient in it arrives."""
    return x


tick_gradient.defvjp(lambda x: (x, None), lambda _, g: (tick("gradients", g),))


def objective(theta, x, target):
    x = tick_gradient(x)
    return jnp.tanh(x @ jnp.arange(1.0, 1 + x.size) - target)


@dataclass(frozen=True)
class CountedDense(Dense):
    """A dense layer that counts its evaluations, of which a sheet of flips is one."""

    def __call__(self, theta, x):
        return super().__call__(theta, tick("layers", x))

    def flip_pullback(self, theta, x, flipped, a, g):
        return super().flip_pullback(theta, tick("layers", x), flipped, a, g)


class Counted(SBN):
    """A network that counts its runs as a whole, and its layers and objective beside them."""

    def __call__(self, params, example, binary):
        states = []

        def recorded(a, noise):
            states.append(binary(a, noise))
            return states[-1]

        uncounted = SBN(tuple(Dense(k.inputs, k.outputs) for k in self.layers), objective)
        f = uncounted(params, example, recorded)
        seen = stop_gradient(jnp.concatenate(states))
        return f + 0 * jnp.sum(tick("runs", seen))


def beside(theta, x, target):
    return objective(theta, tick("flips", x), target)


def count(make, layers):
    """Evaluations per example of one draw: of the objective, its gradient, layers."""
    params = jax.tree.map(jnp.asarray, (*random_params(WIDTHS[: layers + 1]), ()))
    batch = random_batch(WIDTHS[0], EXAMPLES)
    chain = tuple(CountedDense(m, n) for m, n in pairwise(WIDTHS[: layers + 1]))
    loss = make(Counted(chain, beside))
    if isinstance(loss, Learned):
        loss = loss.frozen(loss.init(params, batch))
    CALLS.clear()
    jax.block_until_ready(jax.jit(jax.value_and_grad(loss))(params, jax.random.key(0), batch))
    jax.effects_barrier()
    runs, flips, gradients, single = (
        CALLS.count(what) / EXAMPLES for what in ("runs", "flips", "gradients", "layers")
    )
    return runs + flips, gradients, layers * runs + single


def more(entry):
    """One more of each number of samples."""
    return {
        key: value + 1
        for key, value in entry.hyperparameters.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }


def assert_cost(entry, arguments, layers):
    widths = WIDTHS[1 : layers + 1]
    sizes = {"L": layers, "D": sum(widths), "n": widths[-1]}
    claimed = entry.price(**arguments).evaluate(**sizes, **(entry.hyperparameters | arguments))
    assert count(partial(entry.make, **arguments), layers) == claimed, (arguments, sizes)


COUNTED = pytest.mark.parametrize(
    "entry",
    [
        e
        for _, e in sorted(ESTIMATORS.items())
        if not e.needs and e.name not in ("exact", "forward_gradient")
    ],
    ids=lambda entry: entry.name,
)


@COUNTED
@pytest.mark.first(1)
def test_a_draw_costs_what_the_registry_says(entry):
    assert_cost(entry, more(entry), 1 if entry.layers == "one" else 2)


@pytest.mark.slow
@COUNTED
def test_a_draw_costs_what_the_registry_says_at_other_depths(entry):
    for layers in (1,) if entry.layers == "one" else (1, 3):
        assert_cost(entry, {}, layers)


@pytest.mark.slow
def test_a_forward_gradient_takes_two_runs_of_which_one_is_differentiated_forward(monkeypatch):
    """No gradient arrives in the states: what the registry counts as one is the forward pass."""
    monkeypatch.setitem(globals(), "tick_gradient", lambda x: x)
    make = ESTIMATORS["forward_gradient"].make
    for layers in (1, 2):
        assert count(make, layers) == (2, 0, 2 * layers)
    assert ESTIMATORS["forward_gradient"].price() == Cost(2, 1, 2 * L)


def test_an_evaluation_that_is_not_claimed_is_counted():
    def twice(model):
        def example_loss(params, u, example):
            run, other = (
                sampled(model, params, u[0], example),
                sampled(model, params, u[1], example),
            )
            slope = jax.grad(lambda x: model.objective((), x, example[1]))(run.x[-1])
            return run.f + gradient_term(other.f * slope, run.a[-1])

        return surrogate_loss(model, example_loss, streams=2)

    assert count(twice, 2) == (3, 1, 4) == Cost(3, 1, 2 * L).evaluate(L=2)


# ------------------------------------------------------------------------------ the formulas

DRAWS = Formula("draws")


@pytest.mark.parametrize(
    ("formula", "text", "number"),
    [
        (L + 1, "L + 1", 3),
        (1 + L * (DRAWS - 1), "1 + L * (draws - 1)", 9),
        (2 * (DRAWS * L), "2 * (draws * L)", 20),
        ((DRAWS + 1) * L, "(draws + 1) * L", 12),
        (L * 2**D, "L * 2**D", 16),
        (2 ** (D - 1), "2**(D - 1)", 4),
        (D - (L - 1), "D - (L - 1)", 2),
        (D - L - 1, "D - L - 1", 0),
        (L + (D - 1), "L + D - 1", 4),
    ],
)
def test_a_formula_computes_what_it_prints(formula, text, number):
    sizes = {"L": 2, "D": 3, "draws": 5}
    assert str(formula) == text
    assert formula.evaluate(**sizes) == number == eval(text, sizes)


def test_a_formula_prints_the_numbers_in_the_place_of_hyper_parameters():
    assert str((1 + L * (DRAWS - 1)).at(draws=4)) == "1 + L * (4 - 1)"
    assert str(Cost(DRAWS, DRAWS).at(draws=4)) == "4 + 4 G"


def test_what_adds_or_multiplies_nothing_is_not_printed():
    assert [str(formula) for formula in (0 + L, L * 1, 0 * L, 1 * DRAWS, L + 0)] == [
        "L",
        "L",
        "0",
        "draws",
        "L",
    ]
    assert str(Cost(3) + Cost(4, 2)) == "7 + 2 G" and str(Cost(3, 1).times(2)) == "6 + 2 G"


@pytest.mark.parametrize("part", ["2 * L", 1.5, True, None])
def test_a_cost_that_is_no_formula_is_refused(part):
    with pytest.raises(GradbenchError) as caught:
        Cost(part)
    assert str(caught.value).startswith(f"the cost has the part {part!r}; give a whole number or")


def test_a_name_that_is_no_size_is_refused_where_the_cost_is_computed():
    with pytest.raises(GradbenchError, match="'sample', which is neither a hyper-parameter nor"):
        Cost(Formula("sample")).evaluate(L=1, D=1, n=1, samples=2)


@pytest.mark.slow
def test_the_package_evaluates_no_text():
    calls = [
        f"{path.name}, line {node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "eval"
    ]
    assert not calls
