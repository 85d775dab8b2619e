"""``gradbench schema``: the JSON Schemas of TOML files."""

import click

from gradbench.cli.options import say


@click.command(short_help="Print the JSON Schema of suites or problems, for editors.")
@click.argument("kind", metavar="KIND")
def command(kind: str) -> None:
    """Print the schema of a kind, suite or problem, with all that plugins have registered."""
    import json

    from gradbench.suites.json_schema import schema

    say(json.dumps(schema(kind), indent=2))
