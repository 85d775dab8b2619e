"""A binary activation for any JAX code: a stochastic sign with an estimator's backward pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.autodiff import first_order, fixed_at_infinity
from gradbench.core.contract import Loss, Model, Site
from gradbench.core.errors import GradbenchError
from gradbench.core.hints import hint
from gradbench.core.keys import is_evaluating, note_use, real
from gradbench.core.noise import Noise, get_noise
from gradbench.core.run import Coding, coded, draw_state
from gradbench.core.surrogate import SurrogateLoss
from gradbench.core.uniforms import unit_uniforms
from gradbench.estimators.registry import ESTIMATORS, any_model, get_estimator
from gradbench.ops.score_mode import marked, mode, scored

_MANY = 16  # so many logits are seldom all in [0, 1]: of N(0, 1), 3e-8 of the times


def binarize(
    a: Float[Array, "..."],
    *,
    key: Array | None = None,
    estimator: str | Callable[[Model], Loss] = "zgr",
    noise: str | Noise = "logistic",
    coding: Coding = "signs",
    hard: bool = True,
) -> Float[Array, "..."]:
    """Return binary states x = sign(a - z), with the gradient of an estimator in a.

    ``binarize(a, key=key, coding="bits")`` replaces ``jax.random.bernoulli(key,
    jax.nn.sigmoid(a))``, through which no gradient flows (for probabilities p give
    ``jax.scipy.special.logit(p)``), and ``binarize(a,
    estimator="deterministic_straight_through")`` a sign with a straight-through trick.

    The states are exactly -1 and +1, in the shape and type of ``a``: +1 with probability F(a),
    where F is the cdf of the noise. With ``coding="bits"`` they are 0 and 1, and so is the gradient
    that of bits. The function is elementwise and pure: it works under ``jit``, ``vmap``, ``scan``,
    ``checkpoint``, and where arrays are sharded. Half precision is computed in float32 and rounded
    at the end. NaN stays NaN. Known numbers that look like probabilities are warned of once: all in
    [0, 1], not all equal, with 0 or 1 among them or 16 of them at least.

    Every call needs a key of its own: layers with equal keys have dependent noise, which biases
    expectation and gradient. A key that two calls of one traced function share is refused. Sharing
    cannot be seen between calls inside transformations of their own (two ``checkpoint``, the steps
    of a ``scan``), between calls without any transformation, and for keys that are made twice
    (``keys[0]`` for two layers). To share a key on purpose, pass ``jax.random.clone(key)``. Under
    ``vmap`` with one key all rows share their noise; give ``jax.random.split(key, rows)``. Under
    ``shard_map`` fold in the index of the shard.

    Args:
        a: pre-activations, real, of any shape; for logistic noise they are the logits.
        key: a key of ``jax.random``; only estimators without randomness need none.
        estimator: an estimator that is local to a unit (``local_estimators`` lists them): a spec
            such as "zgr" or "gumbel_rao(temperature=0.5)", or a function ``make(model) -> loss``.
        noise: its name (logistic, normal, uniform, triangular, laplace) or a ``Noise``.
        coding: "signs" for -1 and +1, "bits" for 0 and 1.
        hard: whether the states have to be binary. ``hard=False`` allows the estimators whose own
            states are real numbers (``concrete``, ``hard_concrete``, ``stochastic_times_smooth``,
            ``mean_field``, ``foust``), which are as in their papers then; the hard form of
            ``concrete`` is ``st_gumbel_softmax``. ``foust`` takes the value at other states than
            the gradient, which a unit alone cannot, so that its value is biased here.

    Returns:
        The states, in the shape and type of ``a``.

    Raises:
        GradbenchError: ``a`` is not real, or is NaN where that can be seen; the key is missing,
            is not a key or is used already; the estimator, noise or coding is unknown, the
            estimator needs to see the objective, or its states are real numbers and ``hard`` is
            true.
    """
    a = real("pre-activations", a)
    _see_probabilities(a)
    rule = _rule(estimator)
    if hard and rule.soft:
        raise GradbenchError(
            f"the states of {_name(estimator)} are real numbers; give hard=False for these, or "
            "take an estimator of binary states, such as st_gumbel_softmax, which is the hard form "
            "of concrete, or straight_through"
        )
    site = Site(0, a.shape, get_noise(noise))
    if not rule.second_order and not is_evaluating():
        a, _ = first_order(a)
    exact = fixed_at_infinity(a.astype(jnp.promote_types(a.dtype, jnp.float32)))
    u: tuple[Array, ...] = ()
    if rule.streams:
        note_use(key, "binarize", a)
        u = unit_uniforms(key, a.shape, rule.streams, exact.dtype)
    found = mode()
    if found is None:
        assert rule.rule is not None
        x = marked(rule.rule(site, exact, *u))
    elif u:
        x = draw_state(site, exact, u[0])
        x = scored(x, exact, found.weight * site.noise.score(x, exact))
    else:
        raise GradbenchError(
            f"{_name(estimator)} has no noise, so that its loss has no gradient to compare with; "
            "give a stochastic estimator"
        )
    return coded(jnp.where(jnp.isnan(exact), exact, x), coding).astype(a.dtype)


def _see_probabilities(a: Array) -> None:
    """Warn once of numbers that look like probabilities, where they are known."""
    if isinstance(a, jax.core.Tracer) or not a.size:
        return
    with jax.ensure_compile_time_eval():
        low, high = float(jnp.min(a)), float(jnp.max(a))
    if 0 <= low < high <= 1 and (low == 0 or high == 1 or a.size >= _MANY):
        hint(
            "binarize() got numbers that are all in [0, 1], as probabilities are, and takes them "
            "for pre-activations; give jax.scipy.special.logit(p) for probabilities p"
        )


def local_estimators() -> list[str]:
    """Return the names of the estimators that ``binarize`` takes."""
    return sorted(name for name, entry in ESTIMATORS.items() if entry.unitwise)


def _rule(estimator: str | Callable[[Model], Loss]) -> SurrogateLoss:
    """Return the loss of an estimator that is local to a unit; its field ``rule`` is not None.

    Raises:
        GradbenchError: no estimator, an unknown one, or one that needs to see the objective.
    """
    needs = ""
    if isinstance(estimator, str):
        entry, arguments = get_estimator(estimator)
        loss: Any = entry.make(any_model, **arguments)
        needs = entry.needs
    elif callable(estimator):
        loss = estimator(any_model)
    else:
        raise GradbenchError(
            f"the estimator is {estimator!r}; give a spec such as 'zgr', or a function of a model"
        )
    if needs or not isinstance(loss, SurrogateLoss) or loss.rule is None:
        raise GradbenchError(
            f"{_name(estimator)} needs {needs or 'to see the objective'}, and binarize() shows it "
            "a unit alone; use gradbench.expectation or gradbench.estimators for it, or take one "
            f"of {', '.join(local_estimators())}"
        )
    return loss


def _name(estimator: str | Callable[[Model], Loss]) -> str:
    return estimator if isinstance(estimator, str) else getattr(estimator, "__name__", "it")
