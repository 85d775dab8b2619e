"""A baseline around any estimator that multiplies something with the score."""

import inspect
from typing import Any

from gradbench.core.contract import Loss, Model
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import parse_spec
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.baselines import BASELINES, Baseline, constant, learned, subtracted
from gradbench.estimators.registry import (
    derivative_of,
    less_exact,
    make_estimator,
    price_of,
    register,
    value_of,
)


@register(
    family="combination",
    exactness=lambda estimator, baseline: less_exact(estimator),
    cost=lambda estimator, baseline: price_of(estimator),
    differentiable=lambda estimator, baseline: derivative_of(estimator),
    value_unbiased=lambda estimator, baseline: value_of(estimator),
    full_name="an estimator with a baseline",
    display_name="{estimator} with {baseline} baseline",
    paper="https://arxiv.org/abs/1402.0030",
    source="Mnih & Gregor 2014; around MuProp and REBAR as in Gu et al. 2016, Tucker et al. 2017",
    formula=r"g = (\text{signal} - c)\,\frac{\partial \log P(x)}{\partial a}",
)
def baselined(model: Model, *, estimator: str = "muprop", baseline: Any = "nvil") -> Loss:
    """(signal - c) d log P(x) / da in the place of signal * d log P(x) / da.

    ``estimator`` is the spec of one that multiplies something with the score: ``reinforce`` a
    return, ``muprop`` and ``rebar`` a return less their control variates. The ``baseline`` c is

        a number      the same for all layers and draws
        "moving_average(decay=0.99)"
                      the mean over past draws, one for each layer
        "per_unit(decay=0.99)"
                      the constant of least variance for each unit, from past draws
        "batch"       the mean over the other examples of the batch
        "nvil(hidden=100, rate=0.01, decay=0.8)"
                      a moving average and a network of the example and the states below

    None of them contains the sample that it is subtracted from, and so the mean stays as it is, and
    the value too. What is learned follows the signals of the estimator and not f, as in the code of
    MuProp's authors. Learned parts of the estimator minimise the variance with the baseline.

    Raises:
        GradbenchError: a spec that no estimator or baseline can be made from, an estimator without
            a score, or the baseline "batch" for one whose signals are those of a batch already.
    """
    part, own = make_estimator(estimator, model), get_baseline(baseline)
    if own.init is None and not isinstance(part, Learned):
        return subtracted(part, own)
    return learned(part, own)


def get_baseline(baseline: Any) -> Baseline:
    """Return a baseline from a number, a spec such as ``"nvil(hidden=10)"``, or as it is.

    Raises:
        GradbenchError: it is none of these, or a spec of an unknown baseline or hyper-parameter.
    """
    if isinstance(baseline, Baseline):
        return baseline
    if not isinstance(baseline, str):
        return constant(baseline)
    name, arguments = parse_spec(baseline)
    make = BASELINES.find(name)
    known = list(inspect.signature(make).parameters)
    for argument in arguments:
        if argument not in known:
            remedy = did_you_mean(argument, known) if known else "it has none"
            raise GradbenchError(f"baseline {name!r} has no hyper-parameter {argument!r}; {remedy}")
    return make(**arguments)
