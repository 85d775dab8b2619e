"""``gradbench schema``: the JSON Schemas of TOML files."""

import argparse

from gradbench.cli.options import say

HELP = "print the JSON Schema of suites or problems, for editors"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench schema``."""
    command.add_argument("kind", metavar="KIND", help="suite or problem")


def run(options: argparse.Namespace) -> None:
    """Print the schema, with all that plugins have registered."""
    import json

    from gradbench.suites.json_schema import schema

    say(json.dumps(schema(options.kind), indent=2))
