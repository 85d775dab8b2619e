"""Recommend an estimator for a problem of one's own: measured on it, at a budget."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from tqdm import tqdm

from gradbench import metrics
from gradbench.core.arguments import at_least
from gradbench.core.contract import Batch, Model, Params, is_chain
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import checked, refuse_traced
from gradbench.core.precision import doubled, float64
from gradbench.core.pytrees import closed, layer_vectors
from gradbench.core.seeds import named_seed
from gradbench.core.specs import family, label
from gradbench.estimators import ESTIMATORS, check_spec, make_estimator
from gradbench.estimators.registry import claims_of, get_estimator
from gradbench.measure.cell import Cell, prepare
from gradbench.measure.reference import Reference, Samples, reference
from gradbench.measure.timing import Timed, time_draws
from gradbench.metrics import Budget, Measurement
from gradbench.metrics.intervals import digits
from gradbench.metrics.tables import ranking

DRAWS = 2000  # of an estimator whose moments are not enumerated
BUDGET = "100-evaluations"
_REL_SE = 0.02  # of a sampled truth: its noise is then far below the differences that are ranked
_CHANCE = 0.05  # two estimators with a larger p-value are not told apart
_ENUMERATED = 1 << 21  # draws of one example that exact moments may take: a second or so


class Recommendation(NamedTuple):
    """The recommendation: a sentence, and the measurements behind it.

    ``ranking`` is the frame of ``gradbench.metrics.rank`` for ``budget``. ``unfit`` maps each
    estimator that does not take the problem to the reason.
    """

    sentence: str
    ranking: pd.DataFrame
    budget: Budget
    unfit: dict[str, str]

    @property
    def best(self) -> str:
        """The estimator that is recommended."""
        return str(self.ranking["estimator"].iloc[0])

    def __str__(self) -> str:
        _, _, rows = ranking(self.ranking, "rmse", str(self.budget)).partition("\n")
        parts = [f"the whole gradient, at {self.budget}\n{rows}"]
        if self.unfit:
            reasons = "\n".join(f"  {name}: {why}" for name, why in self.unfit.items())
            parts.append(f"not for this problem:\n{reasons}")
        return "\n\n".join([*parts, self.sentence])


def recommend(
    model: Model,
    params: Params,
    batch: Batch,
    budget: str | Budget = BUDGET,
    estimators: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool = False,
) -> Recommendation:
    """Measure estimators on a model at its parameters, and recommend one for a budget.

    The truth is the exact gradient. If the model is too large to be enumerated, it is a long run of
    an unbiased estimator to a relative standard error of 2 % in every layer, and all intervals
    include its noise (see ``gradbench.reference``). Bias and variance of an estimator are exact if
    its moments can be enumerated in about a second, else they are estimated from draws. The ranking
    is by the relative RMSE of the gradient of the whole network, averaged over as many draws as the
    budget pays for.

    Args:
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: any pytree of real arrays, such as a tuple with an entry per layer and one for the
            objective.
        batch: examples along the first axis of its leaves.
        budget: for one gradient: "100-evaluations" (of the objective, per example), "16-draws", or
            "1ms" of time measured on this machine.
        estimators: specs; by default all that take the problem.
        draws: of each estimator whose moments are not exact, at least 2.
        seed: of the draws.
        progress: whether to show a bar.

    Raises:
        GradbenchError: a model, parameters or a batch that do not fit each other; a gradient of
            zero; an unknown estimator or budget; or a budget that pays no draw of any estimator.
    """
    allowed = metrics.budget(budget)
    draws = at_least(2, "draws", draws)
    names = _names(estimators)
    key = jax.random.key(named_seed(seed, "reference"))
    refuse_traced("recommend", params, batch)
    checked(model, params, batch, finite=True, differentiated=True, own=True)
    params = closed(params, numbers=True)
    unfit: dict[str, str] = {}
    with float64():
        params, batch = doubled((params, batch))
        try:
            truth = reference(model, params, batch, rel_se=_REL_SE, key=key, progress=progress)
        except jax.errors.JaxRuntimeError as error:
            raise GradbenchError(_in_one_line(error)) from error
        if not any(np.any(leaf) for leaf in jax.tree.leaves(truth.gradient)):
            raise GradbenchError(
                "the exact gradient is zero, so that no error is relative to it; give other "
                "parameters, such as random ones"
            )
        problem = _Problem(model, params, batch, truth, draws, seed)
        measured: list[tuple[Cell, Measurement]] = []
        bar = tqdm([name for name in names if family(name) != "exact"], disable=not progress)
        for name in bar:
            bar.set_description(name)
            found = problem.measure_or_explain(name)
            if isinstance(found, str):
                unfit[name] = found
            else:
                measured.append(found)
        cells = [cell for _, cell in measured]
        if allowed.cost == "seconds":
            cells = _with_times(measured, draws)
    if not cells:
        raise GradbenchError(
            "no estimator takes the problem: "
            f"{next(iter(unfit.values()), 'name one besides the exact gradient')}"
        )
    frame = metrics.rank(cells, "rmse", allowed)
    sentence = _sentence(frame, cells, allowed)
    if truth.samples:
        sentence = f"{sentence[:-1]}; {_describe_truth(truth.samples)}."
    return Recommendation(sentence, frame, allowed, unfit)


def _names(estimators: Sequence[str] | None) -> list[str]:
    """Return the specs of the estimators to be measured, all of them by default.

    Raises:
        GradbenchError: no names, or an estimator that there is not.
    """
    if estimators is None:
        return sorted(ESTIMATORS)
    several: object = estimators
    if isinstance(several, str) or not isinstance(several, Iterable):
        raise GradbenchError(
            f"estimators is {estimators!r}; give a list of names, such as ['psa', 'disarm']"
        )
    names = list(estimators)
    for name in names:
        check_spec(name)
    return names


class _Problem(NamedTuple):
    """The problem that estimators are measured on, and how."""

    model: Model
    params: Params
    batch: Batch
    truth: Reference
    draws: int
    seed: int

    def measure_or_explain(self, spec: str) -> tuple[Cell, Measurement] | str:
        """Return an estimator with its measurement, or why it does not take the problem."""
        try:
            return self._measure(spec)
        except GradbenchError as error:
            return str(error)
        except Exception as error:  # of the user's model: a callback without a derivative, say
            reason = _in_one_line(error)
            entry, arguments = get_estimator(spec)
            if entry.needs_derivative(**arguments):
                return f"needs an objective that JAX can differentiate in the states ({reason})"
            return reason

    def _measure(self, spec: str) -> tuple[Cell, Measurement]:
        key, fit_key = (jax.random.key(named_seed(self.seed, name)) for name in ("draws", "fit"))
        loss = make_estimator(spec, self.model)
        cell = prepare(loss, self.params, self.batch, key=key, fit_key=fit_key, name=repr(spec))
        moments = cell.exact_moments(_ENUMERATED)
        plan = cell.plan(self.draws)
        found = cell.measured(
            self.truth.gradient,
            plan,
            None if moments is None else [0],  # bias and variance are known
            moments=moments,
            cost=cell.cost(spec, self.model, chain=is_chain(self.model)),
        )
        return cell, Measurement.stored(
            ("problem", 0, "given"),
            spec,
            gradient=[np.asarray(vector) for vector in layer_vectors(self.truth.gradient)],
            reference=self.truth.blocks,
            claim=claims_of([spec])[spec],
            **found._asdict(),
        )


def _with_times(measured: Sequence[tuple[Cell, Measurement]], draws: int) -> list[Measurement]:
    """Return the measurements with the times of draws, which are measured in turns."""
    times = time_draws(
        [Timed(cell, cell.plan(draws), one.cost["evaluations"]) for cell, one in measured],
        latency=False,
    )
    return [
        one._replace(cost={**one.cost, **time.known()})
        for (_, one), time in zip(measured, times, strict=True)
    ]


def _in_one_line(error: Exception) -> str:
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


def _sentence(frame: pd.DataFrame, cells: Sequence[Measurement], budget: Budget) -> str:
    """Return the recommendation as a sentence: the best estimator, by how much, and how sure."""
    able = frame[frame["rank"].notna()]
    first, others = able.iloc[0], able.iloc[1:]
    start = f"At {budget} use {_with_error(first)}"
    if others.empty:
        if len(frame) == 1:
            return f"{start}: no other was measured."
        return f"{start}: the budget pays no draw of any other."
    chance = [metrics.difference_p(cells, (first, other), budget) for _, other in others.iterrows()]
    known = bool(able["exact"].all()) and budget.cost != "seconds"
    tied = [name for name, p in zip(others["estimator"], chance, strict=True) if p > _CHANCE]
    if tied:
        names = ", ".join(map(label, tied[:3])) + f" and {len(tied) - 3} more" * (len(tied) > 3)
        if known:
            return f"{start}; as good: {names}."
        remedy = "times vary by as much" if able["exact"].all() else "more draws would tell"
        return (
            f"{start}; not told apart from it: {names} (p-values of equal errors up to "
            f"{max(chance):.2g}); {remedy}."
        )
    second = others.iloc[0]
    less = 1.0 - first["rmse"] / second["rmse"]
    share = f"{100 * less:.2g}" if less < 0.99 else f"{100 * less:.3g}"  # 1e+02 is no percentage
    # The chance of such a difference if the errors were equal, not the chance that they are.
    sure = f"p-value of equality with the runner-up {_p_value(chance[0])}"
    if max(chance) > chance[0]:
        sure += f", with others up to {_p_value(max(chance))}"
    if known:
        sure = "exact, without doubt"
    if budget.cost == "seconds":
        sure += ", with times of this machine"
    return f"{start}, {share} % less than the runner-up {_with_error(second)}; {sure}."


def _p_value(p: float) -> str:
    return "below 1e-16" if p < 1e-16 else f"{p:.1g}"


def _describe_truth(samples: Samples) -> str:
    """Return the part of the sentence that says which sampled truth was used, and how precise."""
    worst = max(samples.rel_se.values())
    known = f"known to {100 * worst:.2g} %" if worst < 1.0 else "not told from zero in some layer"
    return (
        f"measured against the mean of {samples.draws:,} draws of {label(samples.estimator)}, "
        f"{known}, as the model is too large to be enumerated"
    )


def _with_error(row: pd.Series) -> str:
    """Return an estimator in the sentence, with its error and its number of draws."""
    draws = "one draw" if row["M"] == 1 else f"mean of {row['M']} draws"
    number = digits(row["rmse"], row["rmse_se"])
    return f"{label(row['estimator'])} (relative RMSE {number}, {draws})"
