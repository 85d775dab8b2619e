"""State inside parameters, as modules of Flax NNX and Equinox have it: keys, and what changes.

An estimator runs a model on copies of its parameters, on one example at a time and several times
for a draw, and carries no state from run to run: what changes is refused. Keys are the exception.
Each example of each draw gets keys of its own, the same in all runs that the draw compares.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.contract import Batch, Example, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.uniforms import random_words

_STREAM = 0x6B65  # folded into the key of a draw; streams of uniforms are folded in from 0

Leaves: TypeAlias = dict[tuple[Any, ...], Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Keyed:
    """An example, or a batch of them, with keys in the place of those among the parameters."""

    example: Example
    keys: list[Array]


def keyed(params: Params, key: Array, examples: Batch, count: int) -> Batch:
    """Return ``count`` examples with their own keys; as they are where the parameters hold none.

    A key depends on the one in its place, on ``key`` and on the number of the example.
    """
    own = [leaf for leaf in jax.tree.leaves(params) if is_key_array(leaf)]
    if not own:
        return examples
    words = random_words(jax.random.fold_in(key, _STREAM), count)
    fold = jax.vmap(jax.random.fold_in, (0, None))  # an array of keys has one word for an example
    return Keyed(
        examples,
        [
            jax.vmap(lambda word, k=k: fold(k.ravel(), word).reshape(k.shape))(words)
            for k in map(jax.random.clone, own)
        ],
    )


def unkeyed(params: Params, example: Example) -> tuple[Params, Example]:
    """Return parameters with the keys of an example, and the example that the model sees.

    Keys are cloned: the runs that a draw compares have them in common on purpose.
    """
    if isinstance(example, Keyed):
        keys, example = iter(example.keys), example.example
        params = jax.tree.map(lambda leaf: next(keys) if is_key_array(leaf) else leaf, params)
    return cloned((params, example))


def cloned(tree: Any) -> Any:
    """Return a pytree whose keys are clones, for JAX's check of their reuse."""
    return jax.tree.map(lambda leaf: jax.random.clone(leaf) if is_key_array(leaf) else leaf, tree)


def leaves_of(params: Params) -> Leaves:
    """Return the leaves of parameters by their paths."""
    return dict(jax.tree_util.tree_leaves_with_path(params))


def refuse_changes(before: Leaves, params: Params) -> None:
    """Refuse a model that has changed its parameters, but for the count of a generator of keys.

    Args:
        before: the ``leaves_of`` the parameters before the run of the model.
        params: the same object after it.

    Raises:
        GradbenchError: names what has changed.
    """
    try:
        after = leaves_of(params)
    except ValueError:  # of a state that is not to be used again
        raise _changes("an equinox.nn.State") from None
    changed = [path for path in after if after[path] is not before.get(path, _NOTHING)]
    changed += [path for path in before if path not in after]
    found = [path for path in changed if not _is_count(path, before)]
    if found:
        names = [jax.tree_util.keystr(path).removesuffix(".value").lstrip(".") for path in found]
        raise _changes(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))


_NOTHING = object()


def _changes(what: str) -> GradbenchError:
    return GradbenchError(
        f"the model changes {what} of its parameters while it runs, which no estimator carries on, "
        "as it runs a model on one example at a time; give BatchNorm its running averages "
        "(module.eval()) and update them beside the training, or take LayerNorm"
    )


def is_key_array(leaf: Any) -> bool:
    """Return whether a leaf is a key, or an array of keys, of ``jax.random.key``."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _is_count(path: tuple[Any, ...], leaves: Leaves) -> bool:
    """Return whether a leaf is a whole number beside a key, as an ``nnx.RngStream`` has it."""
    number = getattr(leaves.get(path), "dtype", None)
    return (
        number is not None
        and jnp.issubdtype(number, jnp.integer)
        and any(
            is_key_array(leaf)
            and len(other) == len(path)
            and sum(a != b for a, b in zip(other, path, strict=True)) == 1
            for other, leaf in leaves.items()
        )
    )
