"""What identifies a model, its parameters and its batch on disk."""

import contextlib
import hashlib
import re
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from gradbench.core.atomic import digest
from gradbench.core.contract import Batch, Model, Params
from gradbench.core.run import as_examples, batch_size, find_sites, run_model, sampled
from gradbench.core.uniforms import draw_uniforms


def _fingerprint(tree: Any) -> str:
    """Of names, shapes, types and values of all leaves."""
    found = hashlib.blake2b()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def _fingerprint_of_model(model: Model, params: Params, batch: Batch) -> str:
    """Of what it is and does, as code has no name.

    The program that is traced on an example, its constants and noises; as constants of functions
    that it calls are not told there, also what it gives on two examples at some states, and its
    gradient, where it has one.
    """
    noises: list[str] = []

    def traced(params: Params, example: Any) -> Array:
        run = run_model(model, params, example, lambda site, a: a)
        noises[:] = [repr(site) for site in run.sites]
        return run.f

    examples = as_examples(model, jax.random.key(0), batch)
    one = jax.tree.map(lambda leaf: leaf[0], examples)
    program = jax.make_jaxpr(traced)(params, one)
    text = re.sub("0x[0-9a-f]+", "", f"{program.jaxpr}{noises}")  # where functions lie in memory
    two = jax.tree.map(lambda leaf: leaf[:2], examples)
    shapes = [site.shape for site in find_sites(model, params, one)]
    u = draw_uniforms(jax.random.key(0), shapes, 1, batch_size(two), float)[0]

    def values(params: Params) -> Array:
        return jax.vmap(lambda v, x: sampled(model, params, v, x).f, (-1, 0))(u, two)

    did = [values(params)]
    with contextlib.suppress(ValueError):  # a black box has none
        did += jax.tree.leaves(jax.jacrev(values)(params))
    return digest(f"{text}{_fingerprint(program.consts)}{_fingerprint(did)}".encode())
