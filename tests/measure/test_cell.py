"""The driver: what it checks and fits before it draws, what it refuses, and who uses it."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import precision, small
from stored import assert_one_sentence

import gradbench
from gradbench.core.errors import GradbenchError
from gradbench.core.pytrees import layer_vectors
from gradbench.estimators import make_estimator
from gradbench.estimators.adaptive import Learned, fitted
from gradbench.estimators.registry import evaluations
from gradbench.exact.moments import moments
from gradbench.measure import cell as driver
from gradbench.measure.blocks import Blocks
from gradbench.measure.cell import Cell, prepare

pytestmark = pytest.mark.usefixtures("quick_compilation")

NETWORK, PARAMS, BATCH = small((2, 2, 1), scale=1.0)
KEY, FIT = jax.random.split(jax.random.key(3))
ZERO = jax.tree.map(np.zeros_like, PARAMS)


def prepared(spec):
    return prepare(
        make_estimator(spec, NETWORK), PARAMS, BATCH, key=KEY, fit_key=FIT, name=repr(spec)
    )


@pytest.fixture(autouse=True)
def double():
    with precision(True):
        yield


def test_an_estimator_that_does_not_take_the_model_is_refused_before_it_is_fitted():
    def refused(params, key, batch):
        raise GradbenchError("not for this model")

    def never(*arguments):
        raise AssertionError("fitted or run")

    loss = Learned(NETWORK, lambda params, batch: None, lambda state: refused, never)
    with pytest.raises(GradbenchError, match="not for this model"):
        prepare(loss, PARAMS, BATCH, key=KEY, fit_key=FIT, name="'mine'")


@pytest.mark.slow
def test_learned_parts_are_fitted_with_the_key_of_the_fit_and_frozen():
    spec = "moving_average"
    loss = make_estimator(spec, NETWORK)
    cell = prepared(spec)
    assert isinstance(loss, Learned) and not isinstance(cell.loss, Learned)
    draws = [jax.grad(fitted(loss, PARAMS, key, BATCH))(PARAMS, KEY, BATCH) for key in (FIT, KEY)]
    own = jax.grad(cell.loss)(PARAMS, KEY, BATCH)
    same = [all(map(np.array_equal, jax.tree.leaves(own), jax.tree.leaves(draw))) for draw in draws]
    assert same == [True, False]


@pytest.mark.slow
def test_blocks_are_measured_as_they_are_asked_for_and_refused_where_they_are_not_finite(
    monkeypatch,
):
    honest, measured = driver.measure, []

    def measure(*arguments):
        for block in honest(*arguments):
            measured.append(block.index)
            first, *others = block.layers
            wrong = first._replace(mean=first.mean * (np.inf if block.index == 5 else 1.0))
            yield block._replace(layers=(wrong, *others))

    monkeypatch.setattr(driver, "measure", measure)
    cell = prepared("reinforce")._replace(name="'mine' at 'here'", remedy="leave it out")
    blocks = cell.blocks(ZERO, cell.plan(64), range(2, 32))
    assert [next(blocks).index for _ in range(3)] == [2, 3, 4] == measured
    with pytest.raises(GradbenchError) as error:
        next(blocks)
    assert_one_sentence(error, "draws of 'mine' at 'here' are not finite; leave it out")
    with pytest.raises(GradbenchError, match="not finite"):
        cell.measured(ZERO, cell.plan(64))


@pytest.mark.slow
def test_what_is_measured_has_its_constants_moments_and_cost():
    cell = prepared("arm")
    plan = cell.plan(64, (3,))
    exact = moments(cell.loss, PARAMS, BATCH)
    known = cell.exact_moments(1e9)
    for (mean, variance), *both in zip(
        known, layer_vectors(exact.mean), layer_vectors(exact.variance), strict=True
    ):
        assert np.array_equal(mean, both[0]) and np.array_equal(variance, both[1])
    assert cell.exact_moments(0.0) is None
    cost = cell.cost("arm", NETWORK)
    assert cost == {"evaluations": evaluations("arm", [2])}
    found = cell.measured(ZERO, plan, [4, 7], moments=known, cost=cost)
    assert [block.index for block in found.blocks] == [4, 7]
    assert found.meta == {**plan._asdict(), "layer_names": ("layer 1", "output")}
    assert found.moments is known and found.cost is cost


@pytest.mark.slow
def test_moments_of_draws_are_those_of_the_same_draws_in_blocks():
    cell = prepared("reinforce")
    plan = cell.plan(64)._replace(block=16)
    whole = list(cell.blocks(ZERO, plan))
    calls = list(cell.moments(range(16, 64, 16), 8))
    assert len(calls) == 3 and all(len(blocks) == 2 for call in calls for blocks in call)
    for block, (values, *layers) in zip(whole[1:], calls, strict=True):
        assert [part.mean.shape for part in values] == [(1,), (1,)]
        for one, parts in zip(block.layers, layers, strict=True):
            np.testing.assert_allclose(Blocks.stack(parts).mean(), one.mean, rtol=1e-12, atol=1e-14)


def test_a_cast_changes_the_type_of_real_numbers_alone():
    cell = Cell(None, PARAMS, (BATCH[0], np.arange(3)), KEY).cast("float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(cell.params)} == {np.dtype("float32")}
    assert cell.batch[0].dtype == jnp.float32 and cell.batch[1].dtype == np.arange(3).dtype


def test_nobody_else_draws():
    """What makes draws comes from ``measure.draws``, for the driver, ``draws`` and the timing."""
    root = Path(gradbench.__file__).parent
    own = {"draw_block", "measure", "layer_moments", "chunk_of"}
    users = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module == "gradbench.measure.draws"
        and own & {alias.name for alias in node.names}
    }
    assert users == {"measure/cell.py", "measure/sample.py", "measure/timing.py"}
