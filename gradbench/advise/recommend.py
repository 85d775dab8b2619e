"""Which estimator to use for a problem of one's own: measured on it, at a budget."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from tqdm import tqdm

from gradbench import metrics
from gradbench.core.contract import Batch, Model, Params, is_chain
from gradbench.core.errors import GradbenchError
from gradbench.core.precision import doubled, float64
from gradbench.core.pytrees import closed, layer_names, layer_vectors, layers_of
from gradbench.core.run import sites_of
from gradbench.core.seeds import named_seed
from gradbench.core.specs import family, label
from gradbench.estimators import ESTIMATORS, check_spec, make_estimator
from gradbench.estimators.adaptive import fitted
from gradbench.estimators.registry import evaluations, get_estimator
from gradbench.measure.blocks import is_finite
from gradbench.measure.draws import layer_moments, make_plan, measure, seconds_per_draw
from gradbench.measure.exact_reference import Reference, Samples
from gradbench.measure.reference import reference
from gradbench.metrics import Budget, Measurement
from gradbench.metrics.intervals import digits
from gradbench.metrics.tables import ranking

DRAWS = 2000  # of an estimator whose moments are not enumerated
BUDGET = "100-evaluations"
_REL_SE = 0.02  # of a sampled truth: its noise is then far below what is ranked
_CHANCE = 0.05  # a larger p-value tells nothing apart
_ENUMERATED = 1 << 21  # draws of one example that exact moments may take: a second or so


class Recommendation(NamedTuple):
    """The answer: a sentence, and what it rests on.

    ``ranking`` is the frame of ``gradbench.metrics.rank`` for ``budget``; ``unfit`` says of the
    estimators that the problem does not take why.
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
    """Measures estimators on a model at its parameters, and recommends one for a budget.

    The truth is the exact gradient; of a model that is too large to be enumerated it is a long run
    of an unbiased estimator, to a relative standard error of 2 % in every layer, whose noise is in
    all that follows (``gradbench.reference``). Bias and variance of an estimator are exact where
    its moments can be enumerated in about a second, else estimated from draws. What is ranked is
    the relative RMSE of the gradient of the whole network when as many draws are averaged as the
    budget pays for.

    Args:
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: any pytree of real arrays, such as a tuple with an entry per layer and one for the
            objective.
        batch: examples along the first axis of its leaves.
        budget: of one gradient: "100-evaluations" (of the objective, per example), "16-draws", or
            "1ms" of time measured on this machine.
        estimators: specs; all that the problem takes unless given.
        draws: of each estimator whose moments are not exact.
        seed: of the draws.
        progress: whether to show a bar.

    Raises:
        GradbenchError: a model, parameters or a batch that do not fit each other, a gradient of
            zero, an unknown estimator or budget, or a budget that pays no draw of any.
    """
    allowed = metrics.budget(budget)
    _check_problem(params)
    params = closed(params, numbers=True)
    if draws < 2:
        raise GradbenchError(f"draws is {draws}; give at least 2, better some thousands")
    names = list(estimators) if estimators is not None else sorted(ESTIMATORS)
    for name in names:
        check_spec(name)
    unfit: dict[str, str] = {}
    with float64():
        params, batch = doubled((params, batch))
        try:
            key = jax.random.key(named_seed(seed, "reference"))
            truth = reference(model, params, batch, rel_se=_REL_SE, key=key, progress=progress)
        except jax.errors.JaxRuntimeError as error:
            raise GradbenchError(_why(error)) from error
        if not any(np.any(leaf) for leaf in jax.tree.leaves(truth.gradient)):
            raise GradbenchError(
                "the exact gradient is zero, so that no error is relative to it; give other "
                "parameters, such as random ones"
            )
        measured = _Measured(model, params, batch, truth, allowed, draws, seed)
        cells = []
        bar = tqdm([name for name in names if family(name) != "exact"], disable=not progress)
        for name in bar:
            bar.set_description(name)
            found = measured.cell(name)
            if isinstance(found, str):
                unfit[name] = found
            else:
                cells.append(found)
    if not cells:
        raise GradbenchError(
            "no estimator takes the problem: "
            f"{next(iter(unfit.values()), 'name one besides the exact gradient')}"
        )
    frame = metrics.rank(cells, "rmse", allowed)
    sentence = _sentence(frame, cells, allowed)
    if truth.samples:
        sentence = f"{sentence[:-1]}; {_sampled(truth.samples)}."
    return Recommendation(sentence, frame, allowed, unfit)


def _check_problem(params: Params) -> None:
    if not layers_of(closed(params, numbers=True)):
        raise GradbenchError(
            f"the parameters, of type {type(params).__name__}, hold no real array; give a pytree "
            "of arrays, such as a tuple with an entry per layer and one for the objective"
        )


class _Measured(NamedTuple):
    """A problem, and how estimators are measured on it."""

    model: Model
    params: Params
    batch: Batch
    truth: Reference
    budget: Budget
    draws: int
    seed: int

    def cell(self, spec: str) -> Measurement | str:
        """The measurement of an estimator, or why it does not take the problem."""
        try:
            return self._cell(spec)
        except GradbenchError as error:
            return str(error)
        except Exception as error:  # of the user's model: a callback without a derivative, say
            entry, arguments = get_estimator(spec)
            if entry.needs_derivative(**arguments):
                return (
                    f"needs an objective that JAX can differentiate in the states ({_why(error)})"
                )
            return _why(error)

    def _cell(self, spec: str) -> Measurement:
        key = jax.random.key(named_seed(self.seed, "draws"))
        loss = make_estimator(spec, self.model)
        jax.eval_shape(jax.grad(loss), self.params, key, self.batch)  # refuses it at once
        to_fit = jax.random.key(named_seed(self.seed, "fit"))
        loss = fitted(loss, self.params, to_fit, self.batch)
        moments = layer_moments(loss, self.params, self.batch, _ENUMERATED)
        vectors = layer_vectors(self.params)
        plan = make_plan(self.draws, coordinates=sum(vector.size for vector in vectors))
        blocks = list(
            measure(
                loss,
                self.params,
                self.batch,
                self.truth.gradient,
                key,
                plan,
                None if moments is None else [0],  # bias and variance are known
            )
        )
        if not all(map(is_finite, blocks)):
            raise GradbenchError("its draws are not finite")
        units = [site.size for site in sites_of(self.model, self.params, self.batch)]
        cost: dict[str, float] = {"evaluations": evaluations(spec, units, is_chain(self.model))}
        if self.budget.cost == "seconds":
            cost["seconds"] = seconds_per_draw(loss, self.params, self.batch, key, plan)
        return Measurement.stored(
            ("problem", 0, "given"),
            spec,
            {**plan._asdict(), "layer_names": layer_names(self.params)},
            blocks,
            [np.asarray(vector) for vector in layer_vectors(self.truth.gradient)],
            moments=jax.tree.map(np.asarray, moments),
            cost=cost,
            reference=self.truth.blocks,
        )


def _why(error: Exception) -> str:
    """What an exception says, in a line; of one in a callback, which holds a traceback, the end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if "Traceback" not in str(error):
        return f"{type(error).__name__}: {lines[0].partition('. ')[0].rstrip('.')}"
    said = next((x for x in reversed(lines) if re.match(r"\w+(Error|Exception)\b", x)), lines[-1])
    remedy = "mend it"
    if "Expected: float64, Actual: float32" in said:  # its thread is outside of the context
        remedy = "call jax.config.update('jax_enable_x64', True) before"
    return f"a callback of the model fails with {said}; {remedy}"


def _sentence(frame: pd.DataFrame, cells: Sequence[Measurement], budget: Budget) -> str:
    """The best estimator at a budget, by how much, how sure, and the runner-up."""
    able = frame[frame["rank"].notna()]
    first, others = able.iloc[0], able.iloc[1:]
    start = f"At {budget} use {_told(first)}"
    if others.empty:
        return f"{start}: no other {'gets a draw for that' if len(frame) > 1 else 'was measured'}."
    chance = [metrics.difference_p(cells, (first, other), budget) for _, other in others.iterrows()]
    known = bool(able["exact"].all()) and budget.cost != "seconds"
    tied = [name for name, p in zip(others["estimator"], chance, strict=True) if p > _CHANCE]
    if tied:
        names = ", ".join(map(label, tied[:3])) + f" and {len(tied) - 3} more" * (len(tied) > 3)
        if known:
            return f"{start}; as good: {names}."
        remedy = "times vary by as much" if able["exact"].all() else "more draws would tell"
        return f"{start}; not told apart from it: {names} (p up to {max(chance):.2g}); {remedy}."
    second = others.iloc[0]
    less = 1.0 - first["rmse"] / second["rmse"]
    share = f"{100 * less:.2g}" if less < 0.99 else f"{100 * less:.3g}"  # 1e+02 is no percentage
    largest = max(*chance, 1e-16)
    sure = f"p {'<' if largest == 1e-16 else '='} {largest:.1g} that another is as good"
    if known:
        sure = "exact, without doubt"
    if budget.cost == "seconds":
        sure += ", with times of this machine"
    return f"{start}, {share} % less than the runner-up {_told(second)}; {sure}."


def _sampled(samples: Samples) -> str:
    """What was not measured against the exact gradient."""
    worst = max(samples.rel_se.values())
    known = f"known to {100 * worst:.2g} %" if worst < 1.0 else "not told from zero in some layer"
    return (
        f"measured against the mean of {samples.draws:,} draws of {label(samples.estimator)}, "
        f"{known}, as the model is too large to be enumerated"
    )


def _told(row: pd.Series) -> str:
    draws = "one draw" if row["M"] == 1 else f"mean of {row['M']} draws"
    number = digits(row["rmse"], row["rmse_se"])
    return f"{label(row['estimator'])} (relative RMSE {number}, {draws})"
