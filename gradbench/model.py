"""The model contract: a model is a function ``model(params, example, binary) -> f`` of one example.

It calls ``x = binary(a, noise="logistic")`` once per stochastic layer, in order, and returns the
objective f. ``binary`` takes the pre-activations a, of any shape, and returns states in {-1, +1} of
the same shape. ``params`` is any pytree, in networks of the package a tuple with one entry per
layer and one for the objective; ``example`` is any pytree. An estimator decides what ``binary``
does; the functions here run a model with a chosen ``binary`` and turn the loss of one example into
the loss of a batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.keys import evaluation, trace_state
from gradbench.noise import Noise, get_noise
from gradbench.parameters import closed, opened, real_type
from gradbench.uniforms import Uniforms, draw_uniforms

Params: TypeAlias = PyTree[Any]  # see gradbench.parameters
Example: TypeAlias = PyTree[Array]
Batch: TypeAlias = PyTree[Array]  # examples along the first axis of every leaf
Model: TypeAlias = Callable[[Params, Example, Callable[..., Array]], Array]


@dataclass(frozen=True)
class Site:
    """One stochastic layer of a model: its place in the order of calls, state shape and noise."""

    index: int
    shape: tuple[int, ...]
    noise: Noise

    @property
    def size(self) -> int:
        """Number of units."""
        return math.prod(self.shape)


class Visit(NamedTuple):
    """What a run of a model on one example saw: the objective, states and pre-activations."""

    f: Float[Array, ""]
    x: tuple[Float[Array, "..."], ...]
    a: tuple[Float[Array, "..."], ...]
    sites: tuple[Site, ...]


Unit = Callable[[Site, Array], Array]
Rule = Callable[..., Array]  # of a unit and its own uniforms, one array per stream


def visit(
    model: Model, params: Params, example: Example, unit: Unit, given: Sequence[Array] = ()
) -> Visit:
    """Runs the model on one example: site k gets ``given[k]``, else ``unit(site, a_k)``.

    Pre-activations of half precision, in which probabilities have two or three digits, are made
    float32 for the unit, and its states what they were for the model.
    """
    x: list[Array] = []
    a: list[Array] = []
    sites: list[Site] = []
    here = trace_state()

    def binary(pre: Array, noise: str | Noise = "logistic") -> Array:
        if trace_state() != here:
            raise GradbenchError(
                "the model calls binary() inside jit, vmap, scan, cond, grad or checkpoint, where "
                "its noise would be shared or lost; call it once per layer at the top level of the "
                "model"
            )
        pre = jnp.asarray(pre)
        if not jnp.issubdtype(pre.dtype, jnp.floating):
            raise GradbenchError(
                f"binary() got pre-activations of type {pre.dtype}; give real numbers"
            )
        site = Site(len(sites), pre.shape, get_noise(noise))
        exact = pre.astype(jnp.promote_types(pre.dtype, jnp.float32))
        state = given[site.index] if site.index < len(given) else unit(site, exact)
        sites.append(site)
        a.append(exact)
        x.append(state)
        return state.astype(pre.dtype)

    with evaluation():
        f = model(opened(params), example, binary)
    return Visit(f, tuple(x), tuple(a), tuple(sites))


def visit_path(model: Model, params: Params, example: Example, x: Sequence[Array]) -> Visit:
    """A run in which every site has its given states."""

    def missing(site: Site, a: Array) -> Array:
        raise GradbenchError(f"site {site.index} has no given state; give one per binary() call")

    return visit(model, params, example, missing, x)


def draw_state(site: Site, a: Array, u: Array) -> Array:
    """x = sign(F(a) - u): +1 with probability F(a); the same ``u`` gives the same state."""
    return jnp.where(u < site.noise.cdf(a), 1, -1).astype(a.dtype)


Coding: TypeAlias = Literal["signs", "bits"]


def coded(x: Array, coding: str) -> Array:
    """States -1 and +1, or 0 and 1 in the place of them.

    Raises:
        GradbenchError: another coding than "signs" and "bits".
    """
    if coding not in get_args(Coding):
        raise GradbenchError(f"coding is {coding!r}; give 'signs' or 'bits'")
    return x if coding == "signs" else (x + 1) / 2


def sampled(
    model: Model, params: Params, u: Uniforms, example: Example, given: Sequence[Array] = ()
) -> Visit:
    """A run with sampled states, x_k = sign(F(a_k) - u_k), after sites with ``given`` states."""
    return visit(model, params, example, lambda site, a: draw_state(site, a, u[site.index]), given)


def tail(
    model: Model,
    params: Params,
    example: Example,
    run: Visit,
    k: int,
    x_k: Array,
    u: Uniforms,
) -> Float[Array, ""]:
    """The objective after another state ``x_k`` of site k, states below kept, above sampled.

    Constant in the parameters: it serves as a signal inside ``credit``, nowhere else.
    """
    return sampled(model, jax.lax.stop_gradient(params), u, example, (*run.x[:k], x_k)).f


DESCENDANTS = ("shared", "independent", "antithetic")


def branch_noise(descendants: str, u: Sequence[Uniforms]) -> Uniforms:
    """The uniforms of the layers above another state than the sampled one of stream 0.

    "shared" with the path, "independent" of it (stream 1), or "antithetic" to it. An estimator that
    offers this choice has ``streams=branch_streams(descendants)``.
    """
    if descendants == "independent":
        return u[1]
    return u[0] if descendants == "shared" else tuple(1 - v for v in u[0])


def branch_streams(descendants: str) -> int:
    """How many streams of uniforms an estimator with this choice needs.

    Raises:
        GradbenchError: no such choice.
    """
    if descendants not in DESCENDANTS:
        raise GradbenchError(
            f"descendants is {descendants!r}; {did_you_mean(descendants, DESCENDANTS)}"
        )
    return 2 if descendants == "independent" else 1


def flip(x: Float[Array, "..."], i: Array) -> Float[Array, "..."]:
    """The states ``x`` with unit ``i``, counted through all axes, flipped."""
    return jnp.where(jnp.arange(x.size).reshape(x.shape) == i, -x, x)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_slope(slope: Callable[..., Array], x: Array, a: Array, *args: Any) -> Array:
    """The value ``x``, with the gradient ``slope(x, a, *args)`` in ``a``.

    Every straight-through rule is one of these. The value is exactly ``x``; forward, reverse and
    second-order differentiation work.
    """
    return jnp.where(False, a, x).astype(jnp.result_type(x))  # nominally a function of a, as credit


@with_slope.defjvp
def _with_slope_jvp(slope, primals, tangents):
    x, a, *args = primals
    return with_slope(slope, x, a, *args), slope(x, a, *args) * tangents[1]


@jax.custom_jvp
def credit(g: Array, a: Array) -> Float[Array, ""]:
    """The value 0, with the gradient ``g`` in ``a``.

    Every score-function and finite-difference rule adds these to the objective, one per site.
    Differentiating once more differentiates ``g``: estimators minimise their variance so.
    """
    # Nominally a function of g and a: vmap must see that the value is mapped as the tangent is, or
    # a gradient of jit of a gradient of vmap fails.
    return jnp.sum(jnp.where(False, g * a, 0)).astype(jnp.result_type(a))


@credit.defjvp
def _credit_jvp(primals, tangents):
    g, a = primals
    slope = jnp.sum(g * tangents[1])
    return credit(g, a), slope.astype(jnp.result_type(a))  # g may come of higher precision


def find_sites(model: Model, params: Params, example: Example) -> tuple[Site, ...]:
    """The stochastic layers of a model, found by tracing it on one example without running it.

    Raises:
        GradbenchError: the model calls ``binary`` never or inside a JAX transformation of its own,
            or its objective is not a real scalar.
    """
    sites: list[Site] = []

    def traced(params, example):
        sites.clear()
        run = visit(model, params, example, lambda site, a: a)
        sites.extend(run.sites)
        return run.f

    f = jax.eval_shape(traced, closed(params), example)
    if not sites:
        raise GradbenchError("the model never calls binary(); call it once per stochastic layer")
    if not hasattr(f, "dtype"):
        raise GradbenchError(
            f"the model returns an objective of type {type(f).__name__}; "
            "return one real number per example"
        )
    if jnp.shape(f) != () or not jnp.issubdtype(f.dtype, jnp.floating):
        raise GradbenchError(
            f"the model returns an objective of shape {jnp.shape(f)} and type {f.dtype}; "
            "return one real number per example"
        )
    return tuple(sites)


def batch_size(batch: Batch) -> int:
    """Number of examples of a batch: the common length of the first axis of its leaves.

    Raises:
        GradbenchError: no leaf, a leaf without axes, no example, or different lengths.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise GradbenchError(
            f"the batch has leaves of shapes {shapes}; give every leaf the same number of "
            "examples, at least one, along its first axis"
        )
    return next(iter(lengths))


def as_examples(model: Model, key: Array, batch: Batch) -> Batch:
    """The batch as a model sees it: a model that couples the examples has one, made of them all.

    Such a model, with states that all examples share, offers ``couple(key, batch) -> example``; if
    its objective is itself random, it has an attribute ``random`` that is true.
    """
    batch_size(batch)
    couple = getattr(model, "couple", None)
    if couple is None:
        return batch
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], couple(key, batch))


def sites_of(model: Model, params: Params, batch: Batch) -> tuple[Site, ...]:
    """The stochastic layers of a model, found on the first of its examples of a batch.

    Raises:
        GradbenchError: as ``find_sites`` and ``batch_size``.
    """
    examples = as_examples(model, jax.random.key(0), batch)  # nothing is drawn
    return find_sites(model, params, jax.tree.map(lambda leaf: leaf[0], examples))


Randomness: TypeAlias = Literal["none", "states", "uniforms"]
Pieces: TypeAlias = Literal["constant", "linear", "smooth"]
ExampleLoss: TypeAlias = Callable[[Params, tuple[Uniforms, ...], Example], Array]
Breaks: TypeAlias = Callable[[int, Visit], Sequence[Array]]


class Loss(Protocol):
    """The estimator contract: a scalar whose value estimates J and whose gradient is one draw."""

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """The value of the surrogate loss."""


@dataclass(frozen=True, eq=False)
class Lifted:
    """The surrogate loss of a batch, made from that of one example: see ``lift``.

    ``randomness`` is what a draw depends on: nothing, the sampled states alone, one path a stream,
    or the uniforms themselves. The last three fields say what exact moments need to know of it.

    ``pieces``: what a draw is as a function of one uniform between its breaks: "constant", "linear"
    or "smooth". ``breaks(stream, run)`` gives per site, as ``[..., *shape]``, where a draw may jump
    in the uniforms of a stream besides F(a) and 1 - F(a). ``couples``: ``example_loss`` sees the
    whole batch, and uniforms with a last axis of examples.

    ``rule``: the states of a site, ``rule(site, a, *u)``, of an estimator that is nothing else, see
    ``local``. ``soft``: these states are real numbers, not -1 and +1. ``route``: how it gets at
    what it needs of a model with some sites, in words, see ``gradbench.explain``.
    """

    model: Model
    example_loss: ExampleLoss
    streams: int = 1
    randomness: Randomness = "states"
    pieces: Pieces = "linear"
    breaks: Breaks | None = None
    couples: bool = False
    rule: Rule | None = None
    soft: bool = False
    route: Callable[[Sequence[Site]], Sequence[str]] | None = None

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """The mean of the losses of the examples."""
        params = closed(params)
        batch = as_examples(self.model, key, batch)
        examples = batch_size(batch)
        sites = find_sites(self.model, params, jax.tree.map(lambda leaf: leaf[0], batch))
        dtype = real_type(params)
        u = draw_uniforms(key, [site.shape for site in sites], self.streams, examples, dtype)
        if self.couples:
            return self.example_loss(params, u, batch)
        losses = jax.vmap(self.example_loss, in_axes=(None, -1, 0))(params, u, batch)
        return jnp.mean(losses)


def is_chain(model: Model) -> bool:
    """Whether a model gives what PSA needs from its structure, as an ``SBN`` does."""
    return hasattr(model, "flip_objective") and hasattr(model, "flip_pull")


def is_deterministic(loss: Loss) -> bool:
    """Whether all draws of an estimator are known to be equal."""
    random_objective = getattr(getattr(loss, "model", None), "random", False)
    return getattr(loss, "randomness", "uniforms") == "none" and not random_objective


def lift(
    model: Model,
    example_loss: ExampleLoss,
    streams: int = 1,
    randomness: Randomness = "states",
    **options: Any,
) -> Lifted:
    """From one example to the contract: draws the noise, maps over the examples, averages.

    ``example_loss(params, u, example)`` is a deterministic function of ``streams x sites``
    uniforms. ``options`` are further fields of ``Lifted``.
    """
    return Lifted(model, example_loss, streams, randomness, **options)


def local(model: Model, rule: Rule, streams: int = 1, **options: Any) -> Lifted:
    """The estimator whose states are ``rule(site, a, *u)``, u the uniforms of the site per stream.

    The objective is run on these states and differentiated through them: what is local to a unit
    is a rule, which ``gradbench.binarize`` takes without a model. ``options`` as those of ``lift``.
    """

    def example_loss(params: Params, u: tuple[Uniforms, ...], example: Example) -> Array:
        def unit(site: Site, a: Array) -> Array:
            return rule(site, a, *(stream[site.index] for stream in u))

        return visit(model, params, example, unit).f

    return lift(model, example_loss, streams, rule=rule, **options)


def one_layer(name: str, sites: Sequence[Site]) -> Site:
    """The only stochastic layer of a model, for estimators that are made for one.

    Raises:
        GradbenchError: there are several.
    """
    if len(sites) != 1:
        raise GradbenchError(
            f"{name} is an estimator for one stochastic layer and got a model of {len(sites)}; "
            "take one that runs through several layers"
        )
    return sites[0]
