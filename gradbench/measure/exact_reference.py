"""The exact gradient in float64, checked by a second route and by finite differences."""

from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gradbench.core.compiling import compile_by_work
from gradbench.core.contract import Batch, Model, Params
from gradbench.core.devices import on_host, to_host
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import check_hash, checked, refuse_traced
from gradbench.core.platform import check_platform
from gradbench.core.precision import doubled, float64
from gradbench.core.run import batch_size
from gradbench.exact.routes import Route, find_route, route_of
from gradbench.exact.size import MEMORY, fits, path_units, refuse_large
from gradbench.measure.reference_types import Reference
from gradbench.models.structure import has_latent_weights

_SECOND_ROUTE = 1 << 24  # paths x examples that the second route may look at
_TOLERANCE = 1e-9  # relative difference of the two routes
_FLOOR = 1e-5  # of the loss and of the whole gradient, which a layer's difference is relative to


def exact_gradient(model: Model, params: Params, batch: Batch, memory: int = MEMORY) -> Reference:
    """Return the exact gradient in float64, whatever the precision of the caller.

    It comes by the exact route of the model, see ``gradbench.exact.route_of``. It is checked by a
    second route (brute force, on as many examples as that can be done for) and by a central finite
    difference, along the gradient and along a fixed direction, relative to its norm.

    Args:
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: its parameters.
        batch: examples along the first axis of its leaves.
        memory: bytes that the enumeration may take.

    Raises:
        GradbenchError: NaN or infinite parameters, data, loss or gradient; targets or shapes that
            do not fit; a model too large to enumerate; two routes that differ by more than 1e-9; or
            a platform that computes wrong values.
    """
    check_values(model, params, batch)
    check_platform()
    with float64(), on_host():
        params, batch = to_host(doubled((params, batch)))
        route = route_of(model)
        refuse_large(route.size(model, params, batch), params, batch, memory)
        value, gradient = _value_and_gradient(route, model, params, batch)
        if not np.isfinite(_flat((value, gradient))).all():
            raise GradbenchError(
                "the exact loss or its gradient is not finite; check the objective at all states "
                "that the units can take"
            )
        second = find_route(route.second or "brute_force")
        difference = _second_route(model, params, batch)
        agreement = {
            second.name.replace("_", " "): difference,
            "finite difference": _finite_difference(route, model, params, batch, gradient),
        }
    if (difference or 0) > _TOLERANCE:
        raise GradbenchError(
            f"the two routes to the exact gradient differ by {difference:.1e}; "
            "check that layers and objective are deterministic functions of their arguments"
        )
    return Reference(float(value), jax.tree.map(np.asarray, gradient), route.name, agreement)


def check_values(model: Model, params: Params, batch: Batch) -> None:
    """Refuse parameters and data that are not finite, and what the model itself refuses.

    Raises:
        GradbenchError: see ``gradbench.core.inputs.checked``; or a model without a hash.
    """
    refuse_traced("reference", params, batch)
    checked(model, params, batch, finite=True, differentiated=True, own=True)
    if has_latent_weights(model):
        model.warn_outside(params)
    check_hash(model)


def _value_and_gradient(route: Route, model: Model, params: Params, batch: Batch) -> Any:
    return _compiled(route.size(model, params, batch).work, route, model, params, batch)


@partial(compile_by_work, static_argnums=(0, 1))
def _compiled(route: Route, model: Model, params: Params, batch: Batch) -> Any:
    return jax.value_and_grad(partial(route, model))(params, batch)


def _second_route(model: Model, params: Params, batch: Batch) -> float | None:
    """Return the largest difference of the two routes over the layers, None if there is but one.

    It is relative to the norm of the layer's gradient, or to 1e-5 of the loss and of the norm of
    the whole gradient, where that is larger.
    """
    first = route_of(model)
    if first.second is None:
        return None
    second = find_route(first.second)
    examples = _affordable(second, model, params, batch)
    if examples == 0:
        return None
    batch = jax.tree.map(lambda leaf: leaf[:examples], batch)
    (value, one), (_, two) = (
        _value_and_gradient(route, model, params, batch) for route in (first, second)
    )
    # The gradient of a layer may vanish; what is left of it is rounding.
    floor = _FLOOR * (abs(float(value)) + np.linalg.norm(_flat(one))) + np.finfo(float).tiny
    differences = [
        np.linalg.norm(_flat(a) - _flat(b)) / max(np.linalg.norm(_flat(a)), floor)
        for a, b in zip(one, two, strict=True)
        if jax.tree.leaves(a)
    ]
    return float(max(differences))


def _affordable(route: Route, model: Model, params: Params, batch: Batch) -> int:
    """Return how many examples a second route can look at: by its paths, or by its own size."""
    examples = batch_size(batch)
    if route.name == "brute_force":
        return min(examples, _SECOND_ROUTE >> path_units(model, params, batch))
    return examples if fits(route.size(model, params, batch), params) else 0


def _flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


_STEPS = (1e-2, 1e-3, 1e-4, 1e-5)


def _finite_difference(
    route: Route, model: Model, params: Params, batch: Batch, gradient: Params
) -> float:
    """Return the relative difference to the five-point central difference of the best step.

    That is the step whose neighbour in ``_STEPS`` agrees best with it; the gradient is not looked
    at. Large steps cross the kinks of bounded noises, small ones lose digits.
    """
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    exact = jax.flatten_util.ravel_pytree(gradient)[0]
    norm = jnp.linalg.norm(exact)
    fixed = jnp.cos(jnp.arange(1.0, exact.size + 1) ** 2)
    work, worst = route.size(model, params, batch).work, 0.0
    for direction in (exact / jnp.where(norm > 0, norm, 1), fixed / jnp.linalg.norm(fixed)):
        steps = jnp.array([[-2, -1, 1, 2]]) * jnp.array(_STEPS)[:, None]
        points = flat + steps.reshape(-1, 1) * direction
        many = jax.vmap(unravel)(points)
        values = _values(len(points) * work, route, model, many, batch).reshape(-1, 4)
        slopes = (values @ jnp.array([1.0, -8, 8, -1])) / (12 * jnp.array(_STEPS))
        best = slopes[jnp.argmin(jnp.abs(jnp.diff(slopes))) + 1]
        worst = max(worst, float(jnp.abs(best - exact @ direction) / jnp.where(norm > 0, norm, 1)))
    return worst


@partial(compile_by_work, static_argnums=(0, 1))
def _values(route: Route, model: Model, params: Params, batch: Batch) -> Array:
    return jax.lax.map(lambda point: route(model, point, batch), params)
