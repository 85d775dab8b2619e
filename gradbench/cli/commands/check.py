"""``gradbench check``: what estimators are exact for."""

import argparse

from gradbench.cli.options import FAILED, add_cache, say

HELP = "find what an estimator is really exact for"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench check``."""
    command.add_argument(
        "estimators", nargs="*", metavar="NAME", help="an estimator, or module:function"
    )
    command.add_argument("--all", action="store_true", help="every estimator there is")
    command.add_argument(
        "--claim", metavar="CLASS", help="the class to check, instead of the registry's"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of problems and draws (0)")
    add_cache(command)


def run(options: argparse.Namespace) -> int:
    """Print certificates of estimators; return 1 where a claim is wrong."""
    from gradbench.core.compiling import compile_quickly, kept_programs

    compile_quickly()
    import jax

    # The many small programs run for milliseconds: compiling them is what takes time.
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with kept_programs(options.cache):
            return 0 if _all_pass(options) else FAILED
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def _all_pass(options: argparse.Namespace) -> bool:
    from gradbench.core.errors import GradbenchError
    from gradbench.testing import check_all, check_estimator

    if options.all == bool(options.estimators):
        raise GradbenchError("check needs names of estimators or --all, and not both")
    if options.all:
        return check_all(options.seed, print)
    found = [check_estimator(name, options.claim, options.seed) for name in options.estimators]
    say("\n\n".join(map(str, found)))
    return all(certificate.passed for certificate in found)
