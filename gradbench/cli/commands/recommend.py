"""``gradbench recommend``: the best estimator for a user's problem."""

from pathlib import Path

import click

from gradbench.cli import complete
from gradbench.cli.options import WHOLE, compute_on, say, with_cache, with_device, with_time_limit


@click.command(short_help="Find the best estimator for a problem of your own.")
@click.argument("problem", metavar="FILE.py:NAME")
@click.option(
    "--budget",
    default="100-evaluations",
    metavar="BUDGET",
    help="Of one gradient: 64-draws, 100-evaluations or 1ms (100-evaluations).",
)
@click.option(
    "-e",
    "--estimator",
    "estimators",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.estimators,
    help="Only this one, with hyper-parameters; repeatable (all that fit).",
)
@click.option("--draws", type=WHOLE, help="Draws of each estimator (2048, fewer of large models).")
@click.option("--seed", type=WHOLE, default=0, help="Seed of the draws (0).")
@click.option(
    "--out",
    type=Path,
    metavar="DIR",
    shell_complete=complete.directories,
    help="Keep the measurements here, and continue them.",
)
@with_time_limit
@with_device
@with_cache
def command(
    problem: str,
    budget: str,
    estimators: tuple[str, ...],
    draws: int | None,
    seed: int,
    out: Path | None,
    time_limit: float | None,
    device: str | None,
    no_cache: bool,
) -> None:
    """Measure the estimators on a problem of your own and print the best.

    The problem is a tuple of a model, its parameters and a batch, or a function that returns one.
    """
    from gradbench.advise.own import double_precision, read_own
    from gradbench.advise.recommend import recommend
    from gradbench.cli.own import limited
    from gradbench.core.compiling import kept_programs

    compute_on(device)
    _, model, params, batch = read_own(problem)
    how = {"draws": draws, "seed": seed, "progress": True, "out": out, "time_limit": time_limit}
    with double_precision(), kept_programs(not no_cache):
        best = recommend(model, params, batch, budget, list(estimators) or None, **limited(how))
    say(best)
