"""Functions run in numpy give what compiled ones give, primitive by primitive."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy.special import erfinv, gammaln, logsumexp, ndtri

from gradbench.core import numpy_rules
from gradbench.core.inputs import checked, outlines_kept
from gradbench.core.precision import float64
from gradbench.core.run import as_examples
from gradbench.core.uncompiled import by_rows, run_trace
from gradbench.estimators import ESTIMATORS, make_estimator
from gradbench.exact.quadrature import uniform_grid
from gradbench.exact.size import sites_and_type
from gradbench.testing.draws import at_start
from gradbench.testing.problems import problems
from gradbench.testing.rows import _compiled, draws_at, uniforms_of_keys

pytestmark = pytest.mark.usefixtures("float64")

ROWS = 7


def pad(low, high, inner):
    return lambda v, x: lax.pad(x[:, 0] * v[0], v[1], [(low, high, inner)])


def scanned(reverse):
    def f(v, x):
        def step(carry, row):
            return carry + v[0] * row, (jnp.sum(row), carry)

        return lax.scan(step, jnp.zeros(4), x, reverse=reverse)

    return f


def folded(x):
    return jax.random.fold_in(jax.random.key(5), (1e3 * x[0, 0]).astype(int))


def many(x):
    return jax.random.split(folded(x), 4)


# Functions of a vector that all rows share, and of a matrix of each row.
FUNCTIONS = {
    "arithmetic": lambda v, x: (x + v) * x / (2 + v) - x % v,
    "whole numbers": lambda v, x: (jnp.arange(4) // 3, x.astype(int) // 2, -x.astype(int) ^ 3),
    "powers": lambda v, x: (x**2, x**3, x**-1, x**-2, jnp.abs(x) ** v, lax.square(x)),
    "signs": lambda v, x: (jnp.abs(x), -x, jnp.sign(x), jnp.floor(x), jnp.ceil(x)),
    "exponentials": lambda v, x: (
        jnp.exp(x),
        jnp.expm1(x),
        jnp.log(v),
        jnp.log1p(x**2),
        jnp.sqrt(v),
        lax.rsqrt(x**2 + 1),
    ),
    "circular": lambda v, x: (jnp.sin(x), jnp.cos(x), jnp.tan(x), jnp.arctan2(x, v)),
    "hyperbolic": lambda v, x: (jnp.tanh(x), jnp.sinh(x), jnp.cosh(x), jax.nn.sigmoid(x)),
    "special": lambda v, x: (
        lax.erf(x),
        lax.erfc(x),
        erfinv(jnp.tanh(x)),
        gammaln(x),
        ndtri(jax.nn.sigmoid(x)),
        jax.nn.log_sigmoid(50 * x),
    ),
    "comparisons": lambda v, x: (x < v, x <= v, x > v, x >= v, x == x.T, x != v),
    "logic": lambda v, x: (
        (x > 0) & (v > 1),
        (x > 0) | (x < v),
        ~(x > 0) ^ (x > 1),
        jnp.isfinite(x / jnp.where(x > 0, x, 0)),
    ),
    "extrema": lambda v, x: (jnp.maximum(x, v), jnp.minimum(x, 0.5), jnp.clip(x, -0.5, v)),
    "selections": lambda v, x: (
        jnp.where(x > v, x, 0),
        jnp.where(x[0, 0] > 0, x, v),
        lax.select_n((x > 0).astype(int) + (x > 1), x, -x, 2 * x),
        lax.clamp(x[0, 0], x, x[0, 0] + v[1]),
    ),
    "bits": lambda v, x: (
        (jnp.abs(x) * 1e6).astype(jnp.uint32) << 7,
        (jnp.abs(x) * 1e6).astype(jnp.uint32) >> 3,
        (x * 1e6).astype(int) >> 3,
    ),
    "keys": lambda v, x: (
        jax.random.key_data(jax.random.split(folded(x), (2, 3))),
        jax.random.key_data(jax.vmap(jax.random.fold_in)(many(x), jnp.arange(-2, 2))),
        jax.random.key_data(jax.random.key((x[0, 0] * 1e18).astype(int))),
        jax.random.key_data(jax.random.key((x[0, 0] * 1e9).astype(jnp.int32))),
        jax.random.key_data(jnp.where(x[0] > 0, many(x), many(x + 1))[::2].reshape(1, 2)),
        jax.random.key_data(jax.random.wrap_key_data(jnp.arange(2, dtype=jnp.uint32))),
    ),
    "random numbers": lambda v, x: (
        *(jax.random.bits(folded(x), (2, 3), f"uint{n}") for n in (8, 16, 32, 64)),
        jax.random.bits(folded(x)),
        jax.vmap(lambda key: jax.random.normal(key, 3))(many(x)),
        jax.random.uniform(folded(x), (2,), jnp.float32),
        jax.random.gamma(folded(x), 2.0),  # JAX does it
        jax.random.permutation(folded(x), 5),
        jax.random.uniform(jax.random.key(3), (2,)) + v[0],
        jax.random.uniform(jax.random.key(3, impl="rbg"), (2,)) + v[0],
        lax.bitcast_convert_type(v.astype(jnp.float32), jnp.uint32),
    ),
    "sums": lambda v, x: (
        jnp.sum(x),
        jnp.sum(x, 0),
        jnp.mean(x, 1),
        jnp.prod(x, 1),
        jnp.max(x),
        jnp.min(x, 0),
        jnp.all(x > -2, 1),
        jnp.any(x > 1, 0),
        jnp.sum(x > 0),
        logsumexp(x, 1),
    ),
    "running": lambda v, x: (
        jnp.cumsum(x, 0),
        jnp.cumprod(x, 1),
        lax.cumsum(x, 1, reverse=True),
        jnp.flip(x, 1),
    ),
    "shapes": lambda v, x: (
        x.T,
        x.reshape(2, 8),
        lax.reshape(x[:2], (2, 4), (1, 0)),
        x[:, None],
        x[1:3, ::2],
        x[-1, 0],
        jnp.moveaxis(x.reshape(2, 2, 4), 0, 2),
        jnp.broadcast_to(x[0], (3, 4)),
        jnp.full(3, v[0]),
        jnp.squeeze(x[:1], 0),
        lax.expand_dims(v, [1]),
    ),
    "parts": lambda v, x: (
        jnp.concatenate([x, v[None], v[None]], 0),
        jnp.concatenate([v, x[0]]),
        jnp.stack([v, x[0], x[1]], 1),
        jnp.split(x, [1, 3], 1),
        *x,
        *jnp.unstack(x, axis=1),
    ),
    "products": lambda v, x: (
        x @ v,
        v @ x,
        x @ x,
        v @ v,
        jnp.vdot(x[0], v),
        jnp.einsum("ij,kj->ik", x, x[:2]),
        jnp.einsum("bij,bj->bi", x.reshape(2, 2, 4), x[:2]),
        jnp.outer(v, x[0]),
        jnp.matmul(x.astype(jnp.float32), x.astype(jnp.float32).T, preferred_element_type=float),
    ),
    "numbers": lambda v, x: (jnp.arange(4) + x, lax.broadcasted_iota(int, (2, 3), 1)),
    "types": lambda v, x: (x.astype(jnp.float32), (x > 0).astype(float), x.astype(int)),
    "pad": pad(1, 2, 0),
    "pad between": pad(2, 1, 3),
    "cut": pad(-1, -1, 0),
    "cut and pad between": pad(-2, 3, 2),
    "pad and cut between": pad(2, -4, 1),
    "scan": scanned(False),
    "reversed scan": scanned(True),
    "gradient": lambda v, x: jax.grad(
        lambda x: jnp.sum(jnp.tanh(x @ v) ** 3) + jnp.max(x[:, ::2]) + jnp.pad(x, 1).sum()
    )(x),
    "derivative by rule": lambda v, x: jax.grad(lambda x: jnp.sum(jax.nn.relu(x * v)))(x),
    "checkpoint": lambda v, x: jax.grad(lambda x: jax.checkpoint(jnp.sum)(jnp.sin(x)))(x),
    "map": lambda v, x: jax.vmap(lambda row: jnp.sum(row * v) * row)(x),
    "constant": lambda v, x: jnp.sum(v) * jnp.eye(2),
    # Without a rule: JAX does them.
    "sort": lambda v, x: (jnp.sort(x, 1), jnp.argmax(x, 1), jnp.sort(v)),
    "gather": lambda v, x: (x[(x[0] > 0).astype(int)], v[jnp.argmax(x[0])]),
    "scatter": lambda v, x: x.at[jnp.argmax(x[:, 0])].add(v),
    "loop": lambda v, x: lax.while_loop(lambda y: jnp.sum(y) < 100, lambda y: 2 * y + 1, x**2),
    "branches": lambda v, x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
}


def inputs():
    random = np.random.default_rng(0)
    return random.uniform(0.5, 2, 4), 1.3 * random.standard_normal((ROWS, 4, 4))


def one(name, v, x):
    return FUNCTIONS[name](v, x)


@pytest.fixture(scope="module")
def compiled():
    """What JAX gives for all functions, by one program."""
    with float64():
        v, x = inputs()
        every = {name: jax.vmap(f, (None, 0)) for name, f in FUNCTIONS.items()}
        return jax.jit(lambda v, x: {name: f(v, x) for name, f in every.items()})(v, x)


def assert_same(mine, theirs):
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_in_numpy_are_those_of_vmap(name, compiled):
    v, x = inputs()
    assert_same(by_rows(one, (name,), v, x), compiled[name])


@pytest.mark.parametrize(
    "name", ["arithmetic", "parts", "products", "cut", "scan", "gradient", "keys", "random numbers"]
)
def test_a_trace_of_arrays_without_rows_gives_the_same(name, compiled):
    v, x = inputs()
    first = jax.tree.map(lambda leaf: leaf[0], compiled[name])
    assert_same(run_trace(jax.jit(partial(one, name)).trace(v, x[0]), v, x[0]), first)


def primitives(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for inner in jax.tree.leaves(eqn.params, is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def test_every_rule_is_tested():
    v, x = inputs()
    met = {
        name for f in FUNCTIONS.values() for name in primitives(jax.make_jaxpr(f)(v, x[0]).jaxpr)
    }
    rules = {*numpy_rules._ELEMENTWISE, *numpy_rules._REDUCTIONS, *numpy_rules._RULES}
    assert rules - met <= {"stack", "unstack"}  # which not all releases of JAX have


def test_numbers_that_are_not_finite_are_those_of_compiled_code():
    x = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan, 800.0, -800.0]])

    def f(x):
        return (
            jnp.log(x),
            jnp.exp(x),
            1 / x,
            jax.nn.sigmoid(x),
            jnp.log1p(-jnp.exp(x)),
            jnp.maximum(x, 0),
            jnp.minimum(x, 0),
            jnp.where(x > 0, x, 0) * 0,
            jnp.sign(x),
            x[0] < x,
        )

    mine = by_rows(lambda shared, x: f(x), (), (), x)
    assert_same(mine, jax.jit(jax.vmap(f))(x))


def test_nothing_is_compiled(compilations):
    v, x = inputs()
    by_rows(lambda v, x: jnp.sin(x @ v), (), v, x)
    before = len(compilations)
    by_rows(lambda v, x: jnp.cumsum(jnp.exp(x @ v)), (), v, x)
    assert len(compilations) == before


def test_random_keys_may_be_rows():
    keys = jax.random.split(jax.random.key(3), ROWS)

    def f(shared, key):
        own = jax.random.fold_in(key, 2)
        return jax.random.uniform(own, (3,)), own

    mine, own = by_rows(f, (), (), keys)
    assert_same((mine,), (jax.vmap(lambda key: f((), key)[0])(keys),))
    folded = jax.vmap(partial(jax.random.fold_in, data=2))(keys)
    assert np.array_equal(jax.random.key_data(own), jax.random.key_data(folded))


# ------------------------------------------------------------------------------- of estimators


def assert_draws_are_compiled_ones(name, problem):
    params, batch = problem.params, problem.batches["any"]
    loss = at_start(make_estimator(name, problem.model), params, batch)
    keys = jax.random.split(jax.random.key(0), 16)
    u, examples = uniforms_of_keys(loss.model, loss.streams, False, params, keys, batch)
    rows = jax.tree.map(lambda leaf: leaf[:, 0], (u, examples))
    mine = draws_at(loss, params, *rows)
    np.testing.assert_allclose(mine, _compiled(loss, params, rows), rtol=1e-9, atol=1e-9)


def test_draws_in_numpy_are_those_of_compiled_code():
    assert_draws_are_compiled_ones("reinforce", problems(0)[0])


def special(name):
    entry = ESTIMATORS[name]
    return bool(entry.needs) or name in ("exact", "reinforce_leave_one_out")


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in sorted(ESTIMATORS) if not special(n)])
def test_draws_of_every_estimator_in_numpy_are_those_of_compiled_code(name):
    one_layer = ESTIMATORS[name].layers == "one"
    assert_draws_are_compiled_ones(name, problems(0)[0 if one_layer else 3])


@pytest.mark.parametrize("name", ["arm", "concrete"])
def test_grids_in_numpy_are_those_of_compiled_code(name):
    problem = problems(0)[1]
    loss = make_estimator(name, problem.model)
    params, batch = problem.params, problem.batches["any"]
    examples = as_examples(loss.model, jax.random.key(0), batch)
    sites, _ = sites_and_type(loss.model, params, batch)
    at = loss, sites, params, examples, 1 << 17
    (lengths, grid), (others, same) = (uniform_grid(*at, compiled=c) for c in (False, True))
    assert lengths == others
    np.testing.assert_allclose(grid, same, rtol=1e-13)


def test_a_model_is_outlined_once_where_outlines_are_kept():
    runs = []

    def model(params, example, binary):
        runs.append(1)
        return jnp.sum(binary(params * example))

    params, batch = np.ones(2), np.ones((3, 2))
    with outlines_kept():
        first = checked(model, params, batch)
        once = len(runs)
        assert checked(model, params, batch).sites == first.sites
        assert len(runs) == once
        assert checked(model, np.ones(1), batch[:, :1]).sites[0].shape == (1,)
    again = len(runs)
    checked(model, params, batch)
    assert len(runs) > again > once


@pytest.mark.parametrize(
    ("shared", "own", "over", "batch"),
    [
        ((3, 4), (4, 5), ((1,), (0,)), ((), ())),
        ((4, 3), (5, 4), ((0,), (1,)), ((), ())),
        ((2, 3, 4), (4, 3, 6), ((1, 2), (1, 0)), ((), ())),
        ((4,), (4,), ((0,), (0,)), ((), ())),
        ((2, 3), (2, 5), ((), ()), ((0,), (0,))),
        ((3,), (5,), ((), ()), ((), ())),
    ],
)
def test_products_of_rows_with_what_they_share_have_their_axes_in_order(shared, own, over, batch):
    generator = np.random.default_rng(0)
    x, rows = generator.normal(size=shared), generator.normal(size=(7, *own))
    for f in (
        lambda x, row: jax.lax.dot_general(x, row, (over, batch)),
        lambda x, row: jax.lax.dot_general(row, x, (over[::-1], batch[::-1])),
    ):
        found = by_rows(f, (), jnp.asarray(x), rows)
        right = np.stack([f(jnp.asarray(x), jnp.asarray(row)) for row in rows])
        np.testing.assert_allclose(found, right, rtol=1e-6, atol=1e-6)
