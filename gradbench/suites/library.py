"""Suites and problems by name: packaged, of plugins, by path."""

import os
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from gradbench.core import plugins
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.suites.config import Table, parse, read, shown

_FOLDERS = {"suite": files("gradbench.suites"), "problem": files("gradbench.suites") / "problems"}
FILES: dict[str, dict[str, Path]] = {"problems": {}, "suites": {}}  # TOML files, by kind and name


def add_problems(folder: str | os.PathLike[str]) -> None:
    """Makes the problems known, by name, whose TOML files lie in a ``folder``.

    Raises:
        GradbenchError: there is none, or one has a name that exists.
    """
    _add("problems", folder)


def add_suites(folder: str | os.PathLike[str]) -> None:
    """Makes the suites known, by name, whose TOML files lie in a folder.

    Raises:
        GradbenchError: as ``add_problems``.
    """
    _add("suites", folder)


def _add(kind: str, folder: Any) -> None:
    found = {path.stem: path.resolve() for path in sorted(Path(str(folder)).glob("*.toml"))}
    if not found:
        raise GradbenchError(f"there are no {kind} in {str(folder)!r}; name a folder of TOML files")
    for name, path in found.items():
        if name in packaged(kind[:-1]) or FILES[kind].get(name, path) != path:
            raise GradbenchError(
                f"{kind} have the name {name!r} already; give {str(path)!r} another name"
            )
    FILES[kind] |= found


def _folder(offered: Any) -> Any:
    if isinstance(offered, ModuleType):
        return files(offered)
    return offered() if callable(offered) else offered


def packaged(kind: str) -> list[str]:
    """Names of the files of a kind, "suite" or "problem", that come with the package."""
    return sorted(f.name[:-5] for f in _FOLDERS[kind].iterdir() if f.name.endswith(".toml"))


def known(kind: str) -> list[str]:
    """Names of the files of a kind that come with the package, and of those of plugins."""
    plugins.load_installed(f"{kind}s", lambda kind, offered: _add(kind, _folder(offered)))
    return sorted([*packaged(kind), *FILES[f"{kind}s"]])


def find(
    kind: str, name_or_path: str | os.PathLike[str], beside: str | None = None
) -> tuple[str, Table]:
    """A file of the package or a plugin by name, or a user's by path: its name and its table.

    Paths are relative to the folder of the file ``beside``.

    Raises:
        GradbenchError: there is no such file, it is not TOML, or what is given is no name or path.
    """
    try:
        given = os.fsdecode(name_or_path)
    except TypeError:
        raise GradbenchError(
            f"the {kind} is {shown(name_or_path)}; give its name or the path of a .toml file"
        ) from None
    if given.endswith(".toml") or os.sep in given:
        path = Path(beside).parent / given if beside else Path(given)
        return path.stem, read(path, str(path))
    if given in packaged(kind):
        file = _FOLDERS[kind] / f"{given}.toml"
        return given, parse(file.name, file.read_bytes())
    if given not in (names := known(kind)):
        unknown = f"unknown {kind} {given!r}, which is no path of a .toml file either"
        raise GradbenchError(f"{unknown}; {did_you_mean(given, names)}")
    path = FILES[f"{kind}s"][given]
    return given, read(path, str(path))
