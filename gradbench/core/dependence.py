"""What the result of a function can depend on, from its traced program."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Var


def depends_on(number: int, f: Callable[..., Any], *args: Any) -> bool:
    """Return whether f can depend on the argument of that number, which is an array."""
    program = jax.make_jaxpr(f)(*args).jaxpr
    position = len(jax.tree.leaves(args[:number]))
    reached = {program.invars[position]}
    for equation in program.eqns:
        if any(isinstance(v, Var) and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    return any(isinstance(v, Var) and v in reached for v in program.outvars)
