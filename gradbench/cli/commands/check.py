"""``gradbench check``: what estimators are exact for."""

from typing import Any

import click

from gradbench.cli import complete
from gradbench.cli.options import (
    FAILED,
    WHOLE,
    compute_on,
    say,
    with_cache,
    with_device,
    with_quiet,
)


@click.command(short_help="Find what an estimator is really exact for.")
@click.argument("estimators", nargs=-1, metavar="[NAME]...", shell_complete=complete.estimators)
@click.option("--all", "every", is_flag=True, help="Check every estimator there is.")
@click.option("--claim", metavar="CLASS", help="The class to check, instead of the registry's.")
@click.option("--seed", type=WHOLE, default=0, help="Seed of problems and draws (0).")
@with_device
@with_quiet
@with_cache
def command(
    estimators: tuple[str, ...],
    every: bool,
    claim: Any,
    seed: int,
    device: str | None,
    no_cache: bool,
    quiet: bool,
) -> int:
    """Print certificates of estimators: names, or module:function; return 1 where one is wrong."""
    from gradbench.core.compiling import compile_quickly, kept_programs
    from gradbench.core.progress import Progress

    compile_quickly()
    compute_on(device)
    import jax

    # The many small programs run for milliseconds: compiling them is what takes time.
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with kept_programs(not no_cache), Progress(lines=False, show=not quiet):
            return 0 if _all_pass(estimators, every, claim, seed, quiet) else FAILED
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def _all_pass(estimators: tuple[str, ...], every: bool, claim: Any, seed: int, quiet: bool) -> bool:
    from gradbench.core.errors import GradbenchError
    from gradbench.testing import check_all, check_estimator

    if every == bool(estimators):
        raise GradbenchError("check needs names of estimators or --all, and not both")
    if every:
        return check_all(seed, (lambda line: None) if quiet else print)
    found = [check_estimator(name, claim, seed) for name in estimators]
    shown = [one for one in found if not (quiet and one.passed)]
    if shown:
        say("\n\n".join(map(str, shown)))
    return all(certificate.passed for certificate in found)
