"""Errors of gradients along runs of training, against the exact gradient."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Loss, Params, scalar_of
from gradbench.core.errors import GradbenchError
from gradbench.core.precision import float64
from gradbench.core.pytrees import layer_vectors
from gradbench.results import runs
from gradbench.results.store import Results
from gradbench.suites.instance import estimator
from gradbench.suites.training.group import Group
from gradbench.suites.training.stored import load, restored

_FIT = 200  # steps that learned parts are adapted for along a run that is not their own
Path = Literal["own", "exact"]


def measure_errors(results: Results, group: Group, path: Path, along: Group, draws: int) -> None:
    """Measure an estimator along stored runs, and store squared bias and variance per layer.

    Args:
        results: the directory of results.
        group: the runs of the estimator.
        path: "own" along these, "exact" along those with the exact gradient.
        along: the runs whose parameters are taken.
        draws: how many draws at each of them.

    Raises:
        GradbenchError: the runs are not stored.
    """
    identity = group.identity | {"phase": path, "along": runs.identifier(along.identity)}
    identity |= {"draws": draws, "examples": group.plan.examples}
    if (found := load(results, "errors", identity)) is not None and found.done:
        return
    stored = runs.load(results, "runs", along.identity)
    if stored is None or not stored.done:
        raise GradbenchError("the runs to measure along are not finished; run again")
    start = along.begin(jnp.zeros(len(along.lanes)))
    batch = jax.tree.map(lambda leaf: leaf[: group.plan.examples], group.built.data)
    keys = group.stacked(lambda built: built.key("errors"))
    exact, loss = estimator("exact", group.built.network), group.loss
    rows = []
    for k, step in enumerate(along.kept):
        params, learned = restored(stored.arrays, f"kept/{k}", (start.params, start.learned))
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
        if path != "own":
            learned = _adapted(loss, params, own, batch) if hasattr(loss, "adapt") else ()
        truth = _exact_gradients(exact, params, own, batch)
        rows.append(errors_of(loss, draws, params, learned, own, truth, batch))
    ended = stored.arrays["diverged"]
    late = (ended >= 0) & (np.asarray(along.kept)[:, None] >= ended)
    arrays: dict[str, Any] = {
        name: np.where(late[..., None], np.nan, np.stack([np.asarray(row[name]) for row in rows]))
        for name in ("bias2", "variance", "norm2")
    }
    arrays["steps"] = along.kept
    runs.save(results, "errors", identity, arrays, group.plan.steps, True)


@partial(jax.jit, static_argnums=0)
def _exact_gradients(exact: Loss, params: Params, keys: Array, batch: Batch) -> Params:
    """Return the exact gradient of each run; one after the other, as each takes memory."""
    return jax.lax.map(lambda own: jax.grad(exact)(*own, batch), (params, keys))


@partial(jax.jit, static_argnums=0)
def _adapted(loss: Any, params: Params, keys: Array, batch: Batch) -> Any:
    def one(params: Params, key: Array) -> Any:
        def step(state: Any, key: Array) -> tuple[Any, None]:
            return loss.adapt(state, params, key, batch), None

        keys = jax.random.split(jax.random.fold_in(key, _FIT), _FIT)
        return jax.lax.scan(step, loss.init(params, batch), keys)[0]

    return jax.vmap(one)(params, keys)


def errors_of(
    loss: Any, draws: int, params: Params, learned: Any, keys: Array, truth: Params, batch: Batch
) -> dict[str, Float[Array, "runs layers"]]:
    """Return the squared bias, the variance and the squared norm of gradients per layer, of runs.

    Draws are made in the precision of ``params``, and their statistics in float64.

    Args:
        loss: the estimator.
        draws: how many draws of each run, at least 2.
        params: the parameters of each run along the first axis of their leaves.
        learned: what the estimator has learned, likewise; ``()`` if it learns nothing.
        keys: the keys [runs] of the draws.
        truth: the exact gradients, with the structure of ``params``.
        batch: the examples, the same for all runs.

    Returns:
        "bias2", |E g - G|^2 de-biased for the noise of the mean; "variance", tr Cov g; and "norm2",
        |G|^2.
    """
    with float64():
        return _errors(loss, draws, params, learned, keys, truth, batch)


@partial(jax.jit, static_argnums=(0, 1))
def _errors(
    loss: Any, draws: int, params: Params, learned: Any, keys: Array, truth: Params, batch: Batch
) -> dict[str, Float[Array, "runs layers"]]:
    def one(params: Params, learned: Any, key: Array, truth: Params) -> dict[str, Array]:
        def objective(params: Params, key: Array) -> Array:
            if hasattr(loss, "adapt"):
                return scalar_of(loss.loss(params, key, batch, learned))
            return scalar_of(loss(params, key, batch))

        def step(sums: Any, key: Array) -> tuple[Any, None]:
            drawn = _doubled(jax.grad(objective)(params, key))
            error = jax.tree.map(jnp.subtract, drawn, truth)
            added = (error, jax.tree.map(jnp.square, error))
            return jax.tree.map(jnp.add, sums, added), None

        zero = jax.tree.map(jnp.zeros_like, truth)
        sums, _ = jax.lax.scan(step, (zero, zero), jax.random.split(key, draws))
        total, squares = map(layer_vectors, sums)
        found: dict[str, list[Array]] = {"bias2": [], "variance": [], "norm2": []}
        for first, second, exact in zip(total, squares, layer_vectors(truth), strict=True):
            mean = first / draws
            variance = jnp.sum(second - draws * mean**2) / (draws - 1)
            found["bias2"].append(jnp.sum(mean**2) - variance / draws)
            found["variance"].append(jnp.maximum(variance, 0))
            found["norm2"].append(jnp.sum(exact**2))
        return {name: jnp.stack(values) for name, values in found.items()}

    return jax.vmap(one)(params, learned, keys, _doubled(truth))


def _doubled(tree: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)


OF_ESTIMATORS = (_adapted, _errors)  # programs that each estimator has of its own
