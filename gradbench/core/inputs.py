"""The one check of what users hand in: a model, parameters, a batch and a key.

Every entry point calls ``checked`` before anything else. It looks at types and shapes, and traces
the model once on one example, which finds its stochastic layers; nothing is compiled or run. So it
works under ``jit``, ``grad`` and ``vmap`` too. Values are looked at where that is asked for, as far
as they are known.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradbench.core.callables import check_model, short
from gradbench.core.contract import Batch, Model, Params, Site
from gradbench.core.errors import GradbenchError
from gradbench.core.pytrees import closed, layer_names
from gradbench.core.run import Outline, as_examples, batch_size, find_outline
from gradbench.core.uniforms import check_key, is_key

_NO_KEY: Any = object()  # of entry points that take none
_UNREAL = "remove what is not trained, by equinox.partition or flax.nnx.split"


class Checked(NamedTuple):
    """What ``checked`` has looked at.

    ``params`` are the parameters as ``pytrees.closed`` makes them, ``examples`` the batch as the
    model sees it, ``sites`` the stochastic layers of the model, and ``has_aux`` says whether it
    returns more than its objective.
    """

    params: Params
    examples: Batch
    sites: tuple[Site, ...]
    has_aux: bool


def checked(
    model: Model,
    params: Params,
    batch: Batch,
    key: Any = _NO_KEY,
    *,
    finite: bool = False,
    differentiated: bool = False,
    own: bool = False,
) -> Checked:
    """Refuse a model, parameters, a batch or a key that nothing can be computed from.

    Shapes and types of ``params`` and ``batch`` are enough.

    Args:
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: any pytree. Leaves that are no arrays, such as functions and flags, stay as they
            are.
        batch: examples along the first axis of its leaves.
        key: a key, where the entry point takes one.
        finite: whether to refuse NaN and infinity in the parameters and the batch.
        differentiated: whether the gradient in ``params`` is taken here, so that all arrays have to
            be real and there has to be one. Floats of Python then become arrays.
        own: whether the model is asked too, by its ``check(params, batch)``, which may refuse
            values. They have to be known then.

    Raises:
        GradbenchError: the sentence names what is wrong and where.
    """
    check_model(model)
    check_data(params, batch, key, finite=finite, differentiated=differentiated)
    if own and hasattr(model, "check"):
        model.check(params, batch)
    params = closed(params, numbers=differentiated)
    examples = as_examples(model, jax.random.key(0) if key is _NO_KEY else key, batch)
    return Checked(params, examples, *_outline(model, params, examples))


# What the models have been found to be, while ``outlines_kept``.
_KEPT: ContextVar[dict[Any, Outline] | None] = ContextVar("outlines", default=None)


@contextmanager
def outlines_kept() -> Iterator[None]:
    """Return a context in which a model is traced once for arrays of the same shapes and types.

    It is for models that do not change, and for one that is hashed by what it is.
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def _outline(model: Model, params: Params, examples: Batch) -> Outline:
    known = _KEPT.get()
    if known is None:
        return find_outline(model, params, examples, batched=True)
    leaves, form = jax.tree.flatten((params, examples))
    like = tuple((jnp.shape(leaf), leaf.dtype) for leaf in leaves)
    place = model, form, like, jnp.result_type(float)
    if place not in known:
        known[place] = find_outline(model, params, examples, batched=True)
    return known[place]


def check_data(
    params: Params,
    batch: Batch,
    key: Any = _NO_KEY,
    *,
    finite: bool = False,
    differentiated: bool = False,
) -> None:
    """Do the part of ``checked`` that needs no model, for a loss of the user's own.

    Raises:
        GradbenchError: see ``checked``.
    """
    if key is not _NO_KEY:
        check_order(key, batch)
        check_key(key)
    check_params(params, differentiated)
    _check_batch(batch)
    if finite:
        check_finite("parameters", params)
        check_finite("data", batch)


def check_order(key: Any, batch: Batch) -> None:
    """Refuse a key and a batch that are given in the wrong order.

    Raises:
        GradbenchError: the batch is a key, and the key is none.
    """
    if key is not None and is_key(batch) and not is_key(key):
        raise GradbenchError(
            "the batch is a key and the key is none, so that they seem to be exchanged; the key "
            "comes before the batch: loss(params, key, batch)"
        )


def check_hash(model: Model) -> None:
    """Refuse a model that compiled functions cannot be cached by.

    Raises:
        GradbenchError: it has no hash.
    """
    try:
        hash(model)
    except TypeError:
        raise GradbenchError(
            f"the model of type {type(model).__name__} has no hash, by which compiled functions "
            "are cached; give a function or a frozen dataclass"
        ) from None


def refuse_traced(name: str, *trees: Any) -> None:
    """Refuse arrays whose values are not known.

    Raises:
        GradbenchError: the call is inside a transformation.
    """
    if any(isinstance(leaf, jax.core.Tracer) for _, leaf in _leaves(trees)):
        raise GradbenchError(
            f"{name}() is called inside a transformation; call it outside of jit, grad and vmap"
        )


def check_params(params: Params, differentiated: bool = False) -> None:
    """Refuse parameters with an array that JAX cannot take, or cannot differentiate in.

    Raises:
        GradbenchError: names the type and the place.
    """
    for place, leaf in _leaves(params):
        dtype = getattr(leaf, "dtype", None)
        if not (hasattr(leaf, "shape") and dtype is not None):
            continue  # a function or a flag, which stays as it is
        if not _is_taken(leaf):
            raise GradbenchError(
                f"the parameters hold an array of {dtype} at {place}; give arrays of real numbers"
            )
        if differentiated and not jnp.issubdtype(dtype, jnp.floating):
            raise GradbenchError(
                f"the parameters hold {dtype} at {place}; give real numbers, or {_UNREAL}"
            )
    if differentiated and not layer_names(closed(params, numbers=True)):
        raise GradbenchError(
            f"the parameters, of type {type(params).__name__}, hold no real array; give a "
            "pytree of arrays, such as a tuple with an entry per layer and one for the objective"
        )


def _check_batch(batch: Batch) -> None:
    for place, leaf in _leaves(batch):
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise GradbenchError(
                f"the batch holds {short(leaf)} at {place}, which is no array; give arrays with "
                "the examples along their first axis, such as jnp.asarray(rows)"
            )
        if not _is_taken(leaf):
            raise GradbenchError(
                f"the batch holds an array of {leaf.dtype} at {place}; give arrays of numbers"
                + (", with rows of one length" if leaf.dtype == object else "")
            )
    batch_size(batch)


def check_finite(what: str, tree: Any) -> None:
    """Refuse NaN and infinity in a pytree, as far as its values are known.

    Args:
        what: what the tree is called in the sentence.
        tree: a pytree.

    Raises:
        GradbenchError: names the value and the place.
    """
    for place, leaf in _leaves(tree):
        values = _values(leaf)
        if values is not None and not (fine := np.isfinite(values)).all():
            raise GradbenchError(
                f"the {what} hold {values[~fine].flat[0]} at {place}; give finite numbers"
            )


def not_finite(what: str) -> GradbenchError:
    """Return the error for a result that is not finite, where all that it is made of is."""
    return GradbenchError(
        f"the {what} is not finite; check the objective at all states that the units can take"
    )


def is_finite(tree: Any) -> bool:
    """Return whether no leaf of a pytree is known to hold NaN or infinity."""
    found = (_values(leaf) for leaf in jax.tree.leaves(tree))
    return all(values is None or bool(np.isfinite(values).all()) for values in found)


def _values(leaf: Any) -> np.ndarray | None:
    """Return the values of a leaf of real or complex numbers; None where they are not known."""
    if isinstance(leaf, float):
        return np.asarray(leaf)
    known = isinstance(leaf, np.ndarray | np.generic) or (
        isinstance(leaf, jax.Array)
        and not isinstance(leaf, jax.core.Tracer)
        and leaf.is_fully_addressable
    )
    return np.asarray(leaf) if known and jnp.issubdtype(leaf.dtype, jnp.inexact) else None


_TAKEN = tuple(map(np.dtype, ("float32", "float64", "int32", "int64", "uint32", "bool")))


def _is_taken(leaf: Any) -> bool:
    """Return whether JAX takes an array: numbers of any kind, booleans, keys."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) or (
        isinstance(leaf, np.ndarray) and leaf.dtype in _TAKEN
    ):
        return True
    try:
        jax.eval_shape(lambda array: None, leaf)
    except TypeError:
        return False
    return True


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a pytree with their places, such as "[0]['weight']"."""
    try:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
    except (TypeError, ValueError) as error:  # keys that cannot be compared
        raise GradbenchError(
            f"{short(tree)} is no pytree ({error}); give dictionaries whose keys are all strings"
        ) from error
    for path, leaf in leaves:
        yield jax.tree_util.keystr(path) or "its top", leaf
