"""Parameters of a model: any pytree, its layers, and what in it is no array.

Those of the package's own networks are tuples, with an entry per layer and one for the objective.
A model in Flax or Equinox has the state or the module of that library.
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
    """The layers that have real parameters: their names, and their leaves.

    Of a tuple they are "layer 1", "layer 2", ... and, for its last entry, "output". Of any other
    pytree they are what it holds at its top, the members of lists one by one: the attributes of a
    module, such as "layers.0", "layers.1" and "head".
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
            seen[name] += 1  # an attribute "a" with an entry 0, beside one that is called "a.0"
            layers.append((name if seen[name] == 1 else f"{name}#{seen[name]}", own))
    return layers


def entries_of(params: PyTree) -> list[int]:
    """For each leaf the number of its entry: of a tuple, or its layer of any other pytree.

    What is not real counts to the layer before.
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
    """The parts of a pytree with their names; lists, and a part alone in its place, are opened."""
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
    """Whether it is a mapping from numbers, as the states of lists of modules are."""
    keys = getattr(part, "keys", None)
    names = list(keys()) if callable(keys) else []
    return bool(names) and all(isinstance(name, int) for name in names)


def _real(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def real_type(params: PyTree) -> Any:
    """The type of the real numbers among parameters; where there are none, that of a number."""
    leaves = list(filter(_real, jax.tree.leaves(params)))
    return jnp.result_type(*leaves) if leaves else jnp.result_type(float)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Static:
    value: Any


def closed(params: PyTree, numbers: bool = False) -> PyTree:
    """Parameters whose leaves are arrays: functions, flags and the like become part of the form.

    Modules of Equinox hold such: JAX's transformations of the estimators then pass them over.
    With ``numbers`` real ones of Python become arrays, where nothing else has made them so.
    """

    def close(leaf: Any) -> Any:
        leaf = np.asarray(leaf) if numbers and isinstance(leaf, float) else leaf
        return leaf if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else _Static(leaf)

    return jax.tree.map(close, params)


def opened(params: PyTree) -> PyTree:
    """What was ``closed``, as the model knows it."""

    def static(leaf: Any) -> bool:
        return isinstance(leaf, _Static)

    return jax.tree.map(lambda leaf: leaf.value if static(leaf) else leaf, params, is_leaf=static)


def layer_names(params: Params) -> tuple[str, ...]:
    """Names of the layers that have parameters, see ``gradbench.parameters``."""
    return tuple(name for name, _ in layers_of(params))


def layer_vectors(params: Params, lead: int = 0) -> tuple[Array, ...]:
    """Per layer with parameters, its leaves as one vector, after ``lead`` axes that are kept."""
    return tuple(
        jnp.concatenate([jnp.reshape(x, (*jnp.shape(x)[:lead], -1)) for x in leaves], axis=lead)
        for _, leaves in layers_of(params)
    )


def from_vectors(vectors: Sequence[np.ndarray], params: Params) -> Params:
    """Vectors per layer in the form of the parameters: ``layer_vectors`` the other way round."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), float), params)
    apart = jax.linear_transpose(layer_vectors, like)(tuple(map(jnp.asarray, vectors)))[0]
    return jax.tree.map(np.asarray, apart)
