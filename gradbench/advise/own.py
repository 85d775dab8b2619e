"""Problems of one's own in Python files, as ``gradbench run FILE.py:NAME`` takes them."""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

from gradbench.core import plugins
from gradbench.core.contract import Batch, Model, Params
from gradbench.core.errors import GradbenchError

_WANTED = "a tuple of a model, its parameters and a batch"


class OwnProblem(NamedTuple):
    """A model, its parameters and a batch, with the name that results call the problem."""

    name: str
    model: Model
    params: Params
    batch: Batch


def read_own(path: str) -> OwnProblem:
    """Return the problem that ``path`` names: "file.py:name" or "module:name".

    The name is that of a tuple of a model, its parameters and a batch, or of a function without
    arguments that returns one.

    Raises:
        GradbenchError: there is no such file or name, the file fails, or it is no problem.
    """
    found = plugins.imported(path, "problem", candidates)
    returned = callable(found)
    if returned:
        found = plugins.called(found, path, "problem")
    if not _is_problem(found):
        what = "returns" if returned else "is"
        raise GradbenchError(
            f"the problem {path!r} {what} {_described(found)}; give {_WANTED}, or a function that "
            "returns one"
        )
    return OwnProblem(path.rpartition(":")[2], *found)


def default_directory(path: str) -> Path:
    """Return the directory of the results of a problem, ``results/FILE-NAME``."""
    place, _, name = path.rpartition(":")
    module = Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    return Path("results") / f"{module}-{name}"


def candidates(module: ModuleType) -> list[str]:
    """Return the names in a module that may be problems."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (_is_problem(value) or _makes_one(value, module))
    ]


def _is_problem(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 3 and callable(value[0])


def _makes_one(value: Any, module: ModuleType) -> bool:
    """Return whether it is a function of the module that can be called without arguments."""
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    parameters = inspect.signature(value).parameters.values()
    return all(
        one.default is not one.empty or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        for one in parameters
    )


def _described(value: Any) -> str:
    """Return what a value is, in words."""
    kind = type(value).__name__
    if isinstance(value, tuple | list):
        return f"a {kind} of {len(value)}" + (", not of 3" if len(value) != 3 else "")
    return f"of type {kind}"


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Switch all of JAX to float64, for callbacks of a model.

    They run in threads that the float64 of a context does not reach.
    """
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
