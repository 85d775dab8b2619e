"""A canary: whether compiled code computes right values here, before anything is measured.

Releases of jaxlib have computed wrong values without a word. That of 0.10.2 for CPUs mixes up rows
where two sums over one short axis are broadcast back to it, or the sums of squares of
matrix-vector products are taken, for many rows at a time: beyond 32768 numbers in float32, and
beyond 16384 in float64 (https://github.com/jax-ml/jax/issues/39103).
"""

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradbench.core import canary
from gradbench.core.devices import kind, on_host
from gradbench.core.errors import GradbenchError
from gradbench.core.precision import float64

RIGHT = {"0.10.1": "", "0.12.0.1": " on Python 3.12 and later"}  # releases that are known to be
TYPES = ("float32", "float64")
# Beyond the sizes from which values of 0.10.2 are wrong, and where many are: of 2^16 rows and more
# it makes other code, which is right.
SHAPE = (32_769, 3)


class Probe(NamedTuple):
    """A computation on rows of small integers, in JAX and in numpy: both are free of rounding.

    ``what`` says in words what is computed.
    """

    what: str
    compiled: Callable[[Float[Array, "rows n"]], Array]
    right: Callable[[Int[np.ndarray, "rows n"]], np.ndarray]


def _weights(n: int) -> np.ndarray:
    return np.arange(1, n + 1)


def _matrix(n: int) -> np.ndarray:
    return np.arange(n * n).reshape(n, n) % 5 - 2


def _scaled(x: Float[Array, " n"]) -> Array:
    return (jnp.sum(x * x) - jnp.sum(jnp.asarray(_weights(len(x)), x.dtype) * x)) * x


def _square(x: Float[Array, " n"]) -> Array:
    return jnp.sum((jnp.asarray(_matrix(len(x)), x.dtype) @ x) ** 2)


PROBES = (
    Probe(
        "two sums over a short axis that are broadcast back to it",
        jax.vmap(_scaled),
        lambda x: ((x * x).sum(1) - (_weights(x.shape[1]) * x).sum(1))[:, None] * x,
    ),
    Probe(
        "squared norms of matrix-vector products",
        jax.vmap(_square),
        lambda x: ((x @ _matrix(x.shape[1]).T) ** 2).sum(1),
    ),
)

_found: dict[tuple[str, bool], str] = {}  # by backend and compiler option, what is wrong, or ""


def check_platform() -> None:
    """Refuse a platform whose compiled code computes wrong values; checked once per backend.

    What is computed is compiled as everything else in the process is, with its options and flags,
    for the backend that computes by default and, beside an accelerator, for the host; also where
    the call is inside ``jax.jit``.

    Raises:
        GradbenchError: a value is wrong. The sentence names releases that are right.
    """
    _check()
    if kind() != "cpu":
        with on_host():
            _check()


def _check() -> None:
    # The one option that a process may change after it has begun to compile.
    key = (kind(), bool(jax.config.read("jax_disable_most_optimizations")))
    if key not in _found:
        _found[key] = _find_wrong()
        if not _found[key]:
            canary.record(key[0])
    if _found[key]:
        raise GradbenchError(_refusal(key[0], _found[key]))


def _find_wrong() -> str:
    """Return what is computed wrongly and in which type, in words; "" if all is right."""
    rows = _rows(*SHAPE)
    for dtype, results in zip(TYPES, _computed(rows), strict=True):
        for probe, result in zip(PROBES, results, strict=True):
            if not np.array_equal(result, probe.right(rows)):
                return f"{probe.what}, in {dtype}"
    return ""


def _rows(n: int, length: int) -> Int[np.ndarray, "n length"]:
    """Return integers from -8 to 7 without a pattern, by the multiples of a prime modulo 2^16."""
    return ((np.arange(n * length) * 40503 % 65536) // 4096 - 8).reshape(n, length)


def _computed(rows: np.ndarray) -> list[list[np.ndarray]]:
    """Return the results of all probes for each type, by one program that is compiled anew."""

    def program(arrays: list[Array]) -> list[list[Array]]:
        return [[probe.compiled(x) for probe in PROBES] for x in arrays]

    with float64(), jax.ensure_compile_time_eval():
        found = jax.jit(program)([rows.astype(dtype) for dtype in TYPES])
        return [[np.asarray(result) for result in results] for results in found]


def _refusal(backend: str, what: str) -> str:
    own = version("jaxlib")
    others = [f"{right}{where}" for right, where in RIGHT.items() if right != own]
    flags = " and unset XLA_FLAGS" if os.environ.get("XLA_FLAGS") else ""
    return (
        f"jaxlib {own} computes wrong values on {backend} ({what}), so that nothing is "
        f"measured; install a release that is right{flags}, such as {' or '.join(others)}: "
        f'pip install "jax=={others[0].split()[0]}" "jaxlib=={others[0].split()[0]}"'
    )
