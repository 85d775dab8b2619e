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
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from gradbench.core import plugins
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.origins import caller, own_docstring

T = TypeVar("T")

# Where the registry of each kind is made, by the plural that commands and entry points know it by.
KINDS = {
    "estimators": "gradbench.estimators.registry:ESTIMATORS",
    "proxies": "gradbench.estimators.proxies:PROXIES",
    "baselines": "gradbench.estimators.baselines:BASELINES",
    "noises": "gradbench.core.noise:NOISES",
    "layers": "gradbench.models.layer:LAYERS",
    "objectives": "gradbench.models.losses:OBJECTIVES",
    "activations": "gradbench.suites.networks:ACTIVATIONS",
    "data_sets": "gradbench.suites.data:DATA",
    "initialisations": "gradbench.suites.initialise:INITIALISATIONS",
    "optimisers": "gradbench.suites.train:OPTIMISERS",
    "weight_optimisers": "gradbench.suites.weight_optimisers:WEIGHT_OPTIMISERS",
    "exact_routes": "gradbench.exact.routes:ROUTES",
    "problems": "gradbench.suites.library:PROBLEMS",
    "suites": "gradbench.suites.library:SUITES",
    "metrics": "gradbench.metrics.registry:METRICS",
    "figures": "gradbench.plots.registry:FIGURES",
    "formats": "gradbench.core.text:FORMATS",
}


class Facts(NamedTuple):
    """The facts that a registry knows about a thing.

    ``summary`` is one line about it, ``doc`` its docstring, ``origin`` where it was registered:
    "FILE, line N". ``module`` is the name of the module that registered it.
    """

    summary: str
    doc: str
    aliases: tuple[str, ...]
    origin: str
    module: str


class Registry(MutableMapping[str, T]):
    """The things of one kind, by name, in the order of their registration.

    Args:
        kind: what one of them is called in sentences, such as "noise" or "data set".
        plural: what several are called, ``kind`` + "s" by default. With underscores, it is also the
            name of the group of entry points.
        modules: modules of the package that register things of this kind. They are imported when
            the registry is first asked for a name, so that making a registry loads nothing.
        accept: called with the group and the object of each entry point, beside its import.
        absent: names that are known and have nothing here, with what to take instead.
    """

    def __init__(
        self,
        kind: str,
        plural: str = "",
        modules: Sequence[str] = (),
        accept: Callable[[str, Any], object] | None = None,
        absent: Mapping[str, str] = {},
    ) -> None:
        self.kind = kind
        self._absent = absent
        self.plural = plural or f"{kind}s"
        self._modules = list(modules)
        self._accept = accept
        self._loading = False
        self._things: dict[str, T] = {}
        self._facts: dict[str, Facts] = {}
        self._names: dict[str, str] = {}  # by `spelled` names and aliases

    # ------------------------------------------------------------------------------- entering

    def add(
        self,
        name: str,
        thing: T,
        *,
        aliases: Sequence[str] = (),
        summary: str | None = None,
        source: Any = None,
        origin: str | None = None,
    ) -> T:
        """Register a thing and return it.

        A module that runs again, as a cell of a notebook does, replaces what it has registered.

        Args:
            name: its name.
            thing: what the name stands for.
            aliases: other names that it is found by.
            summary: one line about it, the first line of its docstring by default.
            source: the object that has the docstring, where the thing itself has none.
            origin: where the thing is defined, such as the path of a file. By default it is the
                line that calls this function.

        Raises:
            GradbenchError: something else has one of these names, or there is no docstring.
        """
        place, module = caller() if origin is None else (origin, origin)
        if not module.startswith("gradbench."):
            self._load()  # so that a name of the package is refused here, not there
        doc = own_docstring(thing if source is None else source)
        summary = doc.partition("\n")[0] if summary is None else summary
        if not summary.strip():
            raise GradbenchError(
                f"the {self.kind} {name!r} ({place}) has no docstring; say in its first line what "
                "it is"
            )
        for spelling in (name, *aliases):
            known = self._names.get(spelled(spelling))
            if known is not None and (known != name or self._facts[known].module != module):
                raise GradbenchError(
                    f"the {self.kind} {spelling!r} ({place}) has a name that is taken by "
                    f"{known!r} ({self._facts[known].origin}); give it another name"
                )
        if name in self._things:
            self._forget(name)
        self._things[name] = thing
        self._facts[name] = Facts(summary, doc or summary, tuple(aliases), place, module)
        self._names |= {spelled(spelling): name for spelling in (name, *aliases)}
        return thing

    def register(
        self, name: str | None = None, *, aliases: Sequence[str] = (), summary: str | None = None
    ) -> Callable[[Any], Any]:
        """Return a decorator that registers a function or a class, under its own name by default.

        Raises:
            GradbenchError: see ``add``.
        """

        def enter(thing: Any) -> Any:
            return self.add(name or thing.__name__, thing, aliases=aliases, summary=summary)

        return enter

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Return a context after which the registry is as it was before."""
        before = self._things.copy(), self._facts.copy(), self._names.copy()
        try:
            yield
        finally:
            self._things, self._facts, self._names = before

    # -------------------------------------------------------------------------------- finding

    def find(self, name: object) -> T:
        """Return the thing of that name or alias.

        Raises:
            GradbenchError: nothing has it; the sentence names the closest one.
        """
        return self[self.canonical(name)]

    def canonical(self, name: object) -> str:
        """Return the name that a thing is registered by, from this name or an alias.

        Raises:
            GradbenchError: nothing has it; the sentence names the closest one.
        """
        found = self.resolve(name)
        if found is None:
            raise GradbenchError(f"unknown {self.kind} {name!r}; {self.suggestion(name)}")
        return found

    def resolve(self, name: object) -> str | None:
        """Return what ``canonical`` returns, or None where nothing has that name or alias."""
        if not isinstance(name, str):
            return None
        self._load()
        if (key := spelled(name)) not in self._names:
            self.load_installed()
        return self._names.get(key)

    def suggestion(self, name: object) -> str:
        """Return the remedy for an unknown name: what to take instead, the closest, or the list."""
        self.load_installed()
        given = spelled(name) if isinstance(name, str) else name
        return self._absent.get(str(given)) or did_you_mean(given, self._things, self._names)

    def facts(self, name: str) -> Facts:
        """Return what is known about a thing.

        Raises:
            GradbenchError: nothing has that name or alias.
        """
        return self._facts[self.canonical(name)]

    def names(self) -> list[str]:
        """Return all names, those of installed packages included, sorted."""
        self.load_installed()
        return sorted(self._things)

    def load_installed(self) -> None:
        """Load what installed packages offer of this kind, once.

        Raises:
            GradbenchError: one of them fails, or takes a name that exists.
        """
        self._load()
        plugins.load_installed(self.plural.replace(" ", "_"), self._accept)

    def _load(self) -> None:
        """Import the modules of the package, unless they are being imported already."""
        if self._loading:
            return
        self._loading = True
        try:
            while self._modules:
                importlib.import_module(self._modules[0])
                del self._modules[0]  # one that fails is tried again
        finally:
            self._loading = False

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


def is_kind(name: object) -> bool:
    """Return whether this is the plural or singular of a kind."""
    return isinstance(name, str) and spelled(name) in _kinds()


def kind_of(name: object) -> str:
    """Return the plural of a kind, as in ``KINDS``, from its plural or singular.

    Raises:
        GradbenchError: there is no such kind.
    """
    if isinstance(name, str) and is_kind(name):
        return _kinds()[spelled(name)]
    raise GradbenchError(f"unknown kind {name!r}; {did_you_mean(name, KINDS)}")


def _kinds() -> dict[str, str]:
    return {spelled(f): k for k in KINDS for f in (k, k.replace("ies", "y").removesuffix("s"))}


def registry(kind: str) -> Registry[Any]:
    """Return the registry of a kind: of "noises", or "noise".

    Raises:
        GradbenchError: there is no such kind.
    """
    module, _, name = KINDS[kind_of(kind)].partition(":")
    found: Registry[Any] = getattr(importlib.import_module(module), name)
    return found


def spelled(name: str) -> str:
    """Return a name as registries compare it: hyphens, spaces and capitals make no difference."""
    return name.replace("-", "_").replace(" ", "_").lower()
