"""``gradbench recommend``: the best estimator for a user's problem."""

from typing import Any

import click

from gradbench.cli.options import WHOLE, say, with_cache


@click.command(short_help="Find the best estimator for a problem of your own.")
@click.argument("problem", metavar="FILE.py:NAME")
@click.option(
    "--budget",
    default="100-evaluations",
    metavar="BUDGET",
    help="Of one gradient: 64-draws, 100-evaluations or 1ms (100-evaluations).",
)
@click.option(
    "--estimator",
    "estimators",
    multiple=True,
    metavar="NAME",
    help="Only this one, with hyper-parameters; repeatable (all that fit).",
)
@click.option("--draws", type=WHOLE, default=2000, help="Draws where nothing is exact (2000).")
@click.option("--seed", type=WHOLE, default=0, help="Seed of the draws (0).")
@with_cache
def command(
    problem: str, budget: str, estimators: tuple[str, ...], draws: int, seed: int, no_cache: bool
) -> None:
    """Measure the estimators on a problem of your own and print the best.

    The problem is a tuple of a model, its parameters and a batch, or a function that returns one.
    """
    import jax

    from gradbench.advise.recommend import recommend
    from gradbench.core import plugins
    from gradbench.core.compiling import kept_programs
    from gradbench.core.errors import GradbenchError

    found = plugins.imported(problem, "problem")
    if callable(found):
        found = plugins.called(found, problem, "problem")
    if not isinstance(found, tuple) or len(found) != 3:
        raise GradbenchError(
            f"the problem {problem!r} is of type {type(found).__name__}; give a tuple "
            "of a model, its parameters and a batch, or a function that returns one"
        )
    how: dict[str, Any] = {"draws": draws, "seed": seed, "progress": True}
    # Callbacks of a model run in threads that the float64 of a context does not reach.
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        with kept_programs(not no_cache):
            best = recommend(*found, budget, list(estimators) or None, **how)
    finally:
        jax.config.update("jax_enable_x64", before)
    say(best)
