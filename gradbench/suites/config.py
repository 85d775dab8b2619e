"""Reading TOML files: whatever is wrong in one is told in a sentence, with file, line and remedy.

A *kind* says what a value must be: a function that returns the value or raises ``Unfit``.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gradbench.core.arguments import as_int
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import FORM, canonical

T = TypeVar("T")
Kind = Callable[[Any], T]
REQUIRED: Any = object()


class Unfit(Exception):
    """A value is not of its kind: what to give instead, and which item of a list is meant."""

    def __init__(self, remedy: str, value: object, item: str = ""):
        super().__init__(remedy)
        self.remedy, self.value, self.item = remedy, value, item


@dataclass
class Table:
    """A TOML table that is being read. ``finish`` refuses the keys that nobody took."""

    file: str
    values: dict[str, Any]
    text: str = ""  # of the whole file, to find lines in
    path: tuple[str, ...] = ()
    taken: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)  # the places of replaced values

    def take(self, key: str, kind: Kind[T], default: T = REQUIRED) -> T:
        """The value of a key, which must be of a kind; the default where the key is absent.

        Raises:
            GradbenchError: the key is missing without a default, or its value is unfit.
        """
        self.taken.append(key)
        if key not in self.values:
            if default is not REQUIRED:
                return default
            raise self.error(key, f"{self.dotted(key)} is missing; add it")
        try:
            return kind(self.values[key])
        except Unfit as unfit:
            problem = f"{self.dotted(key)}{unfit.item} is {shown(unfit.value)}; {unfit.remedy}"
            raise self.error(key, problem) from None

    def table(self, key: str) -> "Table":
        """The table under a key, which must be there."""
        values, path = self.take(key, mapping), (*self.path, key)
        if key in self.elsewhere:
            return Table(self.elsewhere[key], values, path=path)
        return Table(self.file, values, self.text, path)

    def optional_table(self, key: str) -> "Table | None":
        """The table under a key, None where there is none."""
        self.taken.append(key)
        return self.table(key) if key in self.values else None

    def replace(self, key: str, value: Any, where: str) -> None:
        """Takes the value of a key from elsewhere; its errors then begin with ``where``."""
        self.values = {**self.values, key: value}
        self.elsewhere[key] = where

    def rest(self) -> list[str]:
        """The keys that have not been taken."""
        return [key for key in self.values if key not in self.taken]

    def finish(self) -> None:
        """Refuses unknown keys."""
        for key in self.rest():
            raise self.error(
                key, f"unknown key {self.dotted(key)}; {did_you_mean(key, set(self.taken))}"
            )

    def error(self, key: str, problem: str) -> GradbenchError:
        """The sentence about what is wrong with a key, led by the file and the line."""
        return GradbenchError(f"{self.where(key)}: {problem}")

    def where(self, key: str) -> str:
        """The file and the line of a key."""
        if key in self.elsewhere:
            return self.elsewhere[key]
        line = find_line(self.text, (*self.path, key))
        return f"{self.file}, line {line}" if line else self.file

    def dotted(self, key: str) -> str:
        """The key with its path, as in ``network.hidden``; quoted where TOML needs it."""
        plain = re.compile(r"[\w-]+", re.ASCII)
        parts = (*self.path, key)
        return ".".join(part if plain.fullmatch(part) else shown(part) for part in parts)


def parse(file: str, content: bytes) -> Table:
    """The table of a file's content.

    Raises:
        GradbenchError: it is not TOML; the sentence says where.
    """
    try:
        text = content.decode()
        return Table(file, tomllib.loads(text), text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise GradbenchError(f"{file} is not valid TOML: {reason}; mend the file") from None


def read(path: Path, name: str) -> Table:
    """The table of a file; ``name`` is what messages call it.

    Raises:
        GradbenchError: the file cannot be read or is not TOML.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise GradbenchError(
            f"cannot read {name}: {reason}; give the path of a TOML file"
        ) from None
    return parse(name, content)


def find_line(text: str, path: Sequence[str]) -> int | None:
    """The line of a key, or of the nearest table around it; None where neither is found.

    A search by pattern, not a parser: multi-line strings that look like keys can mislead it.
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


def shown(value: object, most: int = 60) -> str:
    """A value as TOML users would write it, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = f'"{value}"' if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a deep list
        return "too large to show"
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}..."


def string(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise Unfit("give a text in quotes", value)
    return value


def mapping(value: Any) -> dict[str, Any]:
    """A table."""
    if not isinstance(value, dict):
        raise Unfit("make it a table, with one key a line", value)
    return value


def whole(at_least: int) -> Kind[int]:
    """A whole number, up to 2^53."""

    def kind(value: Any) -> int:
        integer = as_int(value)
        if integer is None or not at_least <= integer <= 2**53:
            raise Unfit(f"give a whole number of at least {at_least}", value)
        return integer

    return kind


def number(above: float = -1e300, below: float = 1e300) -> Kind[float]:
    """A finite number strictly between two bounds."""
    bounds = [f"above {above:g}"] * (above > -1e300) + [f"below {below:g}"] * (below < 1e300)

    def kind(value: Any) -> float:
        # The comparison is false for nan and safe for integers too large for a float.
        if type(value) not in (int, float) or not above < value < below:
            raise Unfit(" ".join(["give a finite number", " and ".join(bounds)]).strip(), value)
        return float(value)

    return kind


def fraction(value: Any) -> float:
    """A number in [0, 1)."""
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise Unfit("give a number from 0 to below 1", value)
    return float(value)


def not_negative(value: Any) -> float:
    """A finite number of at least 0."""
    if type(value) not in (int, float) or not 0 <= value < 1e300:
        raise Unfit("give a finite number of at least 0", value)
    return float(value)


def one_of(*names: str) -> Kind[str]:
    """One of some names."""

    def kind(value: Any) -> str:
        if value not in names:
            raise Unfit(did_you_mean(value, names), value)
        return str(value)

    return kind


def several(kind: Kind[T], at_least: int = 1) -> Kind[tuple[T, ...]]:
    """A list of items of one kind that are all different."""

    def kind_of_list(value: Any) -> tuple[T, ...]:
        items = list_of(kind, at_least)(value)
        for index, item in enumerate(items):
            if item in items[:index]:
                raise Unfit("it is there already, give every item once", value[index], f"[{index}]")
        return items

    return kind_of_list


def record(make: Callable[..., T], required: str, **kinds: Kind[Any]) -> Kind[T]:
    """A table whose keys are the arguments of ``make``, each of its kind; one of them required."""

    def kind(value: Any) -> T:
        arguments = {}
        for key, part in mapping(value).items():
            if key not in kinds:
                raise Unfit(did_you_mean(key, kinds), key, " has a key that")
            try:
                arguments[key] = kinds[key](part)
            except Unfit as unfit:
                raise Unfit(unfit.remedy, unfit.value, f".{key}{unfit.item}") from None
        if required not in arguments:
            raise Unfit(f"give the key {required}", value)
        return make(**arguments)

    return kind


def list_of(kind: Kind[T], at_least: int = 1) -> Kind[tuple[T, ...]]:
    """A list of items of one kind."""

    def kind_of_list(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list) or len(value) < at_least:
            raise Unfit(f"give a list of at least {at_least} item{'s' * (at_least > 1)}", value)
        items = []
        for index, item in enumerate(value):
            try:
                items.append(kind(item))
            except Unfit as unfit:
                raise Unfit(unfit.remedy, unfit.value, f"[{index}]{unfit.item}") from None
        return tuple(items)

    return kind_of_list


def estimator(value: Any) -> str:
    """The canonical text of an estimator: a kind of value in a TOML file."""
    try:
        return canonical(string(value))
    except GradbenchError:
        raise Unfit(FORM, value) from None
