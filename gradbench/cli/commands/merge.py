"""``gradbench merge``: parts of one suite, measured apart."""

from pathlib import Path

import click

from gradbench.cli.options import say


@click.command(short_help="Unite parts of a suite that were measured apart.")
@click.argument("directories", type=Path, metavar="DIR DIR...", nargs=-1)
@click.option("--out", type=Path, metavar="DIR", help="The new directory of all results.")
def command(directories: tuple[Path, ...], out: Path | None) -> None:
    """Unite directories of results of one suite, seed and number of draws in a new one.

    They are left as they are. What several of them have must be the same. A merge that was
    interrupted is continued by the same command.
    """
    from gradbench.core.errors import GradbenchError
    from gradbench.metrics.directory import unfinished, unfinished_line
    from gradbench.results.manifest import versions
    from gradbench.results.merge import merge

    if out is None:
        raise GradbenchError("merge got no directory to write to; give one with --out DIR")
    results = merge(directories, out)
    missing, total = unfinished(results)
    say(f"merged {len(directories)} directories: {total - missing} of {total} cells are finished")
    for line in versions(results.manifest):
        say(f"measured by {line}")
    if line := unfinished_line(missing, total):
        say(line)
    say(f"the table: gradbench show {results.directory}")
