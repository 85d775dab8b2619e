"""The score function: the return of each layer, and losses that multiply it with the score.

Where the objective is a sum of terms, the states of a layer cannot change the terms of the layers
below it. Given those, such a term times the score has the mean 0, so that leaving it out of the
return of the layer leaves the mean of a draw as it is, and takes its noise away. These are the
layer-local signals of NVIL. Source: Mnih & Gregor 2014, section 2.4.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Example, Model, Params, Scored, Site, Trace
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.surrogate import SurrogateLoss, surrogate_loss
from gradbench.core.uniforms import Uniforms

SIGNALS = ("local", "whole")


def with_terms(model: Model, signals: str) -> Model:
    """Return what an estimator runs: the terms of the objective for "local" signals.

    Where the model has no ``terms``, and for "whole" signals, it is the model. ``returns`` reads
    its runs.

    Raises:
        GradbenchError: there are no such ``signals``.
    """
    if signals not in SIGNALS:
        raise GradbenchError(f"signals is {signals!r}; {did_you_mean(signals, SIGNALS)}")
    terms = getattr(model, "terms", None)
    if signals == "whole" or terms is None:
        return model

    def split(*run: Any) -> Any:
        return list(terms(*run))  # a pair would be an objective and its aux

    return split


def returns(run: Trace) -> list[Array]:
    """Return the return of each layer, of a run of ``with_terms``.

    It is the objective, or the sum of those of its terms that the layer can change. The first layer
    can change all of them: its return is the objective in any case.

    Raises:
        GradbenchError: there is not one term for each layer.
    """
    terms: Any = run.f
    if not isinstance(terms, list):
        return [run.f] * len(run.sites)
    if len(terms) != len(run.sites):
        raise GradbenchError(
            f"terms() of the model returns {len(terms)} terms for {len(run.sites)} layers; return "
            "one for each layer"
        )
    return list(accumulate(reversed(terms)))[::-1]


def scores(run: Trace, signals: Sequence[Array]) -> Float[Array, ""]:
    """Return the value 0, with the gradient ``signals[k]`` * d log P(x_k) / da_k at every site k.

    For several runs together, see ``stacked``, a signal is a vector.
    """
    loss: Any = 0.0
    for site, x, a, signal in zip(run.sites, run.x, run.a, signals, strict=True):
        loss += gradient_term(to_units(signal, a) * site.noise.score(x, a), a)
    return loss


def to_units(signal: Array, a: Array) -> Array:
    """Return a signal of each run, or of each unit of each run, that broadcasts to the units."""
    return jnp.expand_dims(signal, tuple(range(jnp.ndim(signal), a.ndim)))


def stacked(run: Callable[..., Trace], in_axes: Any, *args: Any) -> Trace:
    """Map ``run`` over its arguments and return one run, whose arrays have a new first axis."""
    sites: list[Site] = []

    def arrays(*args: Any) -> Any:
        one = run(*args)
        sites[:] = one.sites
        return one.f, one.x, one.a

    f, x, a = jax.vmap(arrays, in_axes)(*args)
    return Trace(f, x, a, tuple(sites))


def runs_of(run: Trace) -> tuple[int, ...]:
    """Return the axes of the runs that are stacked in one, () for a single run."""
    return run.a[0].shape[: run.a[0].ndim - len(run.sites[0].shape)]


def score_loss(
    model: Model,
    scored: Callable[[Params, tuple[Uniforms, ...], Example], Scored],
    streams: int = 1,
    **options: Any,
) -> SurrogateLoss:
    """Return the surrogate loss that multiplies signals with the score, and averages over runs.

    Args:
        model: the model.
        scored: ``scored(params, u, example)`` gives the parts of a draw of one example.
        streams: the number of streams of uniforms.
        options: further fields of ``SurrogateLoss``.
    """

    def example_loss(params: Params, u: tuple[Uniforms, ...], example: Example) -> Array:
        rest, run, signals = scored(params, u, example)
        count = math.prod(runs_of(run))
        return rest + scores(run, [signal / count for signal in signals])

    return surrogate_loss(model, example_loss, streams, scored=scored, **options)
