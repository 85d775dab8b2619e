"""The truth that a diagnosis compares with: exact, or the mean of an unbiased estimator."""

import math
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.arguments import at_least
from gradbench.core.contract import Batch, Loss, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import check_hash
from gradbench.core.precision import float64
from gradbench.core.pytrees import from_vectors, layer_vectors, real_type
from gradbench.core.run import batch_size
from gradbench.estimators import make_estimator
from gradbench.estimators.registry import get_estimator
from gradbench.exact.enumeration import route_of
from gradbench.exact.size import fits
from gradbench.measure.blocks import Blocks
from gradbench.measure.cell import Cell
from gradbench.measure.reference import Reference
from gradbench.measure.sample import as_estimator, moments_of
from gradbench.ops.score_mode import UNBIASED, counterpart

BLOCKS = 16  # of the draws and of the truth; each block is as large as the parameters
_FORWARD = 32  # values of a loss that are compared with those of its examples
_SEVERAL = 3  # of these; rounding may move a single state over its threshold
_TOO_FAR = 6.0  # standard errors of their difference
_WORK = 1e8  # multiply-adds of an enumeration that is cheaper than the draws


class Truth(NamedTuple):
    """The true gradient, the blocks of each layer if it is sampled, and its description."""

    gradient: Params
    blocks: tuple[Blocks, ...] | None
    description: str


def find_truth(
    loss: Loss,
    params: Params,
    batch: Batch,
    key: Array,
    reference: Reference | None,
    unbiased: str | Loss | None,
    draws: int,
    by_example: bool,
) -> Truth:
    """Return the truth that a loss is compared with; the arguments are those of ``diagnose``.

    Raises:
        GradbenchError: the truth is not known, or not finite; or the reference, the unbiased
            estimator or ``by_example`` do not fit the loss.
    """
    if reference is not None:
        words = "the exact gradient"
        if reference.samples:
            words = f"{reference.samples.draws} draws of {reference.samples.estimator}"
        return Truth(reference.gradient, reference.blocks, words)
    model = getattr(loss, "model", None)
    if model is not None and not callable(unbiased):
        check_hash(model)
    if model is not None and unbiased is None and _is_little(model, params, batch):
        return Truth(_exact(model, params, batch), None, "the exact gradient")
    other, name = _unbiased(loss, model, unbiased, by_example)
    if model is None and unbiased is None and by_example and batch_size(batch) > 1:
        _check_mean(loss, params, batch, key)
    each = model is None and unbiased is None and by_example
    mean, blocks = _sampled(other, params, batch, key, draws, each)
    return Truth(mean, blocks, f"{blocks[0].draws} draws of {name}")


def _is_little(model: Model, params: Params, batch: Batch) -> bool:
    return fits(route_of(model).size(model, params, batch), params, work=_WORK)


def check_options(
    loss: Loss, reference: Reference | None, unbiased: str | Loss | None, params: Params
) -> None:
    """Refuse what is no reference or no unbiased estimator, whether it is used or not.

    Raises:
        GradbenchError: also a reference for other parameters, and the name of an estimator where
            there is no model to make it for.
    """
    if unbiased is not None and not callable(unbiased):
        model = getattr(loss, "model", None)
        if model is None:
            raise GradbenchError(
                f"unbiased is {unbiased!r}, but the loss is no estimator of gradbench.estimators, "
                "so that there is no model to make it for; give a loss"
            )
        _check_unbiased(unbiased)
    if reference is None:
        return
    if not isinstance(reference, Reference):
        raise GradbenchError(
            f"reference is of type {type(reference).__name__}; give a result of gradbench.reference"
        )
    theirs, ours = (
        [vector.size for vector in layer_vectors(tree)] for tree in (reference.gradient, params)
    )
    if theirs != ours:
        raise GradbenchError(
            f"the reference has layers of {theirs} parameters and the loss of {ours}; give the "
            "reference of the same model"
        )


def _check_unbiased(spec: str) -> None:
    entry, arguments = get_estimator(spec)
    if entry.claim(**arguments) != "unbiased":
        raise GradbenchError(
            f"unbiased is {spec!r}, which is no unbiased estimator; take one such as {UNBIASED!r}"
        )


def _unbiased(
    loss: Loss, model: Model | None, unbiased: str | Loss | None, by_example: bool
) -> tuple[Loss, str]:
    """Return a loss with an unbiased gradient, the same object each time, and its name."""
    if callable(unbiased):
        return as_estimator(unbiased), getattr(unbiased, "__name__", "the unbiased loss")
    if model is None:
        return _counterpart(loss, by_example), "its unbiased counterpart"  # type: ignore[arg-type]
    spec = unbiased or UNBIASED
    return _made(spec, model), spec  # type: ignore[arg-type]


def _check_mean(loss: Loss, params: Params, batch: Batch, key: Array) -> None:
    """Refuse a loss that is significantly not the mean of the losses of its examples."""
    keys = jax.random.split(jax.random.fold_in(key, 1), _FORWARD)
    one = jax.tree.map(lambda leaf: leaf[:1], batch)
    try:
        jax.eval_shape(loss, params, key, one)
    except Exception as error:  # of any kind: the loss is the user's
        raise GradbenchError(
            f"the loss does not run on one example ({type(error).__name__}); give by_example=False"
        ) from error
    whole, parts = (
        np.asarray(_values(_unbiased(loss, None, None, each)[0], params, batch, same), np.float64)
        for each, same in ((False, keys), (True, jax.random.clone(keys)))  # common random numbers
    )
    spread = math.sqrt((whole.var(ddof=1) + parts.var(ddof=1)) / _FORWARD)
    if not np.isfinite(whole).all():
        raise GradbenchError(
            f"the loss of the batch is {whole[~np.isfinite(whole)][0]}; find out where with "
            "jax.debug_nans()"
        )
    if not np.isfinite(parts).all():
        raise GradbenchError(
            f"the loss of a single example is {parts[~np.isfinite(parts)][0]}, but that of the "
            f"batch is {whole.mean():.4g}, so that it is not the mean of the losses of its "
            "examples; give by_example=False"
        )
    if _not_additive(_unbiased(loss, None, None, False)[0], params, batch, keys, whole):
        raise GradbenchError(
            "the loss of an example depends on the other examples of its batch, as with BatchNorm "
            "or a mean over a mask; give by_example=False"
        )
    rounding = 1e-5 * max(abs(whole.mean()), abs(parts.mean()))
    if abs(whole.mean() - parts.mean()) > _TOO_FAR * spread + rounding:
        raise GradbenchError(
            f"the loss of the batch, {whole.mean():.4g}, is not the mean of the losses of its "
            f"examples, {parts.mean():.4g}; give by_example=False"
        )


def _not_additive(loss: Loss, params: Params, batch: Batch, keys: Array, whole: np.ndarray) -> bool:
    """Return whether a loss is no sum over the examples, while its noise belongs to their places.

    Examples of even and odd numbers take each other's places, one of the two groups, the other or
    both: L(e, o) - L(o, o) - L(e, e) + L(o, e) is 0 for a sum.
    """
    pairs = batch_size(batch) // 2 * 2
    places = np.arange(batch_size(batch))
    even, odd = (places[:pairs] % 2 == k for k in (0, 1))
    found = [whole]
    for moved in (even, odd, even | odd):
        own = places.copy()
        own[:pairs] = np.where(moved, places[:pairs] ^ 1, places[:pairs])
        other = jax.tree.map(lambda leaf, own=own: leaf[own], batch)
        values = _values(loss, params, other, jax.random.clone(keys))
        found.append(np.asarray(values, np.float64))
    change = found[0] - found[1] - found[2] + found[3]
    rounding = 1e3 * float(jnp.finfo(real_type(params)).eps)
    return int((abs(change) > rounding * np.abs(found).sum(0)).sum()) >= _SEVERAL


@partial(jax.jit, static_argnums=0)
def _values(loss: Loss, params: Params, batch: Batch, keys: Array) -> Array:
    return jax.vmap(loss, (None, 0, None))(params, keys, batch)


# Compiled functions are cached by these objects, which must therefore be the same in each call.
_counterpart = lru_cache(counterpart)
_made = lru_cache(make_estimator)


@partial(jax.jit, static_argnums=0)
def _exact(model: Model, params: Params, batch: Batch) -> Params:
    return jax.grad(partial(route_of(model), model))(params, batch)


def _sampled(
    loss: Loss, params: Params, batch: Batch, key: Array, draws: int, each: bool
) -> tuple[Params, tuple[Blocks, ...]]:
    """Return the mean of draws, with the structure of the parameters, and the blocks per layer.

    ``each`` says whether examples were run one by one.
    """
    size = at_least(2 * BLOCKS, "reference_draws", draws) // BLOCKS
    size = 1 << (size.bit_length() - 1)
    remedy = "take another one"
    if each:  # as with a deviation over the batch, which is 0 over one example
        remedy = (
            "give by_example=False where the loss is not the mean of the losses of its examples, "
            "as with BatchNorm"
        )
    cell = Cell(loss, params, batch, key, "the unbiased estimator", remedy)
    found = []
    for _, gradients in cell.draws(range(0, draws, size)):
        found.append([moments_of(rows) for rows in gradients])
    blocks = tuple(
        Blocks(*(np.stack(part) for part in zip(*layer, strict=True)))
        for layer in zip(*found, strict=True)
    )
    if not all(np.isfinite(layer.means).all() for layer in blocks):
        raise cell.not_finite()
    with float64():
        return from_vectors([layer.mean() for layer in blocks], params), blocks
