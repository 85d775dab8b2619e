"""The unbiased counterpart of a loss that calls ``binarize`` and ``expectation``.

The counterpart is the same function, traced again in another mode: in it the gradient of
``binarize`` is the score function, and ``expectation`` takes an unbiased estimator. The user's code
stays as it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.xla_metadata import set_xla_metadata
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Loss, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.run import batch_size

NAME = "gradbench.binarize"  # the states have it, also for policies of jax.checkpoint
UNBIASED = "disarm"  # replaces any estimator of an expectation


@dataclass
class Mode:
    """The mode of one trace: the ``weight`` of the scores, and whether anything ``used`` it.

    The weight is return minus baseline, times the weight of the sample in the mean.
    """

    weight: Array
    used: bool = False


_numbers = count()
_mode: ContextVar[Mode | None] = ContextVar("mode", default=None)


def mode() -> Mode | None:
    """Return the mode of this trace; None where users run their own loss."""
    found = _mode.get()
    if found:
        found.used = True
    return found


@contextmanager
def _scoring(weight: Array) -> Iterator[Mode]:
    own = Mode(weight)
    token = _mode.set(own)
    try:
        # Metadata of operations are part of the keys of JAX's caches of traces: what the user has
        # compiled or scanned is traced anew here, and what is traced here is never used elsewhere.
        with set_xla_metadata(gradbench_counterpart=str(next(_numbers))):
            yield own
    finally:
        _mode.reset(token)


def marked(x: Array) -> Array:
    """Return x with a mark in the traced program: it was made in the user's own mode."""
    return checkpoint_name(x, NAME)


def scored(x: Array, a: Array, slope: Array) -> Array:
    """Return the states x, with the gradient ``slope`` in a, whatever is downstream."""
    number = str(next(_numbers))
    return _scored(number, x, checkpoint_name(a, _SEEN), slope)


# Marks in traced programs: where states are and, with a number each, both halves of their gradient.
_SEEN, _FORWARD, _BACKWARD = (f"gradbench.{part}" for part in ("seen", "forward.", "backward."))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scored(number: str, x: Array, a: Array, slope: Array) -> Array:
    return x


_scored.defvjp(
    lambda number, x, a, slope: (checkpoint_name(x, _FORWARD + number), slope),
    lambda number, slope, _: (
        jnp.zeros_like(slope),
        checkpoint_name(slope, _BACKWARD + number),
        jnp.zeros_like(slope),
    ),
)


def counterpart(loss: Loss, by_example: bool = True, samples: int = 4) -> Loss:
    """Return a loss whose gradient estimates the gradient of E loss without bias.

    It is REINFORCE with the mean of the other samples as baseline. All randomness that depends on
    the parameters must come from ``binarize`` and ``expectation``, each call with noise of its own,
    and the loss must be linear in the values of its expectations.

    Args:
        loss: a loss under the estimator contract.
        by_example: the loss is the mean of the losses of its examples, which are then run one by
            one. Otherwise the noise of all examples is in each other's return.
        samples: how many samples a draw takes, at least 2.

    Raises:
        GradbenchError: when called, if the loss calls neither ``binarize`` nor ``expectation``,
            calls them inside a function that is not traced anew, or does not differentiate through
            the states.
    """

    def surrogate(params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        parts = (
            jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], batch)
            if by_example
            else jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], batch)
        )
        used = []

        def one(params: Params, key: Array, part: Batch, weight: Array) -> Array:
            with _scoring(weight) as own:
                value = loss(params, key, part)
            used.append(own.used)
            return value

        def all_of(params: Params, weights: Array) -> Array:
            # Both times with the same noise, on purpose.
            keys = jax.random.split(jax.random.clone(key), weights.shape)
            per_sample = jax.vmap(one, (None, 0, None, 0))
            return jax.vmap(per_sample, (None, 0, 0, 0))(params, keys, parts, weights)

        nothing = jnp.zeros((batch_size(parts), samples))
        _check(all_of, params, nothing, used)
        f = stop_gradient(all_of(params, nothing))
        others = (jnp.sum(f, 1, keepdims=True) - f) / (samples - 1)
        return jnp.mean(all_of(params, (f - others) / f.size))

    return surrogate


def _check(all_of: Callable[..., Array], params: Params, nothing: Array, used: list[bool]) -> None:
    """Refuse a loss that has no counterpart, or was not traced anew as it should be.

    Raises:
        GradbenchError: see ``counterpart``.
    """
    marks = dict(_marks(jax.make_jaxpr(all_of)(params, nothing).jaxpr))
    if NAME in marks:
        raise GradbenchError(
            "the loss calls binarize() or expectation() inside a function that cannot be traced "
            "anew; give it without jax.jit inside"
        )
    if not any(used):
        raise GradbenchError(
            "the loss has no model, and calls neither gradbench.binarize nor "
            "gradbench.expectation, so that its expectation is not known; give `unbiased`, a loss "
            "of the same form with an unbiased estimator, or `reference`"
        )
    # The score is added where the gradient comes back to the states, so it has to come back.
    gradient = jax.grad(lambda params: jnp.sum(all_of(params, nothing)))
    both = dict(_marks(jax.make_jaxpr(gradient)(params).jaxpr))
    went, came = (
        {name.removeprefix(half) for name in both if name.startswith(half)}
        for half in (_FORWARD, _BACKWARD)
    )
    if marks.get(_SEEN) or went - came:
        raise GradbenchError(
            "the loss does not differentiate through the states of a binarize(): they are "
            "compared, rounded, stopped or given a rule of your own; give `unbiased`, a loss of "
            "the same form with an unbiased estimator, or `reference`"
        )


def _marks(program: Any, ruled: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the marks in a traced program, each with whether one is inside a rule of the user's."""
    found: dict[str, bool] = {}
    for equation in program.eqns:
        name = equation.params.get("name")
        if equation.primitive.name == "name":
            found[name] = found.get(name, False) or ruled
        inside = ruled or equation.primitive.name.startswith("custom_")
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(value):
                for mark, own in _marks(getattr(value, "jaxpr", value), inside):
                    found[mark] = found.get(mark, False) or own
    yield from found.items()


def _is_program(value: Any) -> bool:
    return hasattr(value, "eqns")
