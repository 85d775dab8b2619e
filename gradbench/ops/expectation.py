"""The expectation of any function of binary variables, with the gradient of an estimator."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from gradbench.core.arguments import at_least
from gradbench.core.autodiff import first_order
from gradbench.core.callables import short
from gradbench.core.contract import Loss, Model, is_deterministic
from gradbench.core.dependence import depends_on
from gradbench.core.errors import GradbenchError
from gradbench.core.hints import hint
from gradbench.core.keys import evaluation, is_evaluating, note_use, real
from gradbench.core.noise import Noise, get_noise
from gradbench.core.run import coded
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.registry import any_model, get_estimator
from gradbench.ops.score_mode import UNBIASED, marked, mode

EXACT_UNITS = 20  # at most, for estimator="exact": a million evaluations
_REMEDY = "return one real number, and map over a batch with jax.vmap"
_CALLBACK = "it calls a function outside of JAX"
# What JAX raises when it cannot transform a callback.
_CALLBACK_ERRORS = (ValueError, NotImplementedError)


def expectation(
    f: Callable[..., Array],
    estimator: str | Callable[[Model], Loss] = "disarm",
    samples: int = 1,
    *,
    noise: str | Noise = "logistic",
    coding: str = "signs",
) -> Callable[..., Float[Array, ""]]:
    """Return a function that estimates E f(x, *args) over independent binary x, and its gradient.

    The result is ``g(logits, key, *args) -> value``. An entry of x is +1 with probability F(a) and
    -1 otherwise, where a is its entry of ``logits`` and F the cdf of the noise. The value estimates
    the expectation, without bias where the value of the estimator has none. The gradient of g is
    the estimator's in the logits, and an estimate of E df/dargs in real ``args``. What f closes
    over is differentiated as ``args`` are.

    ``logits`` are any pytree of real arrays, and x has the same structure. All of them are one
    layer: each sample evaluates f with all of x. For a batch of independent problems map over it,
    with a key for each, which has less variance than one f that sums over the batch:

        jax.vmap(g)(logits, jax.random.split(key, len(logits)), targets)

    f may be a black box in x, such as a simulator behind ``jax.pure_callback`` (with a
    ``vmap_method``), for all estimators that only evaluate it: score functions, ARM and its kin,
    flips. It may contain further calls of ``binarize`` and of such expectations, with other keys
    than the key of g. And g may stand anywhere in a differentiated program, under ``jit``, ``vmap``
    and ``scan``.

    Estimators with learned parts stay at their initial state, where they are unbiased too, and say
    so once. The value has the type that f returns.

    Args:
        f: a function of x and ``args`` that returns a real scalar.
        estimator: a spec such as "disarm" or "arms(samples=4)", or a function ``make(model)``.
            "exact" sums over all states of at most 20 units.
        samples: how many draws of the estimator value and gradient are the mean of; each takes as
            many evaluations of f as one draw does.
        noise: its name (logistic, normal, uniform, triangular, laplace) or a ``Noise``.
        coding: "signs" for x of -1 and +1, "bits" for 0 and 1.

    Raises:
        GradbenchError: an unknown estimator, noise or coding, or an estimator that needs a network.
            g raises it for logits that are not real, or NaN where that can be seen, for a key that
            is missing or used already, an f that does not return a real scalar, an estimator that
            needs a derivative that f does not have, and too many units for ``exact``.
    """
    if not callable(f):
        raise GradbenchError(f"f is {f!r}; give a function of x")
    make, name, differentiates = _resolve(estimator)
    count = at_least(1, "samples", samples)
    injected = get_noise(noise)
    coded(jnp.ones(()), coding)

    def g(logits: PyTree[Array], key: Array | None = None, *args: Any) -> Float[Array, ""]:
        """Return an estimate of the expectation of f, see ``gradbench.expectation``."""
        flat, shaped = _raveled(logits)
        thetas, whole = _real_args(args)
        exact = name.partition("(")[0] == "exact"
        if exact and flat.size > EXACT_UNITS:
            raise GradbenchError(
                f"estimator='exact' sums over all states, and {flat.size} units are more than the "
                f"{EXACT_UNITS} that it takes; give one that samples, such as 'disarm'"
            )

        def at(x: Array, thetas: list[Array]) -> Array:
            value = f(shaped(coded(x, coding)), *whole(thetas))
            odd = [leaf for leaf in jax.tree.leaves(value) if not _is_array(leaf)]
            if odd:
                raise GradbenchError(f"f returns {short(odd[0])}; {_REMEDY}")
            return value

        def model(params: Any, example: Any, binary: Any) -> Array:
            return opened(binary(params[0], injected), *params[1])

        found = mode()
        maker = make if found is None or exact else get_estimator(UNBIASED)[0].make
        loss, example = maker(model), jnp.zeros((1, 1), flat.dtype)  # f does not see the example
        if isinstance(loss, Learned) and found is None:
            hint(
                f"expectation() takes {name} at its initial state, where nothing is learned; to "
                "learn, write f as a model and take gradbench.estimators."
                f"{name.partition('(')[0]}(model).fit(params, key, batch)"
            )
        random = not is_deterministic(loss)
        # What evaluates an objective has marked all of it.
        second_order = is_evaluating() or getattr(loss, "second_order", exact)
        if random:
            note_use(key, "expectation", logits)
        with evaluation(key if random else None):
            # What f closes over becomes a parameter too, because some estimators stop gradients in
            # the parameters. And f is traced only here: nests would be traced again and again.
            try:
                opened, closed_over = jax.closure_convert(at, flat, thetas)
            except jax.errors.ConcretizationTypeError as error:
                raise GradbenchError(
                    "f needs the numbers in x or its arguments, as Python's if and float() do; "
                    "put it behind jax.pure_callback"
                ) from error
            held = (thetas, *closed_over)
            if not second_order:
                flat, held = first_order(flat, held)
            dtype = _check_objective(lambda x: opened(x, *held), flat, name, differentiates)

            def draw(key: Any) -> Array:
                return loss((flat, held), key, example)

            try:
                if not random:
                    value = draw(jax.random.key(0))
                else:
                    # The scores of what f draws itself would count once per sample.
                    value = draw(key) if count == 1 or found else _mean(draw, key, count)
            except _CALLBACK_ERRORS as error:
                if not _is_about_callback(error):
                    raise
                raise GradbenchError(_callback_sentence(error)) from error
        value = value.astype(dtype)  # the type of f; half precision is estimated in float32
        value += jnp.sum(jnp.where(jnp.isnan(flat), flat, 0)).astype(dtype)
        return value if found else marked(value)

    return g


def _mean(draw: Callable[[Array], Array], key: Any, count: int) -> Array:
    return jnp.mean(jax.vmap(draw)(jax.random.split(key, count)))


def _resolve(
    estimator: str | Callable[[Model], Loss],
) -> tuple[Callable[[Model], Loss], str, bool]:
    """Return what makes the estimator, its name, and whether it is known to differentiate f.

    Raises:
        GradbenchError: no estimator, an unknown one, or one that needs a network.
    """
    if callable(estimator):
        return estimator, getattr(estimator, "__name__", "the estimator"), False
    if not isinstance(estimator, str):
        raise GradbenchError(
            f"the estimator is {estimator!r}; give a spec such as 'disarm', or a function of a "
            "model"
        )
    entry, arguments = get_estimator(estimator)
    if entry.needs:
        raise GradbenchError(
            f"{estimator} needs {entry.needs}, which a function of states is not; give such a "
            f"model to gradbench.estimators.{entry.name}"
        )
    entry.make(any_model, **arguments)
    return (
        lambda model: entry.make(model, **arguments),
        estimator,
        entry.needs_derivative(**arguments),
    )


def _raveled(logits: PyTree[Array]) -> tuple[Float[Array, " units"], Callable[[Array], PyTree]]:
    """Return all logits as one layer, and the function that gives its states their structure."""
    leaves, form = jax.tree.flatten(logits)
    if not leaves:
        raise GradbenchError(
            f"the logits are {logits!r}, without an array; give at least one array"
        )
    return ravel_pytree(jax.tree.unflatten(form, [real("logits", leaf) for leaf in leaves]))


def _real_args(args: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """Return the arguments that have a gradient, and what puts them back among the others."""
    leaves, form = jax.tree.flatten(args)
    real = [k for k, leaf in enumerate(leaves) if _is_real(leaf)]

    def whole(thetas: list[Array]) -> Any:
        own = dict(zip(real, thetas, strict=True))
        return jax.tree.unflatten(form, [own.get(k, leaf) for k, leaf in enumerate(leaves)])

    return [leaves[k] for k in real], whole


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, float) or jnp.issubdtype(getattr(leaf, "dtype", int), jnp.floating)


def _check_objective(
    at: Callable[[Array], Array], flat: Array, name: str, differentiates: bool
) -> Any:
    """Return the type of f, which must be a real scalar and have the derivative that is needed.

    Raises:
        GradbenchError: it is not, or has not.
    """
    value = jax.eval_shape(at, flat)
    if not _is_real(value) or value.shape != ():
        array = isinstance(value, jax.ShapeDtypeStruct)
        what = f"{value.dtype}{list(value.shape)}" if array else f"a {type(value).__name__}"
        raise GradbenchError(f"f returns {what}; {_REMEDY}")
    if not differentiates:
        return value.dtype

    def slope(x: Array, v: Array) -> Array:
        return jax.jvp(at, (x,), (v,))[1]

    why = "it uses x in whole numbers or comparisons alone"
    try:
        if depends_on(1, slope, flat, flat) or not depends_on(0, at, flat):
            return value.dtype
    except _CALLBACK_ERRORS as error:
        if not _is_about_callback(error):
            raise
        why = _CALLBACK
    raise GradbenchError(
        f"{name} needs the derivative of f in x, and f has none: {why}; take an estimator that "
        "evaluates f alone, such as 'disarm', 'arms' or 'rloo'"
    )


def _is_about_callback(error: Exception) -> bool:
    """Return whether JAX refuses to transform a callback; other errors are the user's to see."""
    return not isinstance(error, GradbenchError) and "callback" in str(error).lower()


def _callback_sentence(error: Exception) -> str:
    """Return what JAX says about a callback as a sentence that names the remedy."""
    if "vmap" in str(error):
        return (
            f"f cannot be mapped over states: {_CALLBACK} by a callback without vmap_method; give "
            "it vmap_method='sequential', or 'expand_dims' if it takes many states at once"
        )
    return (
        f"f has no derivative in its arguments: {_CALLBACK} on them; give it "
        "jax.lax.stop_gradient(argument) where their gradient is not wanted"
    )
