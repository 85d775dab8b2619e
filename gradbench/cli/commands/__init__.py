"""The commands of the command line, one module each.

A module is a command of its own name, found by being here. Its ``command`` is a function decorated
by ``click.command``, with a ``short_help`` for the list of commands, that returns the exit code, or
None for success. Whatever takes long to import, such as JAX or pandas, is imported inside of it, so
that ``--help`` answers at once.
"""
