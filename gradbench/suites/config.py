"""TOML files: whatever is wrong in one is told with its line and what to write instead."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from gradbench.core.archives import read_plain_file
from gradbench.core.errors import GradbenchError
from gradbench.core.names import unprintable, visible
from gradbench.suites.parse import parse

T = TypeVar("T")
_MOST_BYTES = 1 << 22  # of a TOML file, some seconds to parse
Location = tuple[str | int, ...]  # of a value: the keys of tables, and the numbers of items


@dataclass(frozen=True)
class Document:
    """The values of a TOML file, and where they stand in it: what messages begin with.

    ``text`` is that of the file, empty where there is none; ``moved`` has the places of the values
    at the top that were taken from elsewhere. ``folder`` is where paths in it begin, None for the
    working directory.
    """

    file: str
    values: dict[str, Any]
    text: str = ""
    moved: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None

    def read(self, kind: Callable[..., T], *path: str) -> T:
        """Read the values, or the value at a path, into a type, as ``parse`` does.

        Raises:
            GradbenchError: one line for each fault, with its place and its remedy.
        """
        try:
            return parse(kind, self._at(path))
        except ValidationError as error:
            faults = error.errors(include_url=False)
        lines: dict[str, int] = {}
        for fault in faults:
            at = (*path, *fault["loc"])
            lines[self._sentence(fault["type"], at, fault["ctx"]["remedy"])] = self._line(at) or 0
        raise GradbenchError("\n".join(sorted(lines, key=lines.__getitem__)))

    def moved_to(self, key: str, value: Any, where: str) -> "Document":
        """Return the document with a value from elsewhere; its errors then begin with ``where``."""
        return replace(self, values={**self.values, key: value}, moved={**self.moved, key: where})

    def error(self, path: Location, problem: str) -> GradbenchError:
        """Return the sentence about what is wrong at a path, led by the file and the line."""
        return GradbenchError(f"{self.where(*path)}: {problem}")

    def unfit(self, path: Location, remedy: str) -> GradbenchError:
        """Return the sentence about a value that is not what it has to be."""
        return GradbenchError(self._sentence("unfit", path, remedy))

    def where(self, *path: str | int) -> str:
        """Return the file and the line of a value."""
        if path and path[0] in self.moved:
            return self.moved[str(path[0])]
        line = self._line(path)
        return f"{self.file}, line {line}" if line else self.file

    def _line(self, path: Location) -> int | None:
        keys = [str(step) for step in path]
        return None if keys and keys[0] in self.moved else find_line(self.text, keys)

    def _sentence(self, fault: str, path: Location, remedy: str) -> str:
        name = dotted(path)
        problem = f"{name} is {shown(self._at(path))}" if fault == "unfit" else f"{name} is missing"
        problem = f"unknown key {name}" if fault == "unknown" else problem
        # A key that is missing stands nowhere: the line is that of the table which lacks it.
        return f"{self.where(*path)}: {problem}; {remedy}"

    def _at(self, path: Location) -> Any:
        value: Any = self.values
        for step in path:
            known = isinstance(value, Mapping) or isinstance(step, int)
            value = value[step] if known and (isinstance(step, int) or step in value) else None
        return value


class Faults:
    """Collects what is wrong in several places, to tell it at once."""

    def __init__(self) -> None:
        self.lines: dict[str, None] = {}

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep the message of a GradbenchError that is raised inside."""
        try:
            yield
        except GradbenchError as error:
            self.lines |= dict.fromkeys(str(error).splitlines())

    def tell(self) -> None:
        """Raise one GradbenchError with all that was collected, one line each, if there is any."""
        if self.lines:
            raise GradbenchError("\n".join(self.lines))


def parse_toml(file: str, content: bytes) -> Document:
    """Return the document of a file's content.

    Raises:
        GradbenchError: it is not TOML; the sentence says where.
    """
    try:
        text = content.decode()
        return Document(file, tomllib.loads(text), text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise GradbenchError(f"{file} is not valid TOML: {reason}; mend the file") from None


def read_toml(path: Any, file: str = "") -> Document:
    """Return the document of a file, which messages call ``file``: by default its path.

    Raises:
        GradbenchError: the file cannot be read or is not TOML.
    """
    try:
        content = (
            read_plain_file(path, _MOST_BYTES) if isinstance(path, Path) else path.read_bytes()
        )
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise GradbenchError(
            f"cannot read {path}: {reason}; give the path of a TOML file"
        ) from None
    return replace(parse_toml(file or str(path), content), folder=str(path.parent))


def find_line(text: str, path: list[str]) -> int | None:
    """Return the line of a key, or of the nearest table around it; None where neither is found.

    This is a search by pattern, not a parser: multi-line strings that look like keys can mislead
    it.
    """
    section: tuple[str, ...] = ()
    best, line = 0, None
    for number, content in enumerate(text.split("\n"), start=1):
        if header := re.match(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?$", content):
            section = here = _split_key(header[1])
        elif "=" in content:
            here = (*section, *_split_key(content.partition("=")[0]))
        else:
            continue
        common = min(len(here), len(path))
        if common > best and here[:common] == tuple(path[:common]):
            best, line = common, number
    return line


def _split_key(key: str) -> tuple[str, ...]:
    parts = re.findall(r"\"([^\"]*)\"|'([^']*)'|([\w-]+)", key)
    return tuple("".join(part) for part in parts)


def refuse_unprintable(name: str, document: Document) -> None:
    """Refuse a name, and texts of a document, with characters that cannot be printed.

    Raises:
        GradbenchError: one of them has some, as control characters are.
    """
    remedy = "leave out characters that cannot be printed"
    if unprintable(name) is not None:
        raise GradbenchError(f"{visible(document.file)}: the name is {shown(name)}; {remedy}")
    for key, value in document.values.items():
        if (hidden := unprintable({key: value})) is not None:
            inside = "" if hidden == shown(value, len(hidden) + 2)[1:-1] else f" has {hidden!r} and"
            raise document.error((key,), f"{dotted((key,))}{inside} is {shown(value)}; {remedy}")


# ----------------------------------------------------------------------------------------- words


def dotted(path: Location) -> str:
    """Return a path as TOML writes it, such as ``network.hidden[1].dense``."""
    plain = re.compile(r"[\w-]+", re.ASCII)
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if plain.fullmatch(step) else f".{shown(step)}"
    return text.removeprefix(".")


def shown(value: object, most: int = 60) -> str:
    """Return a value as TOML writes it, shortened."""
    try:
        text = " ".join(_toml(value).split())
    except (ValueError, RecursionError):  # an integer of thousands of digits, a deep list
        return "too large to show"
    text = visible(text)
    return text if len(text) <= most else f"{text[:most]}..."


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping) and value:
        return f"{{ {', '.join(f'{key} = {_toml(part)}' for key, part in value.items())} }}"
    return repr(value)
