"""``gradbench recommend``: the best estimator for a user's problem."""

import argparse

from gradbench.cli.options import add_cache, say

HELP = "the best estimator for a problem of your own, measured on it"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench recommend``."""
    command.add_argument(
        "problem",
        metavar="FILE.py:NAME",
        help="a model, its parameters and a batch, or a function that returns them",
    )
    command.add_argument(
        "--budget",
        default="100-evaluations",
        help="of one gradient: 64-draws, 100-evaluations or 1ms (100-evaluations)",
    )
    command.add_argument(
        "--estimator",
        action="append",
        dest="estimators",
        metavar="NAME",
        help="only this one, with hyper-parameters; repeatable (all that fit)",
    )
    command.add_argument("--draws", type=int, default=2000, help="where nothing is exact (2000)")
    command.add_argument("--seed", type=int, default=0, help="seed of the draws (0)")
    add_cache(command)


def run(options: argparse.Namespace) -> None:
    """Measure the estimators on a user's problem and print the best."""
    import jax

    from gradbench.advise.recommend import recommend
    from gradbench.core import plugins
    from gradbench.core.compiling import kept_programs
    from gradbench.core.errors import GradbenchError

    problem = plugins.imported(options.problem, "problem")
    if callable(problem):
        problem = plugins.called(problem, options.problem, "problem")
    if not isinstance(problem, tuple) or len(problem) != 3:
        raise GradbenchError(
            f"the problem {options.problem!r} is of type {type(problem).__name__}; give a tuple "
            "of a model, its parameters and a batch, or a function that returns one"
        )
    how = {"draws": options.draws, "seed": options.seed, "progress": True}
    # Callbacks of a model run in threads that the float64 of a context does not reach.
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        with kept_programs(options.cache):
            found = recommend(*problem, options.budget, options.estimators, **how)
    finally:
        jax.config.update("jax_enable_x64", before)
    say(found)
