"""Functions of JAX run in numpy, for many rows at once: what runs once need not be compiled.

A function is traced on one row, and each of its primitives is run in numpy for all rows. Compiling
it would take a hundred times as long as it runs. The tracing is that of JAX, so that derivatives
and transformations are what they are in compiled code. A primitive that has no rule in
``numpy_rules`` is run by JAX.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Literal
from jaxtyping import PyTree

from gradbench.core.compiling import compile_plainly
from gradbench.core.numpy_keys import is_key_type, keys_of, numbers_of
from gradbench.core.numpy_rows import joined, side_by_side
from gradbench.core.numpy_rules import Equation, Step, rule

# Primitives that run a jaxpr on their arguments, and the parameter that has it.
_INLINED = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}


def by_rows(
    f: Callable[..., PyTree], static: tuple[Any, ...], shared: PyTree, rows: PyTree
) -> PyTree:
    """Return ``f(*static, shared, row)`` for each row, as arrays ``[rows, ...]`` of numpy.

    Args:
        f: a pure function, one and the same object for all calls.
        static: arguments that can be hashed.
        shared: arrays that all rows have in common.
        rows: arrays ``[rows, ...]``.
    """
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)
    traced = _jitted(f, len(static)).trace(*static, shared, one)
    found = run_trace(traced, shared, rows)
    n = len(jax.tree.leaves(rows)[0])

    def each(x: Any, like: Any) -> Any:
        if x.ndim > like.ndim:
            return x
        return (np if isinstance(x, np.ndarray) else jnp).broadcast_to(x, (n, *x.shape))

    return jax.tree.map(each, found, traced.out_info)


def take_rows(leaf: Any, rows: np.ndarray) -> Any:
    """Return rows of an array or of random keys, in numpy, which compiles nothing."""
    found = numbers_of(leaf)[rows]
    return keys_of(found) if is_key_type(leaf.dtype) else found


def run_trace(traced: Any, *arguments: PyTree) -> PyTree:
    """Return the results of ``traced = jax.jit(f).trace(*arguments)``, as arrays of numpy.

    Static arguments are left out. If some arrays have an axis of rows in front that those traced
    have not, so have the results that depend on them.
    """
    jaxpr = traced.jaxpr.jaxpr
    values = [*traced.jaxpr.consts, *jax.tree.leaves(arguments)]
    variables = [*jaxpr.constvars, *jaxpr.invars]
    with np.errstate(all="ignore"):
        found = _run_plan(_plan(jaxpr), list(map(_laid_out, values, variables)))
    leaves, form = jax.tree.flatten(traced.out_info)
    given = [
        keys_of(x) if is_key_type(like.dtype) else numbers_of(x)
        for x, like in zip(found, leaves, strict=True)
    ]
    return jax.tree.unflatten(form, given)


@cache
def _jitted(f: Callable[..., Any], static: int) -> Any:
    """Return a function that is never compiled: it is asked for its traces, which JAX keeps."""
    return jax.jit(f, static_argnums=tuple(range(static)))


def _laid_out(x: Any, variable: Any) -> Any:
    """Return the numbers of an array, as the rules expect them in memory."""
    x = numbers_of(x)
    laid = isinstance(x, np.ndarray) and x.ndim > max(1, variable.aval.ndim)
    return side_by_side(x) if laid else x


class _Plan(NamedTuple):
    """What a jaxpr does: steps, each with the places of arguments and results in a list of values.

    The list begins with constants, arguments and what is known: literals and what is made of them
    alone. After a step the values at some places are no longer needed.
    """

    known: tuple[Any, ...]
    steps: tuple[tuple[Step, tuple[int, ...], tuple[int, ...] | int, tuple[int, ...]], ...]
    results: tuple[int, ...]
    size: int


@lru_cache(maxsize=1024)
def _plan(jaxpr: Jaxpr) -> _Plan:
    atoms: list[Any] = [*(v for eqn in jaxpr.eqns for v in eqn.invars), *jaxpr.outvars]
    literals: list[Any] = [v for v in atoms if isinstance(v, Literal)]
    known = {id(v): np.asarray(v.val, v.aval.dtype) for v in literals}
    eqns = []
    for eqn in jaxpr.eqns:
        now = rule(eqn) if all(id(v) in known for v in eqn.invars) else None
        if now is None:
            eqns.append(eqn)
            continue
        found = now(*[known[id(v)] for v in eqn.invars])
        many = eqn.primitive.multiple_results
        known.update(zip(map(id, eqn.outvars), found if many else [found], strict=True))
    places = {id(v): k for k, v in enumerate([*jaxpr.constvars, *jaxpr.invars])}
    for of in (*known, *(id(v) for eqn in eqns for v in eqn.outvars)):
        places[of] = len(places)

    needed = {id(v) for v in jaxpr.outvars}
    steps = []
    for eqn in reversed(eqns):
        if not (eqn.effects or any(id(v) in needed for v in eqn.outvars)):
            continue
        inputs, outputs = list(map(id, eqn.invars)), list(map(id, eqn.outvars))
        done = {*inputs, *outputs} - needed
        needed |= done
        given = tuple(places[v] for v in outputs)
        steps.append(
            (
                _step(eqn),
                tuple(places[v] for v in inputs),
                given if eqn.primitive.multiple_results else given[0],
                tuple(places[v] for v in done),
            )
        )
    return _Plan(
        tuple(known.values()),
        tuple(reversed(steps)),
        tuple(places[id(v)] for v in jaxpr.outvars),
        len(places),
    )


def _run_plan(plan: _Plan, values: list[Any]) -> list[Any]:
    values = [*values, *plan.known]
    values += [None] * (plan.size - len(values))
    for step, taken, given, done in plan.steps:
        found = step(*[values[k] for k in taken])
        if isinstance(given, int):
            values[given] = found
        else:
            for k, one in zip(given, found, strict=True):
                values[k] = one
        for k in done:
            values[k] = None
    return [values[k] for k in plan.results]


def _step(eqn: Equation) -> Step:
    """Return what an equation does with its arguments."""
    name = eqn.primitive.name
    if name in _INLINED:
        inner = eqn.params[_INLINED[name]]
        return partial(_inlined, getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()))
    if name == "scan":
        return partial(_scan, eqn)
    return rule(eqn) or partial(_by_jax, eqn)


def _inlined(jaxpr: Jaxpr, consts: Sequence[Any], *arguments: Any) -> list[Any]:
    return _run_plan(_plan(jaxpr), [*map(numbers_of, consts), *arguments])


def _scan(eqn: Equation, *arguments: Any) -> list[Any]:
    """Run a scan, step by step.

    The arguments are constants, the carry and what is scanned. How many of each there are follows
    from the axes of the body's, as the parameters that say it differ between versions of JAX.
    """
    body, length = eqn.params["jaxpr"], eqn.params["length"]
    inner, closed_over = getattr(body, "jaxpr", body), getattr(body, "consts", ())
    carries = sum(_same_axes(eqn.outvars, inner.outvars))
    consts = sum(_same_axes(eqn.invars, inner.invars)) - carries
    carry = list(arguments[consts : consts + carries])
    ndims = [v.aval.ndim for v in eqn.invars[consts + carries :]]
    xs = [
        np.moveaxis(x, x.ndim - n, 0)
        for x, n in zip(arguments[consts + carries :], ndims, strict=True)
    ]
    outs: list[list[Any]] = []
    order = range(length)
    for k in reversed(order) if eqn.params["reverse"] else order:
        found = _inlined(inner, closed_over, *arguments[:consts], *carry, *(x[k] for x in xs))
        carry = found[:carries]
        outs.append(found[carries:])
    if eqn.params["reverse"]:
        outs.reverse()
    every = [
        joined(np.stack, [out[j] for out in outs], v.aval.ndim - 1, 0)
        if outs
        else np.zeros(v.aval.shape, v.aval.dtype)
        for j, v in enumerate(eqn.outvars[carries:])
    ]
    return [*carry, *every]


def _same_axes(outer: Sequence[Any], inner: Sequence[Any]) -> list[bool]:
    """Return for each variable whether it has as many axes outside of a scan as in its body."""
    return [a.aval.ndim == b.aval.ndim for a, b in zip(outer, inner, strict=True)]


def _by_jax(eqn: Equation, *arguments: Any) -> Any:
    """Run a primitive by JAX, compiled."""
    arguments = tuple(
        keys_of(x) if is_key_type(v.aval.dtype) else x
        for x, v in zip(arguments, eqn.invars, strict=True)
    )
    with_rows = tuple(x.ndim > v.aval.ndim for x, v in zip(arguments, eqn.invars, strict=True))
    what = eqn.primitive, tuple(sorted(eqn.params.items())), with_rows
    try:
        program = _program(*what)
    except TypeError:  # a parameter that has no hash
        program = _program.__wrapped__(*what)
    found = program(*arguments)
    if eqn.primitive.multiple_results:
        return list(map(_laid_out, found, eqn.outvars))
    return _laid_out(found, eqn.outvars[0])


@lru_cache(maxsize=1024)
def _program(primitive: Any, params: Any, with_rows: tuple[bool, ...]) -> Any:
    def f(*xs: Any) -> Any:
        return primitive.bind(*xs, **dict(params))

    mapped = jax.vmap(f, [0 if r else None for r in with_rows]) if any(with_rows) else f
    return compile_plainly(mapped)
