"""``gradbench data``: data sets of the literature on this machine."""

import click

from gradbench.cli.options import FAILED, say
from gradbench.cli.usage import Group


@click.group(
    cls=Group,
    short_help="List, download, add or verify data sets of the literature.",
    invoke_without_command=True,
    subcommand_metavar="list|get|add|verify [ARGUMENTS]...",
)
@click.pass_context
def command(context: click.Context) -> None:
    """Bring data sets of the literature to this machine, where suites find them by name.

    They stay in the folder `data` of the user's folder for caches, or of the one that the
    environment variable GRADBENCH_CACHE names. What they contain is checked by its digests.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command.command("list", short_help="List the data sets, and which are on this machine.")
@click.option("--markdown", is_flag=True, help="Print a table in Markdown, with digests.")
def list_all(markdown: bool) -> None:
    """List the data sets that are known, and which of them are on this machine."""
    say(listing(markdown))


def listing(markdown: bool) -> str:
    """Return the table of the data sets that are known; in Markdown it has their digests."""
    from gradbench.core import text
    from gradbench.suites.datasets.cache import entry
    from gradbench.suites.datasets.content import short
    from gradbench.suites.datasets.sources import SOURCES

    head = ["name", "train", "test", "inputs", "here", "what it is"]
    rows = [["digits", "1297", "500", "8x8", "bundled", "handwritten digits in grey"]]
    more = [["CC BY 4.0", ""]]
    for name, source in SOURCES.items():
        sizes = map(str, source.examples)
        here = "yes" if entry(name).is_file() else "no"
        rows.append([name, *sizes, source.inputs, here, source.title])
        more.append([source.licence, f"`{short(source.digest)}`"])
    if markdown:
        rows = [[row[0], row[-1], *row[1:4], *own] for row, own in zip(rows, more, strict=True)]
        head = [head[0], head[-1], *head[1:4], "licence", "digest"]
        return "\n".join(text.markdown([head, *rows]))
    return "\n".join(text.aligned([head, *rows]))


@command.command(short_help="Download a data set from where it is published.")
@click.argument("name")
def get(name: str) -> None:
    """Download a data set, such as mnist, from where it is published, unless it is here."""
    from gradbench.suites import datasets

    say(f"{name} is in {datasets.get(name)}")


@command.command(short_help="Add a data set from a file, a folder or an archive.")
@click.argument("name")
@click.argument("path", type=click.Path())
def add(name: str, path: str) -> None:
    """Add a data set from a file, a folder or an archive that holds it, in any usual format."""
    from gradbench.suites import datasets

    say(f"{name} is in {datasets.add(name, path)}")


@command.command(short_help="Verify the data sets that are on this machine.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> int:
    """Verify data sets, by default all that are on this machine; return 1 where one is damaged."""
    from gradbench.suites import datasets
    from gradbench.suites.datasets.cache import data_folder, entry
    from gradbench.suites.datasets.content import short
    from gradbench.suites.datasets.sources import SOURCES, find_source

    found = [find_source(name)[0] for name in names]
    found = found or [name for name in SOURCES if entry(name).is_file()]
    if not found:
        say(f"no data sets are in {data_folder()}; add one by 'gradbench data get NAME'")
    faults = {name: datasets.verify(name) for name in found}
    for name, fault in faults.items():
        said = f"{name}: as published, digest {short(SOURCES[name].digest)}"
        say(said if fault is None else f"{name}: {fault}")
    return FAILED if any(faults.values()) else 0
