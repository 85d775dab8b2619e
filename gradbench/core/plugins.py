"""Plugins: estimators, problems and suites of other packages, and of Python files.

An installed package offers them by entry points of the groups ``gradbench.estimators``: a module
whose import registers estimators, ``gradbench.problems`` and ``gradbench.suites``: a module in
whose folder TOML files lie, a folder, or a function that returns one. They are loaded when a name
is looked up that gradbench itself does not have, or when all names are listed. A Python file, of
``--plugin FILE`` or ``load(file)``, is run at once; it registers estimators and calls
``add_problems`` and ``add_suites``. No name is ever redefined.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from gradbench.core.errors import GradbenchError

__all__ = ["load", "load_installed", "loaded"]
_loaded: dict[str, str] = {}  # modules of plugin files, and packages, as `loaded` tells them
_begun: set[str] = set()  # kinds whose entry points are loaded, or are being loaded


def load(path: str | os.PathLike[str]) -> None:
    """Runs the plugin file at ``path``, once.

    Raises:
        GradbenchError: it cannot be read, fails, or takes a name that exists.
    """
    from gradbench.core.atomic import digest

    file = Path(path).resolve()
    name = str(file)  # of the module: no two plugins share it
    if name in _loaded:
        return
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise GradbenchError(
            f"cannot read the plugin {str(path)!r}: {reason}; give the path of a Python file"
        ) from None
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = name
    with _telling(f"the plugin {file.name!r}", "mend it", name):
        exec(compile(content, name, "exec"), module.__dict__)
    _loaded[name] = f"{file.name} {digest(content)}"


def imported(path: str, what: str) -> Any:
    """What ``"module:name"`` or ``"file.py:name"`` names; modules are found here too.

    Args:
        path: a module as Python imports it, or the path of a file, and a name in it.
        what: what it is to be, for the sentence of an error.

    Raises:
        GradbenchError: there is no such module or name, or the module fails.
    """
    place, _, name = path.rpartition(":")
    file = Path(place)
    folder = str(file.resolve().parent) if place.endswith(".py") else os.getcwd()
    sys.path.insert(0, folder)
    try:
        module = file.stem if place.endswith(".py") else place
        found = importlib.import_module(module)
        if place.endswith(".py") and Path(str(found.__file__)).resolve() != file.resolve():
            raise ImportError(f"{module} is the module {found.__file__}; rename the file")
        return getattr(found, name)
    except (Exception, SystemExit) as error:  # whatever a module of the user's raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise GradbenchError(
            f"the {what} {path!r} cannot be imported ({reason}); give module:name or file.py:name"
        ) from error
    finally:
        sys.path.remove(folder)


def called(function: Any, path: str, what: str) -> Any:
    """What a function of the user's returns, which errors call the ``what`` at ``path``.

    Raises:
        GradbenchError: it fails.
    """
    try:
        return function()
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise GradbenchError(
            f"the {what} {path!r} fails when it is called without arguments ({reason}); mend it"
        ) from error


def load_installed(kind: str, add: Any = lambda kind, offered: None) -> None:
    """Loads what installed packages offer of a kind, "estimators", "problems" or "suites", once.

    Raises:
        GradbenchError: one of them fails, or takes a name that exists.
    """
    if kind in _begun:
        return
    _begun.add(kind)
    try:
        for point in entry_points(group=f"gradbench.{kind}"):
            package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            with _telling(f"the plugin {point.name!r} of {package}", "mend or uninstall it"):
                offered = point.load()
                add(kind, offered)
            _loaded[package] = package
    except BaseException:
        _begun.discard(kind)  # what is wrong is told whenever a name is looked up
        raise


def loaded() -> list[str]:
    """The plugins that were loaded: files with a digest, packages with their version."""
    return sorted(_loaded.values())


@contextmanager
def _telling(what: str, remedy: str, file: str = "") -> Iterator[None]:
    """Says in one sentence what goes wrong in a plugin, and in which line of its file."""
    try:
        yield
    except GradbenchError as error:
        raise GradbenchError(f"{what}: {error}") from None
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        where = f" in line {lines[-1]}" if lines else ""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise GradbenchError(f"{what} fails{where} with {reason}; {remedy}") from error
