"""The expected loss by enumeration: recursion over layers, sums over paths and over weights."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.arguments import limit
from gradbench.core.contract import Batch, Example, Loss, Model, Params
from gradbench.core.dependence import depends_on
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import checked, is_finite, not_finite
from gradbench.core.modules import is_key_array
from gradbench.core.noise import get_noise
from gradbench.core.pytrees import closed, real_type
from gradbench.core.run import batch_size, run_at_states, run_model
from gradbench.exact.routes import ROUTES, Route, route_of
from gradbench.exact.size import (
    MEMORY,
    classes_of,
    closed_form_size,
    paths_size,
    recursion_size,
    refuse_large,
)
from gradbench.exact.states import (
    all_states,
    path_probability,
    state_probabilities,
    states_of_path,
)
from gradbench.exact.sums import expectation_of, expected_given, map_rows, sum_numbered
from gradbench.models.layer import axes
from gradbench.models.structure import LatentWeights, Layered, has_latent_weights, is_layered


def expected_loss(
    model: Model, params: Params, batch: Batch, memory: int = MEMORY
) -> Float[Array, ""]:
    """Return the exact expected loss of a model, mean over the batch, by its exact route.

    An ``SBN`` goes by the layer recursion, or by the closed form of an objective that knows its
    expectation; a kind of model may bring a route of its own; any other model is summed over all
    paths of its states.

    Raises:
        GradbenchError: a model, parameters or a batch that do not fit each other; a model that
            draws from keys among its parameters; NaN or infinity
            in parameters, batch or result, where they are known; an enumeration that would take
            more than ``memory`` bytes, or more than ``gradbench.exact.size.WORK`` operations.
    """
    memory = limit("memory", memory)
    params, examples, *_ = checked(model, params, batch, finite=True)
    if _draws_keys(model, params, jax.tree.map(lambda leaf: leaf[0], examples)):
        raise GradbenchError(
            "the model draws from keys among its parameters, as dropout does, so that its expected "
            "loss is no sum over states; take keys from the batch, one for each example"
        )
    route = route_of(model)
    refuse_large(route.size(model, params, batch), params, batch, memory)
    value = route(model, params, batch)
    if not is_finite(value):
        raise not_finite("expected loss")
    return value


def _draws_keys(model: Model, params: Params, example: Example) -> bool:
    """Return whether the objective or a pre-activation depends on keys among the parameters."""
    leaves, form = jax.tree.flatten(closed(params))
    places = [k for k, leaf in enumerate(leaves) if is_key_array(leaf)]
    if not places:
        return False

    def f(keys: list[Array]) -> Any:
        own = dict(zip(places, keys, strict=True))
        whole = jax.tree.unflatten(form, [own.get(k, leaf) for k, leaf in enumerate(leaves)])
        run = run_model(model, whole, example, lambda site, a: a)
        return run.f, run.a

    keys = [leaves[k] for k in places]
    return any(
        depends_on(0, lambda key, k=k: f([*keys[:k], key, *keys[k + 1 :]]), key)
        for k, key in enumerate(keys)
    )


def recursion(model: Layered, params: Params, batch: Batch) -> Float[Array, ""]:
    """Return the expected loss of a chain, mean over the batch, by recursion over its layers.

    From the top down, the expected sum of the objective's terms above follows for all states of a
    layer from that for all states of the next one.

    Raises:
        GradbenchError: a model that is no chain or breaks the contract, or parameters and a batch
            that do not fit it.
    """
    params = checked(model, params, batch).params
    if not is_layered(model):
        raise _other_route("recursion", "a chain of layers", model)
    return _recursion(model, params, batch)


def _recursion(model: Layered, params: Params, batch: Batch) -> Float[Array, ""]:
    inputs, targets = batch
    term = model.term and partial(model.term, params)
    a = jax.vmap(partial(model.layers[0], params[0]))(inputs)
    outputs = [a.shape[1:], *(axes(layer.outputs) for layer in model.layers[1:])]
    states = [all_states(math.prod(shape), a.dtype).reshape(-1, *shape) for shape in outputs]

    column = jnp.zeros(len(a), int)  # of an example, in the table of what is expected of each state
    if term:
        table = jnp.zeros((len(states[-1]), 1), a.dtype)
    else:
        classes = classes_of(model, batch)
        few = classes is not None and classes < len(a)  # then examples of a class share a column
        column, columns = (targets, jnp.arange(classes)) if few else (jnp.arange(len(a)), targets)
        objective = jax.vmap(partial(model.objective, params[-1]), (None, 0))
        table = map_rows(lambda x: objective(model.encode(x), columns), states[-1])

    for k in range(len(model.layers) - 1, 0, -1):
        layer, theta, noise = model.layers[k], params[k], get_noise(model.layers[k].noise)

        def below(x, k=k, layer=layer, theta=theta, noise=noise, above=states[k], table=table):
            a = layer(theta, model.encode(x))
            if not term:
                return expected_given(noise, a.ravel(), table)
            f = jax.vmap(partial(term, k, noise, x, a))(above) + table[:, 0]
            return expectation_of(state_probabilities(noise, a.ravel()), f)[None]

        table = map_rows(below, states[k - 1])

    noise = get_noise(model.layers[0].noise)

    def example(a, f, *leaves):
        if term:
            own = jax.tree.unflatten(form, leaves)
            f = f + jax.vmap(partial(term, 0, noise, own, a))(states[0])
        return expectation_of(state_probabilities(noise, a.ravel()), f)

    leaves, form = jax.tree.flatten(tuple(batch))
    return jnp.mean(map_rows(example, a, table.T[column], *leaves))


def closed_form(model: Layered, params: Params, batch: Batch) -> Float[Array, ""]:
    """Return the expected loss of a single layer, by an objective that knows it.

    It is the mean over the batch. The objective offers ``expected(theta, p, states, target)``, p
    the probabilities of +1.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    params = checked(model, params, batch).params
    if not (is_layered(model) and len(model.layers) == 1 and hasattr(model.objective, "expected")):
        kind = "one layer under an objective that knows its expectation"
        raise _other_route("closed_form", kind, model)
    return _closed_form(model, params, batch)


def _closed_form(model: Layered, params: Params, batch: Batch) -> Float[Array, ""]:
    (layer,) = model.layers
    noise = get_noise(layer.noise)

    def expected(x: Array, target: Array) -> Array:
        p = noise.cdf(layer(params[0], x))
        return model.objective.expected(params[-1], p, model.states, target)

    return jnp.mean(jax.vmap(expected)(*batch))


def brute_force(model: Model, params: Params, batch: Batch) -> Float[Array, ""]:
    """Return the expected loss of any model, by a sum over all paths of its states.

    It is the mean over the batch. With binary weights over stochastic activations these are all
    paths of both.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    if has_latent_weights(model) and model.inner_model is not None:
        model = model.with_activations(partial(_exactly, brute_force))
    return _over_paths(model, params, batch)


def over_weights(model: LatentWeights, params: Params, batch: Batch) -> Float[Array, ""]:
    """Return the expected loss by a sum over all binary weights; inside, the model's own route.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    if not has_latent_weights(model) or model.inner_model is None:
        kind = "binary weights over stochastic activations"
        raise _other_route("over_weights", kind, model)
    activations = partial(_exactly, route_of(model.inner_model))
    return _over_paths(model.with_activations(activations), params, batch)


def _other_route(name: str, kind: str, model: Any) -> GradbenchError:
    """Return the error for a model that a route is not made for."""
    return GradbenchError(
        f"{name}() is for {kind}, and the model is of type {type(model).__name__}; call "
        "expected_loss(), which takes the route of the model"
    )


def _exactly(route: Any, model: Model) -> Loss:
    """Return the exact expectation as a loss. The caller has checked the size of the enumeration.

    ``route(model, params, batch)`` is the expected loss.
    """
    return lambda params, key, batch: route(model, params, batch)


def _over_paths(model: Model, params: Params, batch: Batch) -> Float[Array, ""]:
    params, batch, sites, _ = checked(model, params, batch)
    dtype = real_type(params)

    def weighted(number: Array, example: Example) -> Array:
        run = run_at_states(model, params, example, states_of_path(number, sites, dtype))
        probability = path_probability(run)
        return probability * jnp.where(probability > 0, run.f, 0)

    zero = jnp.zeros(batch_size(batch), dtype)
    units = sum(site.size for site in sites)
    return jnp.mean(sum_numbered(zero, weighted, batch, 2**units))


for _route, _public in (
    (Route("recursion", _recursion, recursion_size), recursion),
    (Route("closed_form", _closed_form, closed_form_size), closed_form),
    (Route("over_weights", over_weights, paths_size), over_weights),
    (Route("brute_force", brute_force, paths_size, second=None), brute_force),
):
    ROUTES.add(_route.name, _route, source=_public)
