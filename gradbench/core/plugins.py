"""Plugins: things with a name from other packages, and from Python files.

An installed package offers them by entry points, one group for each kind of thing:
``gradbench.estimators``, ``gradbench.noises``, ``gradbench.data_sets``, ... Each names a module
whose import registers things of that kind. The groups ``gradbench.problems`` and
``gradbench.suites`` name a module in whose folder TOML files lie, a folder, or a function that
returns one. They are loaded when a name is looked up that gradbench itself does not have, or when
all names are listed. A Python file, of ``--plugin FILE`` or ``load(file)``, is run at once; it may
register things of any kind. No name is ever redefined.
"""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from gradbench.core.errors import GradbenchError

__all__ = ["load", "load_installed", "loaded"]
_loaded: dict[str, str] = {}  # by the names of modules and packages, the texts of `loaded`
_begun: set[str] = set()  # groups whose entry points are loaded, or are being loaded


def load(path: str | os.PathLike[str]) -> None:
    """Run the plugin file at ``path``, once.

    Raises:
        GradbenchError: it cannot be read, fails, or takes a name that exists.
    """
    from gradbench.core.archives import read_plain_file
    from gradbench.core.atomic import digest

    file = Path(path).resolve()
    name = str(file)  # of the module: no two plugins share it
    if name in _loaded:
        return
    try:
        content = read_plain_file(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise GradbenchError(
            f"cannot read the plugin {str(path)!r}: {reason}; give the path of a Python file"
        ) from None
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = name
    with _in_one_sentence(f"the plugin {file.name!r}", "fix it"):
        exec(compile(content, name, "exec"), module.__dict__)
    _loaded[name] = f"{file.name} {digest(content)}"


def imported(
    path: str, what: str, candidates: Callable[[ModuleType], list[str]] | None = None
) -> Any:
    """Return what ``"module:name"`` or ``"file.py:name"`` names.

    Modules in the current directory are found too.

    Args:
        path: a module as Python imports it, or the path of a file, and a name in it.
        what: what it is to be, for the sentence of an error.
        candidates: gives the names in a module that may be meant, for the sentence of an error.

    Raises:
        GradbenchError: there is no such module or name, or the module fails.
    """
    place, colon, name = path.rpartition(":")
    if not colon and path.endswith(".py"):
        place, name = path, ""
    file = Path(place)
    folder = str(file.resolve().parent) if place.endswith(".py") else os.getcwd()
    sys.path.insert(0, folder)
    try:
        module = file.stem if place.endswith(".py") else place
        if place.endswith(".py") and file.exists() and not file.is_file():  # such as a pipe
            raise ImportError("it is not a file")
        found = importlib.import_module(module)
        if place.endswith(".py") and Path(str(found.__file__)).resolve() != file.resolve():
            raise ImportError(f"{module} is the module {found.__file__}; rename the file")
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        at = _place(error)
        remedy = "fix it" if at else "give module:name or file.py:name"
        raise GradbenchError(
            f"the {what} {path!r} cannot be imported ({_reason(error)}{f', at {at}' * bool(at)}); "
            f"{remedy}"
        ) from error
    finally:
        sys.path.remove(folder)
    if not name or not hasattr(found, name):
        known = candidates(found) if candidates else []
        raise GradbenchError(_no_name(path, what, place, name, known))
    return getattr(found, name)


def _no_name(path: str, what: str, place: str, name: str, known: list[str]) -> str:
    """Return the sentence about a path without a name, or with one that the module lacks."""
    start = f"the {what} {path!r} names nothing in {place}"
    if name:
        start = f"the {what} {path!r} cannot be imported, as {place} has no {name!r}"
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"{start}; did you mean {place}:{close[0]}?"
    if known:
        return (
            f"{start}; give {place}:NAME, such as {' or '.join(f'{place}:{x}' for x in known[:4])}"
        )
    return f"{start}; give module:name or file.py:name"


def called(function: Any, path: str, what: str) -> Any:
    """Return what a user's function returns; an error names the ``what`` at ``path``.

    Raises:
        GradbenchError: it fails.
    """
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise GradbenchError(
            f"the {what} {path!r} fails when it is called without arguments ({_reason(error)}); "
            "fix it"
        ) from error


def has_entry_points(group: str) -> bool:
    """Return whether an installed package offers things of a kind, such as "estimators"."""
    return bool(_entry_points(group))


def load_installed(group: str, accept: Callable[[str, Any], object] | None = None) -> None:
    """Load what installed packages offer of a kind, once.

    Args:
        group: the plural of the kind with underscores, such as "estimators" or "data_sets".
        accept: called with the group and the object of each entry point.

    Raises:
        GradbenchError: one of them fails, or takes a name that exists.
    """
    if group in _begun:
        return
    _begun.add(group)
    try:
        for point in _entry_points(group):
            package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            plugin = f"the plugin {point.name!r} of {package}"
            with _in_one_sentence(plugin, "fix or uninstall it"):
                offered = point.load()
                if accept is not None:
                    accept(group, offered)
            _loaded[package] = package
    except BaseException:
        _begun.discard(group)  # the error is reported whenever a name is looked up
        raise


def loaded() -> list[str]:
    """Return the plugins that were loaded: files with a digest, packages with their version."""
    return sorted(_loaded.values())


def files() -> list[str]:
    """Return the paths of the plugin files that were loaded, in this order."""
    return [name for name in _loaded if os.path.isabs(name)]


def _entry_points(group: str) -> Any:
    from importlib.metadata import entry_points

    return entry_points(group=f"gradbench.{group}")


@contextmanager
def _in_one_sentence(what: str, remedy: str) -> Iterator[None]:
    """Report what goes wrong in a plugin as one sentence with its file and line."""
    try:
        yield
    except GradbenchError as error:
        place = _place(error)
        known = f" ({place})" if place and place not in str(error) else ""
        raise GradbenchError(f"{what}{known}: {error}") from None
    except (Exception, SystemExit) as error:
        place = _place(error)
        where = f" at {place}," if place else ""
        raise GradbenchError(f"{what} fails{where} with {_reason(error)}; {remedy}") from error


def _reason(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"{type(error).__name__}: {text}".split())


def _place(error: BaseException) -> str:
    """Return the "FILE, line N" in a plugin that raised an error, "" where there is none.

    It is the last line in the plugin's own files: libraries that the plugin calls are not meant.
    """
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '').name}, line {error.lineno}" if error.lineno else ""
    ours = str(Path(__file__).parents[1])
    machinery = ("<frozen", str(Path(importlib.__file__).parent), ours)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(machinery)
    ]
    if not frames:
        return ""
    first = Path(frames[0].filename)
    own = str(first.parent) if first.name == "__init__.py" else str(first)
    last = [frame for frame in frames if frame.filename.startswith(own)][-1]
    return f"{Path(last.filename).name}, line {last.lineno}"
