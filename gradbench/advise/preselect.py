"""Which estimators are worth measuring on a model: those that take it, at a cost one would pay."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from gradbench.core.contract import Model, Params, is_chain
from gradbench.core.errors import GradbenchError
from gradbench.core.misfits import one_layer
from gradbench.core.programs import parts
from gradbench.core.run import batch_size, sites_of
from gradbench.core.specs import canonical, family
from gradbench.estimators import ESTIMATORS, check_spec
from gradbench.estimators.registry import evaluations, get_estimator
from gradbench.measure.cell import coordinates_of
from gradbench.measure.draws import draw
from gradbench.metrics.budget import Budget
from gradbench.metrics.left_out import UNASKED
from gradbench.suites.gradients import Instance

MOST_EVALUATIONS = 1000.0  # of a draw: the largest budget that verdicts look at
_DRAWS = (64, 2048)  # by default: of the largest and of the smallest models
_WORK = 1 << 32  # multiply-adds of one evaluation for all draws of an estimator, by default
_MOST_WORK = 1 << 38  # of a draw's evaluations, for all draws: some minutes on two cores
_OF_LAYERS = (
    " (a plain function is run again for each unit that is flipped; an SBN of such layers takes {})"
)
_CHEAP = 4.0  # evaluations of a draw, which are never too many
_APART = ("combination", "exact")  # made of others, or no estimator
# What most papers compare: measured first, as a time limit may leave out those at the end.
_FIRST = ("straight_through", "reinforce", "concrete", "zgr", "arm", "psa")


class Chosen(NamedTuple):
    """The estimators to be measured, in this order, and why others are not."""

    estimators: list[str]
    left_out: dict[str, str]


def names_of(estimators: Sequence[str]) -> list[str]:
    """Return the canonical specs of some estimators, without the exact gradient.

    Raises:
        GradbenchError: no list of names, or an estimator that there is not.
    """
    several: object = estimators
    if isinstance(several, str) or not isinstance(several, Iterable):
        raise GradbenchError(
            f"estimators is {estimators!r}; give a list of names, such as ['psa', 'disarm']"
        )
    names = list(estimators)
    for name in names:
        check_spec(name)
    return [spec for spec in dict.fromkeys(map(canonical, names)) if family(spec) != "exact"]


def default_draws(built: Instance) -> int:
    """Return the draws of each estimator: fewer of large models on many examples.

    The number follows from sizes alone, so that it is the same in every run.
    """
    least, most = _DRAWS
    draws = int(_WORK / work_of(built))
    return min(max(1 << max(draws.bit_length() - 1, 0), least), most)


def work_of(built: Instance) -> float:
    """Return about how many multiply-adds an evaluation of the objective of a batch takes."""
    known = getattr(built.network, "run_work", None)
    work = known(built.shapes(), built.batch) if known else 0.0
    return max(float(work), float(coordinates_of(built.shapes()) * batch_size(built.batch)), 1.0)


def choose(
    built: Instance, estimators: Sequence[str] | None, draws: int, budget: Budget | None
) -> Chosen:
    """Return the estimators to be measured on a model.

    Args:
        built: the model, its parameters and its batch.
        estimators: canonical specs, all of which are measured if they take the model; by default
            all that there are and that cost neither more than the budget nor far more than others.
        draws: of each of them.
        budget: of one gradient.

    Raises:
        GradbenchError: no estimator takes the model.
    """
    units = [site.size for site in sites_of(built.network, built.shapes(), built.batch)]
    costs = partial(evaluations, units=units, chain=is_chain(built.network))
    names = _in_rounds(costs) if estimators is None else list(estimators)
    chosen, left_out = [], {}
    for spec in names:
        why = ""
        if estimators is None:
            why = _too_dear(float(costs(spec)), work_of(built) * draws, draws, budget)
            alone = evaluations(spec, units)
            if why and alone < costs(spec):
                why = f"{why}{_OF_LAYERS.format(alone)}"
            if why:
                why += UNASKED
        if why := why or misfit(built, spec):
            left_out[spec] = why
        else:
            chosen.append(spec)
    if not chosen:
        first = next(iter(left_out.values()), "name one besides the exact gradient")
        raise GradbenchError(f"no estimator takes the problem: {first}")
    return Chosen(chosen, left_out)


def _in_rounds(costs: Callable[[str], int]) -> list[str]:
    """Return all estimators: the best known, then one of each family, then a second one, ...

    In each round the cheapest are first. A time limit then leaves out what resembles something that
    was measured.
    """
    families = defaultdict(list)
    for name in ESTIMATORS:
        families[ESTIMATORS[name].family].append(name)
    rounds = []
    for kind, members in families.items():
        if kind not in _APART:
            # A family is best known by the one whose name it has.
            ranked = sorted(members, key=lambda name: (name != kind, costs(name), name))
            rounds += [(k, costs(name), name) for k, name in enumerate(ranked)]
    return [canonical(name) for name in dict.fromkeys([*_FIRST, *(x[-1] for x in sorted(rounds))])]


def _too_dear(cost: float, work: float, draws: int, budget: Budget | None) -> str:
    """Return why an estimator costs too much to be measured unasked, "" if it does not."""
    limit = MOST_EVALUATIONS
    if budget is not None and budget.cost == "evaluations":
        limit = max(budget.amount, 1.0)
    if cost > limit:
        return f"a draw costs {cost:.6g} evaluations of the objective, more than {limit:g}"
    if cost > _CHEAP and cost * work > _MOST_WORK:
        return f"{draws} draws of {cost:.6g} evaluations take too long"
    return ""


def misfit(built: Instance, spec: str) -> str:
    """Return why an estimator does not take a model, "" if it does; only shapes are computed."""
    entry, _ = get_estimator(spec)
    params, key = built.shapes(), jax.eval_shape(lambda: jax.random.key(0))
    try:
        if entry.layers == "one":
            one_layer(spec, sites_of(built.network, params, built.batch))
        make, numbers = parts(built.loss(spec))
        jax.eval_shape(partial(draw, make), numbers, params, key, built.batch)
    except Exception as error:  # of any kind: the model is the user's
        return reason_of(spec, error)
    return ""


def reason_of(spec: str, error: Exception) -> str:
    """Return why an estimator could not be measured, from the exception that it ended in."""
    if isinstance(error, GradbenchError):
        return str(error)
    reason = in_one_line(error)
    entry, arguments = get_estimator(spec)
    if entry.needs_derivative(**arguments):
        return f"needs an objective that JAX can differentiate in the states ({reason})"
    return reason


def in_one_line(error: Exception) -> str:
    """Return the message of an exception as one line.

    An exception in a callback holds a whole traceback; its last line is the message then.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if "Traceback" not in str(error):
        return f"{type(error).__name__}: {lines[0].partition('. ')[0].rstrip('.')}"
    said = next((x for x in reversed(lines) if re.match(r"\w+(Error|Exception)\b", x)), lines[-1])
    remedy = "correct it"
    if "Expected: float64, Actual: float32" in said:  # its thread is outside of the context
        remedy = "call jax.config.update('jax_enable_x64', True) before"
    return f"a callback of the model fails with {said}; {remedy}"


def is_zero(gradient: Params) -> bool:
    """Return whether all of a gradient is zero."""
    return not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def name_of(model: Model) -> str:
    """Return what a model is called: the name of its function or class."""
    name = getattr(model, "__name__", type(model).__name__)
    return name if str(name).isidentifier() else "model"
