"""The devices that compute, and the host, which computes statistics beside an accelerator.

Accelerators are slow in float64, or only imitate it. Draws are made on them in float32 unless a
suite says otherwise. What is computed of the draws, and all that is exact, is computed in float64
on the host.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from gradbench.core.errors import GradbenchError, did_you_mean

KINDS = ("cpu", "gpu", "tpu")
T = TypeVar("T")
_NONE = (RuntimeError, AssertionError)  # of JAX: there is no such device, or its driver fails


def devices() -> list[Any]:
    """Return the devices that compute unless told otherwise; the one that was chosen, if any.

    Raises:
        GradbenchError: JAX finds none.
    """
    import jax

    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    if chosen is not None and not isinstance(chosen, str):
        return [chosen]
    try:
        return list(jax.local_devices(backend=chosen))
    except _NONE as error:
        raise GradbenchError(
            f"JAX finds no device to compute on ({str(error).partition(chr(10))[0] or 'none'}), as "
            f"JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS')!r}; unset it, or give --device cpu"
        ) from error


def kind() -> str:
    """Return what kind of device computes: "cpu", or that of an accelerator, such as "gpu"."""
    return str(devices()[0].platform)


def default_dtype() -> str:
    """Return the precision of draws that is not slow on the device: "float64" or "float32"."""
    return "float64" if kind() == "cpu" else "float32"


@contextmanager
def computing_on(wanted: str | None) -> Iterator[None]:
    """Return a context in which a kind of device computes, on all devices of that kind.

    Before JAX has computed anything, no other devices are woken up for "cpu", and several processes
    may share a "gpu".

    Args:
        wanted: "cpu", "gpu" or "tpu"; None for what JAX takes by itself.

    Raises:
        GradbenchError: there is no such kind of device, or JAX sees none of it here.
    """
    if wanted is None:
        yield
        return
    if wanted not in KINDS:
        raise GradbenchError(f"the device is {wanted!r}; {did_you_mean(wanted, KINDS)}")
    if wanted == "gpu":  # else the first process would take most of its memory at once
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    before = jax.config.jax_platforms  # type: ignore[attr-defined]
    try:
        if wanted == "cpu":
            jax.config.update("jax_platforms", "cpu")
        if not present(wanted):
            raise GradbenchError(_absent(wanted))
        with contextlib.nullcontext() if kind() == wanted else jax.default_device(wanted):
            yield
    finally:
        jax.config.update("jax_platforms", before)


def on_host() -> AbstractContextManager[Any]:
    """Return a context in which the host computes; nothing changes where it does already.

    Raises:
        GradbenchError: JAX was told to leave the host out.
    """
    import jax

    return contextlib.nullcontext() if kind() == "cpu" else jax.default_device(_host())


def to_host(tree: T) -> T:
    """Return a pytree of arrays in the memory of the host, where another device computes.

    Raises:
        GradbenchError: JAX was told to leave the host out.
    """
    import jax

    return tree if kind() == "cpu" else jax.device_put(tree, _host())


def in_full_precision() -> AbstractContextManager[Any]:
    """Return a context in which products of matrices are computed in the precision of their type.

    Accelerators would round numbers of float32 to fewer digits before they multiply them. On a CPU
    nothing changes.
    """
    import jax

    usual = kind() == "cpu"
    return contextlib.nullcontext() if usual else jax.default_matmul_precision("highest")


def present(wanted: str) -> list[Any]:
    """Return the devices of a kind that JAX sees; none where their driver does not start."""
    import jax

    try:
        return list(jax.local_devices(backend=wanted))
    except _NONE:
        return []


def _absent(wanted: str) -> str:
    """Return the sentence about a kind of device that is not there."""
    there = {one: len(present(one)) for one in KINDS}
    said = " and ".join(
        f"{count} {one}{'s' * (count > 1)}" for one, count in there.items() if count
    )
    told = os.environ.get("JAX_PLATFORMS")
    limits = f" as JAX_PLATFORMS is {told!r}" if told else ""
    remedy = f"give --device {next((one for one in there if there[one]), 'cpu')}"
    return (
        f"JAX sees no {wanted} here but {said or 'nothing'}{limits}; {remedy}, or install the "
        f"jaxlib for it"
    )


def _host() -> Any:
    if not (found := present("cpu")):
        raise GradbenchError(
            f"JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS')!r} without cpu, which computes "
            "statistics; add it behind a comma, as in cuda,cpu"
        )
    return found[0]
