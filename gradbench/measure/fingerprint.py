"""Fingerprints of models, parameters and data, by which saved work is recognised."""

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


def fingerprint(tree: Any) -> str:
    """Return a hash of the names, shapes, types and values of all leaves of a pytree."""
    found = hashlib.blake2b()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def model_fingerprint(model: Model, params: Params, batch: Batch) -> str:
    """Return a hash of what a model computes.

    It covers the program that is traced on one example, its constants and its noises. Constants
    inside functions that the program calls are not visible there, so that the hash also covers the
    values of the model on two examples at fixed states and, where it has one, their gradient.
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

    results = [values(params)]
    with contextlib.suppress(ValueError):  # a black box has no gradient
        results += jax.tree.leaves(jax.jacrev(values)(params))
    return digest(f"{text}{fingerprint(program.consts)}{fingerprint(results)}".encode())
