"""What the result of a function can depend on, from its traced program."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import Var


def depends_on(number: int, f: Callable[..., Any], *args: Any) -> bool:
    """Return whether f can depend on the argument of that number, which is an array."""
    program = jax.make_jaxpr(f)(*args).jaxpr
    position = len(jax.tree.leaves(args[:number]))
    return any(position in found for found in sources(program))


def sources(program: Any, given: Sequence[frozenset[int]] | None = None) -> list[frozenset[int]]:
    """Return for each result of a program the numbers of the arguments that it can depend on.

    Args:
        program: a ``jaxpr``.
        given: what each of its arguments depends on, itself alone by default.
    """
    if given is None:
        given = [frozenset([k]) for k in range(len(program.invars))]
    known = dict(zip(program.invars, given, strict=True))

    def of(value: Any) -> frozenset[int]:
        return known.get(value, frozenset()) if isinstance(value, Var) else frozenset()

    for equation in program.eqns:
        args = [of(value) for value in equation.invars]
        inner = _called(equation)
        if inner is not None:
            results = sources(inner, args)
        else:
            results = [frozenset().union(*args)] * len(equation.outvars)
        known.update(zip(equation.outvars, results, strict=True))
    return [of(value) for value in program.outvars]


def _called(equation: Any) -> Any:
    """Return the program that a call such as jit runs on its arguments, None of other equations."""
    if equation.primitive.name not in _CALLS:
        return None
    inner = next((p for p in equation.params.values() if hasattr(p, "eqns")), None)
    inner = getattr(inner, "jaxpr", inner)
    same = inner is not None and len(inner.invars) == len(equation.invars)
    return inner if same else None


Entrywise: TypeAlias = Literal["affine", "nonlinear", ""]

# Primitives of JAX that give each entry of the result from the same entries of their arguments.
_AFFINE = {"add", "sub", "neg", "mul", "div", "copy"}  # of at most one factor, over a constant
_ENTRYWISE = set(
    """
    abs max min sign floor ceil round clamp select_n lt le gt ge eq ne and or not xor is_finite
    exp exp2 expm1 log log1p pow integer_pow square sqrt rsqrt cbrt rem logistic tanh sin cos tan
    asin acos atan atan2 sinh cosh asinh acosh atanh erf erfc erf_inv convert_element_type
    """.split()  # noqa: SIM905
)
_CALLS = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"}


def entrywise(f: Callable[..., Any], shape: tuple[int, ...]) -> Entrywise:
    """Return how each entry of f(x) depends on the same entry of x [*shape], and on no other one.

    It is "affine" where f(x) = s x + t, with a number s for all entries; "" where f(x) is no array
    of that shape, or where its traced program does not show that it depends entry by entry.
    """
    x = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
    program = jax.make_jaxpr(f)(x).jaxpr
    found = _follow(program, ["affine"], shape)
    if found is None or len(found) != 1 or program.outvars[0].aval.shape != shape:
        return ""
    return "nonlinear" if found[0] == "nonlinear" else "affine"


def _follow(program: Any, given: Sequence[str], shape: tuple[int, ...]) -> list[str] | None:
    """Return how each result of a program depends on x, from how its arguments do.

    Each is "constant" or as ``entrywise`` says; None stands for results that mix entries.
    """
    kinds = dict(zip(program.invars, given, strict=True))

    def kind(value: Any) -> str:
        return kinds.get(value, "constant") if isinstance(value, Var) else "constant"

    for equation in program.eqns:
        name, values = equation.primitive.name, equation.invars
        args = [kind(value) for value in values]
        if all(arg == "constant" for arg in args):
            continue
        inner = _called(equation)
        if inner is not None:
            results = _follow(inner, args, shape)
            if results is None:
                return None
            kinds.update(zip(equation.outvars, results, strict=True))
            continue
        if name not in _AFFINE | _ENTRYWISE or any(
            out.aval.shape != shape for out in equation.outvars
        ):
            return None
        linear = name in _AFFINE and "nonlinear" not in args
        if name in ("mul", "div"):
            other = values[1] if args[0] == "affine" else values[0]
            divides = name == "div" and args[1] != "constant"
            linear &= kind(other) == "constant" and other.aval.shape == () and not divides
        kinds.update((out, "affine" if linear else "nonlinear") for out in equation.outvars)
    return [kind(out) for out in program.outvars]
