"""``gradbench init``: files to begin with."""

import os
from pathlib import Path
from typing import NamedTuple

import click

from gradbench.cli.options import say


class Template(NamedTuple):
    """A file of the folder of templates, the name of its copy, and what to do with that."""

    file: str
    name: str
    then: str


_TEMPLATES = {
    "suite": [Template("suite.toml", "my_suite.toml", "gradbench run {file}")],
    "problem": [
        Template("problem.toml", "my_problem.toml", 'name it in a suite: problems = ["{file}"]'),
        Template("problem.txt", "my_problem.py", "gradbench recommend {file}:problem"),
    ],
    "estimator": [
        Template("estimator.txt", "my_estimator.py", "gradbench check my_estimator --plugin {file}")
    ],
}


@click.command(short_help="Write a suite, problem or estimator to begin with.")
@click.argument("kind", metavar="suite|problem|estimator")
@click.argument("path", required=False, type=Path, metavar="[PATH]")
def command(kind: str, path: Path | None) -> None:
    """Write a file that works as it is, with what may be changed in it.

    PATH is the file, such as my_suite.toml in this folder; a problem is a TOML file for a suite or,
    where PATH ends with .py, a model in JAX. No file is ever overwritten.
    """
    from gradbench.core.atomic import write_file
    from gradbench.core.errors import GradbenchError, did_you_mean

    if kind not in _TEMPLATES:
        raise GradbenchError(f"there is no template {kind!r}; {did_you_mean(kind, _TEMPLATES)}")
    templates = _TEMPLATES[kind]
    if path is not None and path.is_dir():
        path = path / templates[0].name
    path = path or Path(templates[0].name)
    found = [one for one in templates if Path(one.name).suffix == path.suffix]
    if not found:
        ends = " or ".join(Path(one.name).suffix for one in templates)
        raise GradbenchError(
            f"{str(path)!r} is no name of a {kind}; give one that ends with {ends}"
        )
    if os.path.lexists(path):
        raise GradbenchError(f"{str(path)!r} is there already; give another path")
    template = Path(__file__).parents[1] / "templates" / found[0].file
    text = template.read_text("utf-8").replace("{file}", path.name)
    write_file(path, text.encode())
    say(f"{path}: {found[0].then.format(file=path)}")
