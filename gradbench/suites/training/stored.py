"""What is stored of runs, read back into the trees that they were."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradbench.core.atomic import CorruptFile, Floats, Json
from gradbench.core.names import visible_lines
from gradbench.results import runs
from gradbench.results.store import Results


def load(results: Results, kind: str, identity: Json) -> runs.Stored | None:
    """Return what is stored, None where nothing is or it is damaged, which is printed."""
    try:
        return runs.load(results, kind, identity)
    except CorruptFile as error:
        print(f"gradbench: {visible_lines(str(error))}; it is begun anew", file=sys.stderr)
        return None


def flattened(name: str, tree: Any) -> dict[str, Floats]:
    """Return the leaves of a tree as arrays to store under a name; ``restored`` is the inverse."""
    return {f"{name}/{k}": np.asarray(leaf) for k, leaf in enumerate(jax.tree.leaves(tree))}


def restored(arrays: dict[str, Floats], name: str, like: Any) -> Any:
    """Return the tree that was stored under a name, in the form and the types of another.

    Raises:
        CorruptFile: its arrays are missing, or of another shape.
    """
    leaves, form = jax.tree.flatten(like)
    found = [arrays.get(f"{name}/{k}") for k in range(len(leaves))]
    fits = all(
        one is not None and one.shape == leaf.shape for one, leaf in zip(found, leaves, strict=True)
    )
    if not fits:
        raise CorruptFile(
            f"the stored runs have no {name!r} of the right shapes; delete the directory 'runs' of "
            "the results and run again"
        )
    return jax.tree.unflatten(
        form,
        [jnp.asarray(one).astype(leaf.dtype) for one, leaf in zip(found, leaves, strict=True)],
    )
