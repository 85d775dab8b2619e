"""Problems by name or by path."""

import os

from gradbench.core.errors import GradbenchError
from gradbench.suites.config import Document
from gradbench.suites.library import PROBLEMS, find
from gradbench.suites.own_parameters import StoredParameters
from gradbench.suites.problem import Problem, ProblemTable


def list_problems() -> list[str]:
    """Return the names of the problems that come with the package, and of those of plugins."""
    return PROBLEMS.names()


def load_problem(name_or_path: str | os.PathLike[str]) -> Problem:
    """Return a problem by ``name_or_path``: its name, or the path of its ``.toml`` file.

    Raises:
        GradbenchError: there is none, or something in it is wrong: one line for each fault.
    """
    return read_problem(*find("problem", name_or_path))


def read_problem(
    name: str, document: Document, label: float | None = None, base: str | None = None
) -> Problem:
    """Return the problem that a document describes.

    Raises:
        GradbenchError: something in it is wrong: one line for each fault.
    """
    table = document.read(ProblemTable)
    try:
        data = table.data.located(document.folder)
        measured = table.measured.located(document.folder) if table.measured else data
    except GradbenchError as error:
        raise document.error(("data", "file"), str(error)) from None
    parameters = None
    if table.parameters is not None:
        try:
            parameters = StoredParameters.located(table.parameters.file, document.folder)
        except GradbenchError as error:
            raise document.error(("parameters", "file"), str(error)) from None
    return Problem(
        name=name,
        title=table.title,
        data=data,
        measured=measured,
        network=table.network,
        training=table.training,
        label=label,
        base=base or name,
        reference=table.reference,
        parameters=parameters,
    )
