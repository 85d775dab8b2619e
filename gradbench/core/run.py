"""Runs of a model on one example, with given or sampled states."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.autodiff import fixed_at_infinity
from gradbench.core.callables import short
from gradbench.core.contract import Batch, Example, Model, Params, Site, Trace, Unit, apart
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.keys import evaluation, trace_state
from gradbench.core.misfits import MISFITS, does_not_run
from gradbench.core.modules import cloned, leaves_of, refuse_changes, unkeyed
from gradbench.core.noise import Noise, get_noise
from gradbench.core.pytrees import closed, opened
from gradbench.core.uniforms import Uniforms


def run_model(
    model: Model, params: Params, example: Example, unit: Unit, given: Sequence[Array] = ()
) -> Trace:
    """Run the model on one example: site k gets ``given[k]``, else ``unit(site, a_k)``.

    Pre-activations of half precision, in which probabilities have two or three digits, become
    float32 for the unit, and its states get the type of the model again. Infinite ones, by which
    units are masked, have the gradient 0.

    Raises:
        GradbenchError: the model calls ``binary`` inside a JAX transformation of its own, or on
            numbers that are not real; it changes its parameters; or it returns a tuple that is not
            the objective and what goes with it.
    """
    params, example = unkeyed(params, example)
    x: list[Array] = []
    a: list[Array] = []
    sites: list[Site] = []
    here = trace_state()

    def binary(pre: Array, noise: str | Noise = "logistic") -> Array:
        if trace_state() != here:
            raise GradbenchError(
                "the model calls binary() inside jit, vmap, scan, cond, grad or checkpoint, where "
                "its noise would be shared or lost; call it once per layer at the top level of the "
                "model, or gradbench.binarize with a key of its own, which works there"
            )
        try:
            pre = jnp.asarray(pre)
        except (TypeError, ValueError) as error:
            raise GradbenchError(
                f"binary() got pre-activations of type {type(pre).__name__}; give an array of real "
                "numbers"
            ) from error
        if not jnp.issubdtype(pre.dtype, jnp.floating):
            raise GradbenchError(
                f"binary() got pre-activations of type {pre.dtype}; give real numbers"
            )
        site = Site(len(sites), pre.shape, get_noise(noise))
        exact = fixed_at_infinity(pre.astype(jnp.promote_types(pre.dtype, jnp.float32)))
        state = given[site.index] if site.index < len(given) else unit(site, exact)
        sites.append(site)
        a.append(exact)
        x.append(state)
        return state.astype(pre.dtype)

    own = opened(params)
    before = leaves_of(own)
    with evaluation():
        f, aux = apart(model(own, example, binary))
    refuse_changes(before, own)
    return Trace(f, tuple(x), tuple(a), tuple(sites), aux)


def run_at_states(model: Model, params: Params, example: Example, x: Sequence[Array]) -> Trace:
    """Run the model with given states, one array for each site.

    Raises:
        GradbenchError: there are more sites than given states; see also ``run_model``.
    """

    def missing(site: Site, a: Array) -> Array:
        raise GradbenchError(f"site {site.index} has no given state; give one per binary() call")

    return run_model(model, params, example, missing, x)


def draw_state(site: Site, a: Array, u: Array) -> Array:
    """Return x = sign(F(a) - u) [...], +1 with probability F(a), at the noise of the ``site``.

    ``a`` and the uniforms ``u`` are of one shape [...]; the same ``u`` gives the same state.
    """
    return jnp.where(u < site.noise.cdf(a), 1, -1).astype(a.dtype)


Coding: TypeAlias = Literal["signs", "bits"]


def coded(x: Array, coding: str) -> Array:
    """Return states -1 and +1 as they are for "signs", as 0 and 1 for "bits".

    Raises:
        GradbenchError: another coding than "signs" and "bits".
    """
    if coding not in get_args(Coding):
        raise GradbenchError(f"coding is {coding!r}; give 'signs' or 'bits'")
    return x if coding == "signs" else (x + 1) / 2


def sampled(
    model: Model, params: Params, u: Uniforms, example: Example, given: Sequence[Array] = ()
) -> Trace:
    """Run the model with ``given`` states [...] of the first sites, then x_k = sign(F(a_k) - u_k).

    ``u`` are the uniforms [...] of each site.

    Raises:
        GradbenchError: see ``run_model``.
    """
    return run_model(
        model, params, example, lambda site, a: draw_state(site, a, u[site.index]), given
    )


def rollout(
    model: Model,
    params: Params,
    example: Example,
    run: Trace,
    k: int,
    x_k: Array,
    u: Uniforms,
) -> Float[Array, ""]:
    """Return f for another state ``x_k`` [...] of site k, states below kept, those above sampled.

    ``run`` is the path whose states are kept, ``u`` are the uniforms [...] of each site. The result
    is constant in the parameters. It is meant as a signal inside ``gradient_term``: elsewhere the
    objective's own gradient would count twice.
    """
    return sampled(model, jax.lax.stop_gradient(params), u, example, (*run.x[:k], x_k)).f


DESCENDANTS = ("shared", "independent", "antithetic")


def branch_noise(descendants: str, u: Sequence[Uniforms]) -> Uniforms:
    """Return the uniforms of the layers above a branch, a state other than the sampled one.

    With "shared" they are those of the sampled path, stream 0: common random numbers, by which the
    two runs differ only where the change of the state makes them. With "independent" they are
    stream 1, with "antithetic" 1 - u of the path. An estimator that offers this choice has
    ``streams=branch_streams(descendants)``.
    """
    if descendants == "independent":
        return u[1]
    return u[0] if descendants == "shared" else tuple(1 - v for v in u[0])


def branch_streams(descendants: str) -> int:
    """Return how many streams of uniforms an estimator with this choice needs.

    Raises:
        GradbenchError: there is no such choice.
    """
    if descendants not in DESCENDANTS:
        raise GradbenchError(
            f"descendants is {descendants!r}; {did_you_mean(descendants, DESCENDANTS)}"
        )
    return 2 if descendants == "independent" else 1


def flip(x: Float[Array, "..."], i: Array) -> Float[Array, "..."]:
    """Return the states ``x`` with unit ``i`` flipped, counted through all axes."""
    return jnp.where(jnp.arange(x.size).reshape(x.shape) == i, -x, x)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Wrong:
    """An objective of a type that JAX does not know, in the place of it."""

    kind: type


def _is_number(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)


class Outline(NamedTuple):
    """The stochastic layers of a model, and whether it returns more than its objective."""

    sites: tuple[Site, ...]
    has_aux: bool


def find_sites(model: Model, params: Params, example: Example) -> tuple[Site, ...]:
    """Return the stochastic layers of a model, see ``find_outline``."""
    return find_outline(model, params, example).sites


def find_outline(model: Model, params: Params, example: Example, batched: bool = False) -> Outline:
    """Return what tracing a model on one example finds, the first of several if ``batched``.

    Raises:
        GradbenchError: the model does not run on these shapes, never calls ``binary``, calls it
            inside a JAX transformation of its own or for no units, or its objective is not a real
            scalar.
    """
    sites: list[Site] = []
    extra: list[Any] = []

    def traced(params, example):
        sites.clear()
        if batched:
            example = jax.tree.map(lambda leaf: leaf[0], example)
        run = run_model(model, params, example, lambda site, a: a)
        sites.extend(run.sites)
        extra[:] = jax.tree.leaves(run.aux), len(run.aux)
        return run.f if all(map(_is_number, jax.tree.leaves(run.f))) else _Wrong(type(run.f))

    try:
        f = jax.eval_shape(traced, *cloned((closed(params), example)))
    except GradbenchError:
        raise
    except MISFITS as error:
        raise GradbenchError(does_not_run(error, params, example, batched)) from error
    if not sites:
        raise GradbenchError("the model never calls binary(); call it once per stochastic layer")
    if not hasattr(f, "dtype"):
        kind = f.kind if isinstance(f, _Wrong) else type(f)
        raise GradbenchError(
            f"the model returns an objective of type {kind.__name__}; "
            "return one real number per example"
        )
    if jnp.shape(f) != () or not jnp.issubdtype(f.dtype, jnp.floating):
        raise GradbenchError(
            f"the model returns an objective of shape {jnp.shape(f)} and type {f.dtype}; "
            "return one real number per example"
        )
    for site in sites:
        if not site.size:
            raise GradbenchError(
                f"layer {site.index + 1} of the model has no units, as binary() got "
                f"pre-activations of shape {site.shape}; give at least one, or leave the call out"
            )
    odd = [leaf for leaf in extra[0] if not _is_number(leaf)]
    if odd:
        raise GradbenchError(
            f"the model returns {short(odd[0])} beside its objective; return arrays, one of a kind "
            "for each example"
        )
    return Outline(tuple(sites), bool(extra[1]))


def batch_size(batch: Batch) -> int:
    """Return the number of examples, the common length of the first axis of all leaves.

    A batch without a leaf, such as (), is one example that holds nothing.

    Raises:
        GradbenchError: a leaf without axes, no example, or different lengths.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    if not shapes:
        return 1
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise GradbenchError(
            f"the batch has leaves of shapes {shapes}; give every leaf the same number of "
            "examples, at least one, along its first axis"
        )
    return next(iter(lengths))


def as_examples(model: Model, key: Array, batch: Batch) -> Batch:
    """Return the batch as a model sees it: a model that couples the examples sees a single one.

    Such a model, with states that all examples share, offers ``as_single_example(key, batch) ->
    example``. If its objective is itself random, it has an attribute ``random`` that is true.

    Raises:
        GradbenchError: see ``batch_size``.
    """
    batch_size(batch)
    as_single_example = getattr(model, "as_single_example", None)
    if as_single_example is None:
        return batch
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], as_single_example(key, batch))


def sites_of(model: Model, params: Params, batch: Batch) -> tuple[Site, ...]:
    """Return the stochastic layers of a model, found on the first example of a batch.

    Raises:
        GradbenchError: see ``find_sites`` and ``batch_size``.
    """
    examples = as_examples(model, jax.random.key(0), batch)  # nothing is drawn
    return find_outline(model, params, examples, batched=True).sites
