"""What trained networks are judged by beside their loss, on test examples."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradbench.core.contract import Batch, Params
from gradbench.core.errors import GradbenchError
from gradbench.models.structure import has_latent_weights
from gradbench.results.quantities import Quantity
from gradbench.suites.data import DATA, arguments_of
from gradbench.suites.forms import Data, arguments_read
from gradbench.suites.instance import ProblemInstance

_AT_ONCE = 250  # queries whose distances to all documents are in memory
# Judges parameters [runs, ...], given a key for whatever is drawn.
Judge = Callable[[Params, Array], Float[Array, " runs"]]


def make_judge(built: ProblemInstance, quantity: Quantity) -> Judge | None:
    """Return what judges the trained networks of a problem by a quantity.

    It is None for a quantity that is one of the curves of all such networks.

    Raises:
        GradbenchError: the problem is not one that can be judged by it.
    """
    return _JUDGES[quantity.name](built, quantity.options)


def _precision(built: ProblemInstance, options: Mapping[str, int]) -> Judge:
    """Judge codes by the share of documents of the same class among the nearest ones."""
    data, queries = built.data[0], built.batch[0]
    classes, own = (_classes(built, part) for part in (built.problem.data, built.problem.measured))
    at = options["at"]
    if at > len(data):
        raise GradbenchError(
            f"the result is precision(at={at}) but there are {len(data)} examples to look in; "
            f"give at most precision(at={len(data)})"
        )
    network: Any = built.network
    jax.eval_shape(network.codes, built.shapes(), data[:1])  # refuses what has no codes

    def judge(params: Params, key: Array) -> Array:
        return _precisions(network, at, params, data, classes, queries, own)

    return judge


@partial(jax.jit, static_argnums=(0, 1))
def _precisions(
    network: Any, at: int, params: Params, data: Array, classes: Array, queries: Array, own: Array
) -> Float[Array, " runs"]:
    def one(params: Params) -> Array:
        codes, of = network.codes(params, data), network.codes(params, queries)
        return precision(codes, classes, of, own, at)

    return jax.lax.map(one, params)


def _classes(built: ProblemInstance, part: Data) -> Int[Array, " n"]:
    """Return the classes of the examples, which autoencoders do not have as targets."""
    known = arguments_of(DATA[part.name]).__dataclass_fields__
    try:
        if "targets" in known:
            part = arguments_read(part.name, part.arguments, {"targets": "classes"})
        targets = part.load(built.seed, built.replicate).targets
    except ValueError:  # of Pydantic: its targets are no classes
        targets = np.zeros((1, 1))
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        raise GradbenchError(
            f"the result is a precision but the data set {part.name!r} has no classes; take one of "
            "documents, such as newsgroups or r8, or another result"
        )
    return jnp.asarray(targets)


@partial(jax.jit, static_argnums=4)
def precision(
    codes: Float[Array, "n units"],
    classes: Int[Array, " n"],
    queries: Float[Array, "m units"],
    own: Int[Array, " m"],
    at: int,
) -> Float[Array, ""]:
    """Return the mean share of a query's class among the ``at`` codes of least Hamming distance.

    Of codes at an equal distance any are taken: it is the expected value over their order.

    Args:
        codes: those to look in, in {-1, +1}.
        classes: their classes.
        queries: the codes to look for.
        own: their classes.
        at: how many are taken, at most n.
    """
    units = codes.shape[1]

    def of_one(query: Array, own: Array) -> Array:
        distance = jnp.round((units - codes @ query) / 2).astype(jnp.int32)
        same = classes == own

        def halve(_: int, limits: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = limits
            middle = (low + high) // 2
            enough = jnp.sum(distance <= middle) >= at
            return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

        # The least radius that has ``at`` codes: those on its edge fill what is left.
        limits = (jnp.zeros((), jnp.int32), jnp.full((), units, jnp.int32))
        radius, _ = jax.lax.fori_loop(0, units.bit_length() + 1, halve, limits)
        inside, edge = distance < radius, distance == radius
        left = (at - jnp.sum(inside)) / jnp.sum(edge)
        return (jnp.sum(inside & same) + left * jnp.sum(edge & same)) / at

    found = jax.lax.map(lambda pair: of_one(*pair), (queries, own), batch_size=_AT_ONCE)
    return jnp.mean(found)


def _bound(built: ProblemInstance, options: Mapping[str, int]) -> Judge:
    """Judge autoencoders by the bound of -log p of test examples, with many samples."""
    network: Any = built.network
    if has_latent_weights(network) or not hasattr(network, "bound"):
        raise GradbenchError(
            f"the result is a bound but the network is a {type(network).__name__}; take a network "
            "of stochastic units, or another result"
        )

    def judge(params: Params, key: Array) -> Array:
        return _bounds(network, options["samples"], params, built.batch, key)

    return judge


@partial(jax.jit, static_argnums=(0, 1))
def _bounds(
    network: Any, samples: int, params: Params, batch: Batch, key: Array
) -> Float[Array, " runs"]:
    return jax.lax.map(lambda own: jnp.mean(network.bound(own, batch, key, samples)), params)


def _mode_loss(built: ProblemInstance, options: Mapping[str, int]) -> None:
    """Refuse networks without binary weights; of others the loss at the mode is always taken."""
    if not has_latent_weights(built.network):
        raise GradbenchError(
            "the result is mode_loss but the network has no binary weights; add [network.weights], "
            "or leave the result out"
        )


# By the names of ``gradbench.results.quantities``.
_JUDGES: dict[str, Callable[[ProblemInstance, Mapping[str, int]], Judge | None]] = {
    "precision": _precision,
    "bound": _bound,
    "mode_loss": _mode_loss,
}
