"""The exact gradient in float64, checked by a second route and by finite differences."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gradbench.core.contract import Batch, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.precision import doubled, float64
from gradbench.core.run import batch_size
from gradbench.exact.enumeration import brute_force, route_of
from gradbench.exact.size import MEMORY, check_size, sites_and_type
from gradbench.measure.reference_types import Reference
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.network import SBN

_SECOND_ROUTE = 1 << 24  # paths x examples that the second route may look at
_TOLERANCE = 1e-9  # relative difference of the two routes
_FLOOR = 1e-5  # of the loss and of the whole gradient, which a layer's difference is relative to


def exact_gradient(model: Model, params: Params, batch: Batch, memory: int = MEMORY) -> Reference:
    """Return the exact gradient in float64, whatever the precision of the caller.

    It is checked by brute force, on as many examples as that can be done for, and by central finite
    differences along the gradient and along a fixed direction, relative to its norm.

    Args:
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: its parameters.
        batch: examples along the first axis of its leaves.
        memory: bytes that the enumeration may take.

    Raises:
        GradbenchError: NaN or infinite parameters, data, loss or gradient; targets or shapes that
            do not fit; a model too large to enumerate; or two routes that differ by more than 1e-9.
    """
    check_values(model, params, batch)
    with float64():
        params, batch = doubled((params, batch))
        check_size(model, params, batch, memory)
        route = route_of(model)
        value, gradient = _value_and_gradient(route, model, params, batch)
        if not np.isfinite(_flat((value, gradient))).all():
            raise GradbenchError(
                "the exact loss or its gradient is not finite; check the objective at all states "
                "that the units can take"
            )
        agreement = {
            "brute force": _second_route(model, params, batch),
            "finite difference": _finite_difference(route, model, params, batch, gradient),
        }
    if (agreement["brute force"] or 0) > _TOLERANCE:
        raise GradbenchError(
            f"the two routes to the exact gradient differ by {agreement['brute force']:.1e}; "
            "check that layers and objective are deterministic functions of their arguments"
        )
    return Reference(float(value), jax.tree.map(np.asarray, gradient), route.__name__, agreement)


def check_values(model: Model, params: Params, batch: Batch) -> None:
    """Refuse parameters and data that are not finite, and what the model itself refuses.

    Raises:
        GradbenchError: the sentence names the entry and the value.
    """
    for name, tree in (("parameters", params), ("data", batch)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            array = np.asarray(leaf)
            if name == "parameters" and not np.issubdtype(array.dtype, np.floating):
                raise GradbenchError(
                    f"the parameters hold {array.dtype} at {jax.tree_util.keystr(path)}; "
                    "give real numbers"
                )
            if not np.all(np.isfinite(array)):
                wrong = array[~np.isfinite(array)][0]
                raise GradbenchError(
                    f"the {name} hold {wrong} at {jax.tree_util.keystr(path)}; give finite numbers"
                )
    if isinstance(model, SBN | BinaryWeights):
        model.check(params, batch)
    if isinstance(model, BinaryWeights):
        model.warn_outside(params)
    try:
        hash(model)
    except TypeError:
        raise GradbenchError(
            f"the model of type {type(model).__name__} has no hash, by which compiled functions "
            "are cached; give a function or a frozen dataclass"
        ) from None


@partial(jax.jit, static_argnums=(0, 1))
def _value_and_gradient(route: Callable, model: Model, params: Params, batch: Batch) -> Any:
    return jax.value_and_grad(partial(route, model))(params, batch)


def _second_route(model: Model, params: Params, batch: Batch) -> float | None:
    """Return the largest difference of the two routes over the layers, None if there is but one.

    It is relative to the norm of the layer's gradient, or to 1e-5 of the loss and of the norm of
    the whole gradient, where that is larger.
    """
    if not isinstance(model, SBN) and route_of(model) is brute_force:
        return None
    sites, _ = sites_and_type(model, params, batch)
    units: int = sum(site.size for site in sites)
    if isinstance(model, BinaryWeights) and isinstance(model.network, SBN):
        units += sum(site.size for site in sites_and_type(model.network, params, batch)[0])
    examples = min(batch_size(batch), _SECOND_ROUTE >> units)
    if examples == 0:
        return None
    batch = jax.tree.map(lambda leaf: leaf[:examples], batch)
    (value, one), (_, two) = (
        _value_and_gradient(route, model, params, batch) for route in (route_of(model), brute_force)
    )
    # The gradient of a layer may vanish; what is left of it is rounding.
    floor = _FLOOR * (abs(float(value)) + np.linalg.norm(_flat(one))) + np.finfo(float).tiny
    differences = [
        np.linalg.norm(_flat(a) - _flat(b)) / max(np.linalg.norm(_flat(a)), floor)
        for a, b in zip(one, two, strict=True)
        if jax.tree.leaves(a)
    ]
    return float(max(differences))


def _flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


_STEPS = (1e-2, 1e-3, 1e-4, 1e-5)


def _finite_difference(
    route: Callable, model: Model, params: Params, batch: Batch, gradient: Params
) -> float:
    """Return the relative difference to the five-point central difference of the best step.

    That is the step whose neighbour in ``_STEPS`` agrees best with it; the gradient is not looked
    at. Large steps cross the kinks of bounded noises, small ones lose digits.
    """
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    exact = jax.flatten_util.ravel_pytree(gradient)[0]
    norm = jnp.linalg.norm(exact)
    fixed = jnp.cos(jnp.arange(1.0, exact.size + 1) ** 2)
    worst = 0.0
    for direction in (exact / jnp.where(norm > 0, norm, 1), fixed / jnp.linalg.norm(fixed)):
        steps = jnp.array([[-2, -1, 1, 2]]) * jnp.array(_STEPS)[:, None]
        points = flat + steps.reshape(-1, 1) * direction
        values = _values(route, model, jax.vmap(unravel)(points), batch).reshape(-1, 4)
        slopes = (values @ jnp.array([1.0, -8, 8, -1])) / (12 * jnp.array(_STEPS))
        best = slopes[jnp.argmin(jnp.abs(jnp.diff(slopes))) + 1]
        worst = max(worst, float(jnp.abs(best - exact @ direction) / jnp.where(norm > 0, norm, 1)))
    return worst


@partial(jax.jit, static_argnums=(0, 1))
def _values(route: Callable, model: Model, params: Params, batch: Batch) -> Array:
    return jax.lax.map(lambda point: route(model, point, batch), params)
