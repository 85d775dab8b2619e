"""Parameters of a model: any pytree, its layers, and leaves that are no arrays.

Networks of the package have a tuple with one entry per layer and one for the objective. A model in
Flax or Equinox has the state or the module of that library.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gradbench.core.contract import Params


def layers_of(params: PyTree) -> list[tuple[str, list[Any]]]:
    """Return the layers that have real parameters: their names and their leaves.

    The entries of a tuple are "layer 1", "layer 2", ... and "output", the last one. In any other
    pytree the layers are the parts at its top, with lists opened: the attributes of a module, such
    as "layers.0", "layers.1" and "head".
    """
    if type(params) is tuple and params:
        names = (*(f"layer {k + 1}" for k in range(len(params) - 1)), "output")
        found = list(zip(names, params, strict=True))
    else:
        found = _children("", params)
    leaves = [(name, list(filter(_real, jax.tree.leaves(part)))) for name, part in found]
    seen: Counter[str] = Counter()
    layers = []
    for name, own in leaves:
        if own:
            seen[name] += 1  # an attribute "a" may have an entry 0 beside an attribute "a.0"
            layers.append((name if seen[name] == 1 else f"{name}#{seen[name]}", own))
    return layers


def entries_of(params: PyTree) -> list[int]:
    """Return for each leaf the number of its entry in a tuple, or of its layer in other pytrees.

    A leaf that is not real counts to the layer before it.
    """
    if type(params) is tuple:
        return [k for k, entry in enumerate(params) for _ in jax.tree.leaves(entry)]
    numbers = iter([k for k, (_, own) in enumerate(layers_of(params)) for _ in own])
    number, found = 0, []
    for leaf in jax.tree.leaves(params):
        number = next(numbers) if _real(leaf) else number
        found.append(number)
    return found


def _children(name: str, tree: PyTree) -> list[tuple[str, PyTree]]:
    """Return the parts of a pytree with their names; lists and single parts are opened."""
    parts = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda part: part is not tree)[0]
    parts = [(path, part) for path, part in parts if any(map(_real, jax.tree.leaves(part)))]
    if not parts or not parts[0][0]:  # a leaf
        return [(name or "params", tree)]
    found = []
    for path, part in parts:
        key = jax.tree_util.keystr(path, simple=True, separator=".")
        inner = f"{name}.{key}" if name else key
        listed = isinstance(part, Sequence) or _numbered(part)
        found += _children(inner, part) if listed or len(parts) == 1 else [(inner, part)]
    return found


def _numbered(part: PyTree) -> bool:
    """Return whether it is a mapping from numbers, as the states of lists of modules are."""
    keys = getattr(part, "keys", None)
    names = list(keys()) if callable(keys) else []
    return bool(names) and all(isinstance(name, int) for name in names)


def _real(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def real_type(params: PyTree) -> Any:
    """Return the type of the real parameters, the default one of JAX if there are none."""
    leaves = list(filter(_real, jax.tree.leaves(params)))
    return jnp.result_type(*leaves) if leaves else jnp.result_type(float)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Static:
    value: Any


def closed(params: PyTree, numbers: bool = False) -> PyTree:
    """Make leaves that are no arrays (functions, flags) static, so that JAX skips them.

    Modules of Equinox have such leaves. With ``numbers``, floats of Python become arrays.
    """

    def close(leaf: Any) -> Any:
        leaf = np.asarray(leaf) if numbers and isinstance(leaf, float) else leaf
        return leaf if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else _Static(leaf)

    return jax.tree.map(close, params)


def opened(params: PyTree) -> PyTree:
    """Return ``closed`` parameters as the model knows them."""

    def static(leaf: Any) -> bool:
        return isinstance(leaf, _Static)

    return jax.tree.map(lambda leaf: leaf.value if static(leaf) else leaf, params, is_leaf=static)


def layer_names(params: Params) -> tuple[str, ...]:
    """Return the names of the layers that have parameters, see ``layers_of``."""
    return tuple(name for name, _ in layers_of(params))


def layer_vectors(params: Params, lead: int = 0) -> tuple[Array, ...]:
    """Return the leaves of each layer with parameters as a vector [P], after ``lead`` axes kept."""
    return tuple(
        jnp.concatenate([jnp.reshape(x, (*jnp.shape(x)[:lead], -1)) for x in leaves], axis=lead)
        for _, leaves in layers_of(params)
    )


def from_vectors(vectors: Sequence[np.ndarray], params: Params) -> Params:
    """Return vectors of layers in the form of the parameters, the inverse of ``layer_vectors``."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), float), params)
    apart = jax.linear_transpose(layer_vectors, like)(tuple(map(jnp.asarray, vectors)))[0]
    return jax.tree.map(np.asarray, apart)


def from_rows(rows: Sequence[Array], params: Params) -> Params:
    """Return rows [n, P] of layers as leaves [n, ...] of the parameters' structure."""

    def apart(vectors: tuple[Array, ...]) -> Params:
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), rows[0].dtype), params)
        return jax.linear_transpose(layer_vectors, like)(vectors)[0]

    return jax.vmap(apart)(tuple(rows))
