"""The API reference: a page for each public module, with all that is public in it."""

import importlib
import inspect
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

# The modules whose ``__all__`` is public.
PAGES = (
    "gradbench",
    "gradbench.suites.datasets",
    "gradbench.estimators",
    "gradbench.models",
    "gradbench.models.optimisers",
    "gradbench.exact",
    "gradbench.metrics",
    "gradbench.plots",
    "gradbench.suites",
    "gradbench.testing",
    "gradbench.core",
)


def public(module: ModuleType) -> dict[str, Any]:
    """Return what is public in a module, by name; modules have pages of their own."""
    named = {name: getattr(module, name) for name in module.__all__}
    return {name: thing for name, thing in named.items() if not inspect.ismodule(thing)}


def members(cls: type) -> list[str]:
    """Return the public methods and properties of a class, also of bases in the package."""
    kinds = (property, cached_property, classmethod, staticmethod)
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == "gradbench":
            found |= vars(base)
    return [
        name
        for name, member in found.items()
        if (name == "__call__" or not name.startswith("_"))
        and (inspect.isfunction(member) or isinstance(member, kinds))
    ]


def page(name: str) -> str:
    """Return the page of a module, in Markdown."""
    module = importlib.import_module(name)
    head = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :no-members:\n```\n"
    return head + "".join(entry(name, own, thing) for own, thing in sorted(public(module).items()))


def entry(module: str, name: str, thing: Any) -> str:
    """Return the entry of a public name; it is described in one place."""
    title = f"\n## {name}\n\n"
    if home := home_of(module, name, thing):
        return f"{title}The same as [{home}.{name}]({home}.md#{name.lower()}).\n"
    if module == "gradbench.estimators" and name in estimators():
        return f"{title}[A page of its own](../estimators/{estimators()[name]}.md).\n"
    lines = [f".. py:data:: {name}", f"   :module: {module}"]
    if inspect.isclass(thing):
        lines = [f".. autoclass:: {module}.{name}"]
        if own := members(thing):
            lines.append(f"   :members: {', '.join(own)}")
            lines += ["   :special-members: __call__"] * ("__call__" in own)
    elif callable(thing) and thing.__doc__:
        lines = [f".. autofunction:: {module}.{name}"]
    return title + "\n".join(["```{eval-rst}", *lines, "```", ""])


def home_of(module: str, name: str, thing: Any) -> str:
    """Return the module that describes what ``gradbench`` has from elsewhere, or nothing."""
    pages = PAGES[1:] if module == PAGES[0] else ()
    homes = (page for page in pages if public(importlib.import_module(page)).get(name) is thing)
    return next(homes, "")


def estimators() -> dict[str, str]:
    """Return the names of estimators and of their aliases, and whose page they are on."""
    from gradbench.estimators import ESTIMATORS

    names = {name: name for name in ESTIMATORS}
    return names | {a: name for name in ESTIMATORS for a in ESTIMATORS.facts(name).aliases}


def write(folder: Path) -> list[Path]:
    """Write all pages and their table of contents into a folder, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = "\n".join(PAGES)
    pages = {name: page(name) for name in PAGES}
    pages["index"] = (
        "# API reference\n\nEvery public name with its shapes, units and errors. Shapes stand in "
        f"brackets, [] being one number.\n\n```{{toctree}}\n:maxdepth: 1\n\n{contents}\n```\n"
    )
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text)
    return [folder / f"{name}.md" for name in pages]
