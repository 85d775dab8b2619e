"""The origin of a thing that has a name: its own docstring, and the line that registers it."""

import inspect
import pkgutil
import sys
from pathlib import Path
from typing import Any


def own_docstring(thing: Any) -> str:
    """Return the docstring that was written for a thing, "" where there is none.

    The docstring of a class is not that of its instances, and the signature that Python gives to
    data classes and named tuples is no docstring.
    """
    doc = getattr(thing, "__doc__", None)
    if not isinstance(doc, str) or doc == type(thing).__doc__:
        return ""
    if isinstance(thing, type) and doc.startswith(f"{thing.__name__}("):
        return ""
    return inspect.cleandoc(doc)


def caller() -> tuple[str, str]:
    """Return the place where a thing is registered, and the name of the module.

    Functions of gradbench itself, such as the decorators that register, are not that place.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_function_of_gradbench(frame.f_globals, frame.f_code):
        frame = frame.f_back
    file = Path(frame.f_code.co_filename).name
    return f"{file}, line {frame.f_lineno}", str(frame.f_globals.get("__name__"))


def _is_function_of_gradbench(variables: dict[str, Any], code: Any) -> bool:
    module = str(variables.get("__name__"))
    return module.startswith("gradbench.") and code.co_name != "<module>"


def modules_of(package: str) -> list[str]:
    """Return the modules of a package that is imported, any of which may register things."""
    files = pkgutil.iter_modules(sys.modules[package].__path__)
    return [f"{package}.{file.name}" for file in files if file.name != "__main__"]
