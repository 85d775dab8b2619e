"""Suites and problems by name: of the package, of plugins, and by the path of a TOML file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.registry import Registry

_FOLDER = Path(__file__).parent  # of the suites of the package


@dataclass(frozen=True)
class Source:
    """A suite or a problem that has a name: a TOML file, the text of one, or its values.

    ``file`` is what messages call it, such as "psa.toml".
    """

    file: str
    content: Any


def _accept(group: str, offered: Any) -> None:
    """Take what an entry point offers: a module beside TOML files, their folder, or its maker."""
    if isinstance(offered, ModuleType):
        offered = files(offered)
    _add_folder(REGISTRIES[group.removesuffix("s")], offered() if callable(offered) else offered)


PROBLEMS: Registry[Source] = Registry("problem", accept=_accept)
SUITES: Registry[Source] = Registry("suite", accept=_accept)
REGISTRIES = {"problem": PROBLEMS, "suite": SUITES}


def add_problems(folder: str | os.PathLike[str]) -> None:
    """Make the problems known, by name, whose TOML files lie in a ``folder``.

    Raises:
        GradbenchError: there is none, or one has a name that exists.
    """
    _add_folder(PROBLEMS, Path(folder))


def add_suites(folder: str | os.PathLike[str]) -> None:
    """Make the suites known, by name, whose TOML files lie in a ``folder``.

    Raises:
        GradbenchError: there is none, or one has a name that exists.
    """
    _add_folder(SUITES, Path(folder))


def add_problem(name: str, content: str | Mapping[str, Any]) -> None:
    """Make a problem known by name.

    Args:
        name: its name.
        content: what stands in its TOML file, as text or as nested dictionaries.

    Raises:
        GradbenchError: there is a problem of that name already.
    """
    PROBLEMS.add(name, Source(f"problem {name!r}", content), summary=_title(content) or name)


def add_suite(name: str, content: str | Mapping[str, Any]) -> None:
    """Make a suite known by its ``name``; ``content`` is as for ``add_problem``.

    Raises:
        GradbenchError: there is a suite of that name already.
    """
    SUITES.add(name, Source(f"suite {name!r}", content), summary=_title(content) or name)


def _add_folder(known: Registry[Source], folder: Any) -> None:
    """Register the TOML files of a folder, on disk or in a package."""
    folder = Path(folder) if isinstance(folder, str) else folder
    there = folder.is_dir()
    found = [f for f in (folder.iterdir() if there else ()) if f.name.endswith(".toml")]
    if not found:
        raise GradbenchError(
            f"there are no {known.plural} in {str(folder)!r}; name a folder of TOML files"
        )
    for file in sorted(found, key=lambda file: file.name):
        name = file.name.removesuffix(".toml")
        title = _title(file.read_text(errors="replace")) or name  # what it lacks is told later
        said = str(file) if isinstance(file, Path) and _FOLDER not in file.parents else file.name
        known.add(name, Source(said, file), summary=title, origin=str(file))


def _title(content: Any) -> str:
    """Return the title of a suite or a problem, "" where there is none; nothing is checked."""
    if isinstance(content, Mapping):
        return str(content.get("title", ""))
    found = re.search(r"^[ \t]*title\s*=\s*([\"'])(.*)\1", content, re.MULTILINE)
    return found[2] if found else ""


def find(
    kind: str, name_or_path: str | os.PathLike[str], beside: str | None = None
) -> tuple[str, Any]:
    """Find a suite or a problem by its name, or by the path of a TOML file.

    Args:
        kind: "suite" or "problem".
        name_or_path: the name or the path.
        beside: a file; paths are relative to its folder.

    Returns:
        Its name, and the ``Document`` of its content.

    Raises:
        GradbenchError: there is no such file, it is not TOML, what is given is no name or path, or
            a name or a text has characters that cannot be printed.
    """
    from gradbench.suites.config import refuse_unprintable

    name, document = _find(kind, name_or_path, beside)
    refuse_unprintable(name, document)
    return name, document


def _find(
    kind: str, name_or_path: str | os.PathLike[str], beside: str | None = None
) -> tuple[str, Any]:
    from gradbench.suites.config import Document, parse_toml, read_toml, shown

    try:
        given = os.fsdecode(name_or_path)
    except TypeError:
        raise GradbenchError(
            f"the {kind} is {shown(name_or_path)}; give its name or the path of a .toml file"
        ) from None
    if given.endswith(".toml") or os.sep in given:
        path = Path(beside).parent / given if beside else Path(given)
        return path.stem, _read_or_suggest(kind, path)
    known = REGISTRIES[kind]
    try:
        name = known.canonical(given)
    except GradbenchError:
        unknown = f"unknown {kind} {given!r}, which is no path of a .toml file either"
        raise GradbenchError(f"{unknown}; {known.suggestion(given)}") from None
    source = known[name]
    if isinstance(source.content, Mapping):
        return name, Document(source.file, dict(source.content))
    if isinstance(source.content, str):
        return name, parse_toml(source.file, source.content.encode())
    return name, read_toml(source.content, source.file)


def _read_or_suggest(kind: str, path: Path) -> Any:
    """Return the document of a file; one that is missing may have another name in its folder."""
    from gradbench.suites.config import read_toml

    try:
        return read_toml(path)
    except GradbenchError as error:
        there = [one.name for one in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        remedy = did_you_mean(path.name, there)
        if path.name in there or not remedy.startswith("did you mean"):
            raise
        raise GradbenchError(f"{str(error).partition('; ')[0]}; {remedy}") from None


_add_folder(SUITES, _FOLDER)
_add_folder(PROBLEMS, _FOLDER / "problems")
