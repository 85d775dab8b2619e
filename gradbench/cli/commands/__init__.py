"""The commands of the command line, one module each.

A module is a command of its own name, found by being here. It has ``HELP``, a line for the list of
commands, ``add_arguments(command)``, which adds its options to a parser, and ``run(options)``,
which returns the exit code, or None for success. Whatever takes long to import, such as JAX or
pandas, is imported by ``run``, so that ``--help`` answers at once.
"""
