"""One registry for everything that has a name: estimators, noises, layers, metrics, figures, ...

Each kind of thing has one ``Registry``, made in the module that the kind belongs to, and each
thing registers itself where it is written:

    NOISES = Registry("noise")


    @NOISES.register(aliases=("gaussian",))
    def normal(): ...

A registry is a mapping of names to things. It finds a thing by its name or an alias, with hyphens
and underscores alike, it asks installed packages (the entry points of the group
``gradbench.PLURAL``) for names that it does not know, and it answers an unknown name with the
closest known one. No name is ever redefined.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gradbench.core.errors import GradbenchError, did_you_mean

T = TypeVar("T")

# Where the registry of each kind is made, by the plural that commands and entry points know it by.
KINDS = {
    "estimators": "gradbench.estimators.registry:ESTIMATORS",
    "noises": "gradbench.core.noise:NOISES",
    "exact_routes": "gradbench.exact.routes:ROUTES",
}


@dataclass(frozen=True)
class Facts:
    """What a registry knows beside a thing: one line about it, other names, and where it stands.

    ``origin`` is "FILE, line N", where it was registered, and ``module`` the name of the module.
    """

    summary: str
    aliases: tuple[str, ...]
    origin: str
    module: str


class Registry(MutableMapping[str, T]):
    """The things of one kind, by name.

    Args:
        kind: what one of them is called in sentences, such as "noise" or "data set".
        plural: of several, also the name of the group of entry points; ``kind`` + "s" by default.
        modules: modules that register the things of the package. They are imported when the
            registry is first asked for a name, so that making a registry loads nothing.
    """

    def __init__(self, kind: str, plural: str = "", modules: Sequence[str] = ()) -> None:
        self.kind = kind
        self.plural = plural or f"{kind}s"
        self._modules = list(modules)
        self._things: dict[str, T] = {}
        self._facts: dict[str, Facts] = {}
        self._names: dict[str, str] = {}  # by every spelling: names and aliases

    # ------------------------------------------------------------------------------- entering

    def add(
        self,
        name: str,
        thing: T,
        *,
        aliases: Sequence[str] = (),
        summary: str | None = None,
        source: Any = None,
    ) -> T:
        """Register a thing and return it.

        Args:
            name: its name.
            thing: what the name stands for.
            aliases: other names that it is found by.
            summary: one line about it; the first line of the docstring of ``source`` by default.
            source: what has the docstring, where the thing itself has none.

        A module that runs once more, as a cell of a notebook does, replaces what it registered.

        Raises:
            GradbenchError: something else has one of these names, or there is no summary.
        """
        origin, module = _caller()
        documented = thing if source is None else source
        if summary is None:
            summary = (inspect.getdoc(documented) or "").partition("\n")[0]
        if not summary.strip():
            raise GradbenchError(
                f"the {self.kind} {name!r} ({origin}) has no docstring; say in its first line what "
                "it is"
            )
        for spelling in (name, *aliases):
            known = self._names.get(_spelled(spelling))
            if known is not None and (known != name or self._facts[name].module != module):
                raise GradbenchError(
                    f"the {self.kind} {spelling!r} ({origin}) has the name of {known!r} "
                    f"({self._facts[known].origin}); give it another name"
                )
        if name in self._things:
            self._forget(name)
        self._things[name] = thing
        self._facts[name] = Facts(summary, tuple(aliases), origin, module)
        self._names |= {_spelled(spelling): name for spelling in (name, *aliases)}
        return thing

    def register(
        self, name: str | None = None, *, aliases: Sequence[str] = (), summary: str | None = None
    ) -> Callable[[Any], Any]:
        """Return a decorator that registers a function or a class, under its own name by default.

        Raises:
            GradbenchError: as ``add``.
        """

        def enter(thing: Any) -> Any:
            return self.add(name or thing.__name__, thing, aliases=aliases, summary=summary)

        return enter

    # -------------------------------------------------------------------------------- finding

    def find(self, name: object) -> T:
        """Return the thing of that name or alias.

        Raises:
            GradbenchError: nothing has it; the sentence names the closest one.
        """
        return self[self.canonical(name)]

    def canonical(self, name: object) -> str:
        """Return the registered name of a name or alias.

        Raises:
            GradbenchError: as ``find``.
        """
        if isinstance(name, str):
            self._load()
            if _spelled(name) not in self._names:
                self._load_installed()
            if _spelled(name) in self._names:
                return self._names[_spelled(name)]
        raise GradbenchError(f"unknown {self.kind} {name!r}; {self.suggestion(name)}")

    def suggestion(self, name: object) -> str:
        """Return the remedy for an unknown name: the closest known one, or the list of them."""
        self._load_installed()
        return did_you_mean(name, self._things, self._names)

    def facts(self, name: str) -> Facts:
        """Return what is known beside a thing.

        Raises:
            GradbenchError: as ``find``.
        """
        return self._facts[self.canonical(name)]

    def names(self) -> list[str]:
        """Return all names, those of installed packages included, sorted."""
        self._load_installed()
        return sorted(self._things)

    def _load(self) -> None:
        while self._modules:
            importlib.import_module(self._modules.pop(0))

    def _load_installed(self) -> None:
        from gradbench.core import plugins

        self._load()
        plugins.load_installed(self.plural.replace(" ", "_"))

    # ---------------------------------------------------------------------------- the mapping

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            self._load()
        return self._things[name]

    def __setitem__(self, name: str, thing: T) -> None:
        self.add(name, thing)

    def __delitem__(self, name: str) -> None:
        del self._things[name]
        self._forget(name)

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._things)

    def __len__(self) -> int:
        self._load()
        return len(self._things)

    def _forget(self, name: str) -> None:
        del self._facts[name]
        self._names = {spelling: known for spelling, known in self._names.items() if known != name}


def registry(plural: str) -> Registry[Any]:
    """Return the registry of a kind, such as "noises"; "noise" is answered too.

    Raises:
        GradbenchError: there is no such kind.
    """
    by_spelling = {_spelled(kind): kind for kind in KINDS}
    kind = by_spelling.get(_spelled(plural)) or by_spelling.get(_spelled(plural) + "s")
    if kind is None:
        raise GradbenchError(f"unknown kind {plural!r}; {did_you_mean(plural, KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    found: Registry[Any] = getattr(importlib.import_module(module), name)
    return found


def _spelled(name: str) -> str:
    return name.replace("-", "_").replace(" ", "_").lower()


def _caller() -> tuple[str, str]:
    """Return where a thing is being registered, in words, and the name of that module."""
    frame = sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).endswith(".registry"):
        frame = frame.f_back
    module = str(frame.f_globals.get("__name__"))
    return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}", module
