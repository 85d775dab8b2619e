"""Write the API reference from docstrings and the registry: ``make docs``."""

import importlib
import inspect
import sys
from pathlib import Path

import pdoc
import pdoc.doc
import pdoc.render

from gradbench.cli.catalogue import facts
from gradbench.core.atomic import Floats
from gradbench.core.contract import Model
from gradbench.estimators import ESTIMATORS
from gradbench.estimators.exactness import Exactness

HERE = Path(__file__).resolve().parent

# The modules whose ``__all__`` is public.
PAGES = (
    "gradbench",
    "gradbench.data",
    "gradbench.estimators",
    "gradbench.models",
    "gradbench.models.optimisers",
    "gradbench.exact",
    "gradbench.metrics",
    "gradbench.plots",
    "gradbench.suites",
    "gradbench.testing",
)

# Types as the sources name them, and not as Python spells them out.
SHORT = {
    inspect.formatannotation(Model): "Model",
    inspect.formatannotation(Floats): "Floats",
    inspect.formatannotation(Exactness): "Exactness",
    "jax.jaxlib._jax.": "",
    "jaxlib._jax.": "",
    "jaxtyping.": "",
    "typing.": "",
    "optax._src.base.": "optax.",
    "pandas.core.frame.": "pandas.",
    "matplotlib.axes._axes.": "matplotlib.",
    "matplotlib.figure.": "matplotlib.",
    "gradbench.core.contract.": "",
    "gradbench.core.noise.": "",
    "gradbench.measure.blocks.": "",
    "gradbench.models.layer.": "",
    "gradbench.plots.style.": "",
}


def write(directory: Path) -> Path:
    """Write a page for each of ``PAGES``; none of them loads anything from elsewhere.

    Returns:
        The page to begin with.
    """
    homes = {}  # where a class is public, by where it is written
    for name in PAGES:
        module = importlib.import_module(name)
        public = {own: getattr(module, own) for own in module.__all__}
        vars(module).update(public)  # those that are loaded when they are used
        classes = {own: thing for own, thing in public.items() if inspect.isclass(thing)}
        homes |= {f"{thing.__module__}.{own}": f"{name}.{own}" for own, thing in classes.items()}
    for entry in ESTIMATORS.values():
        entry.make.__doc__ = f"{inspect.getdoc(entry.make)}\n\n{_facts(entry.name)}\n"
    plain = inspect.formatannotation

    def short(annotation: object, *args: object, **options: object) -> str:
        text = plain(annotation, *args, **options)
        for long, own in (homes | SHORT).items():
            text = text.replace(long, own)
        return text

    inspect.formatannotation = pdoc.doc.formatannotation = short
    pdoc.render.configure(docformat="google", template_directory=HERE / "templates")
    alone = [part for page in PAGES for part in (page, rf"!{page}\..+")]  # without submodules
    pdoc.pdoc(*alone, output_directory=directory)
    return directory / "gradbench.html"


def _facts(name: str) -> str:
    """Return what the registry knows of an estimator, as a table in Markdown."""
    rows = [f"| {fact} | {text.replace('|', '&#124;')} |" for fact, text in facts(name)]
    return "\n".join(["| | |", "|---|---|", *rows])


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
