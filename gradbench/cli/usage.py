"""What is wrong with a command line, as one sentence with its remedy."""

import click

from gradbench.core.errors import GradbenchError, did_you_mean, shortened


def sentence(error: click.UsageError) -> str:
    """Return what is wrong with the arguments of a command, and what to write instead."""
    path = error.ctx.command_path if error.ctx else "gradbench"
    name = path.partition(" ")[2] or path
    remedy = f"see {path} --help"
    if isinstance(error, click.NoSuchOption):
        given = shortened(repr(error.option_name))
        if error.possibilities:
            remedy = did_you_mean(error.option_name, error.possibilities)
        return f"{name} has no option {given}; {remedy}"
    if isinstance(error, click.BadOptionUsage):  # which knows no command
        option = error.option_name
        if "not take" in error.message:
            return f"{option} got a value; leave it out"
        return f"{option} got no value; give one, as in {option} VALUE"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        missing = error.param.metavar or error.param.human_readable_name
        return f"{name} got no {missing}; give it, or {remedy}"
    message = shortened(error.format_message().rstrip("."), 200)
    return f"{name}: {message[:1].lower()}{message[1:]}; {remedy}"


class Group(click.Group):
    """Commands of which an unknown one is told with the closest that there is."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that arguments begin with, and its arguments.

        Raises:
            GradbenchError: there is no such command.
        """
        name, *rest = arguments
        command = self.get_command(context, name)
        if command is None and not context.resilient_parsing:
            remedy = did_you_mean(name, self.list_commands(context))
            raise GradbenchError(f"there is no command {name!r}; {remedy}")
        return name, command, rest
