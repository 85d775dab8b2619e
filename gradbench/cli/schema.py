"""The command ``gradbench schema``."""

import argparse
import json


def add_schema(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    command = commands.add_parser("schema", help="print the JSON Schema of a kind of TOML file")
    command.add_argument("kind", metavar="KIND", help="suite or problem")
    command.set_defaults(command=_schema)


def _schema(options: argparse.Namespace) -> None:
    from gradbench.suites.schema import schema

    print(json.dumps(schema(options.kind), indent=2))
