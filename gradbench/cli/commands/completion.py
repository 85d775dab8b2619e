"""``gradbench completion``: commands, names and paths completed by the shell."""

import click

from gradbench.cli.options import say


@click.command(
    short_help="Print the script that lets a shell complete commands.",
    epilog="\b\nExamples:\n"
    '  eval "$(gradbench completion bash)"      in ~/.bashrc\n'
    '  eval "$(gradbench completion zsh)"       in ~/.zshrc\n'
    "  gradbench completion fish | source       in ~/.config/fish/config.fish",
)
@click.argument("shell", metavar="bash|zsh|fish")
def command(shell: str) -> None:
    """Print the script by which a shell completes commands, options, names and directories."""
    from gradbench.cli.complete import SHELLS, script
    from gradbench.core.errors import GradbenchError, did_you_mean

    if shell not in SHELLS:
        raise GradbenchError(f"there is no completion for {shell!r}; {did_you_mean(shell, SHELLS)}")
    say(script(shell))
