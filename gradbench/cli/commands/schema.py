"""``gradbench schema``: the JSON Schema of suites and problems."""

import argparse

HELP = "print the JSON Schema of a suite or a problem, for editors"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench schema``."""
    command.add_argument("kind", metavar="KIND", help="suite or problem")


def run(options: argparse.Namespace) -> None:
    """Print the schema."""
    import json

    from gradbench.suites.schema import schema

    print(json.dumps(schema(options.kind), indent=2))
