"""The commands in the folder ``commands``, each imported when it is asked for."""

import importlib
import pkgutil
from typing import Any

import click

from gradbench import __version__
from gradbench.cli import commands
from gradbench.cli.usage import Group

# Commands in the order of their use; others follow by name.
_ORDER = ("list", "run", "show", "table", "rank", "compare", "plot", "report", "recommend", "check")


def _load_plugins(context: click.Context, _: click.Parameter, files: tuple[str, ...]) -> None:
    """Load plugins, but not while a shell completes a line."""
    if files and not context.resilient_parsing:
        from gradbench.core import plugins

        for file in files:
            plugins.load(file)


def plugin_option() -> click.Option:
    """Return the option ``--plugin``, which loads plugins before anything else is looked at."""
    return click.Option(
        ["--plugin"],
        multiple=True,
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_load_plugins,
        help="A Python file that registers more estimators, problems, ...; repeatable.",
    )


class Commands(Group):
    """All commands: those that are files in the folder of commands, by the names of the files."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of the commands in the order in which help tells them."""
        names = {module.name for module in pkgutil.iter_modules(commands.__path__)}
        return [*_ORDER, *sorted(names.difference(_ORDER))]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command, with the option ``--plugin``; None where there is none of that name."""
        if name not in self.list_commands(context):
            return None
        command: click.Command = importlib.import_module(f"{commands.__name__}.{name}").command
        command.name = name
        if all("--plugin" not in param.opts for param in command.params):
            command.params.append(plugin_option())
        return command


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        click.echo(f"gradbench {__version__}")
        context.exit()


def version_option() -> click.Option:
    """Return the option ``--version``."""
    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Show the version and exit.",
    )


@click.group(
    cls=Commands,
    name="gradbench",
    params=[plugin_option(), version_option()],
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGUMENTS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def cli(context: click.Context, /, **_: Any) -> None:
    """Measure gradient estimators for stochastic binary networks against the exact gradient."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
