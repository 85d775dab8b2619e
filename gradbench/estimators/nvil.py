"""NVIL, neural variational inference and learning: baselines learned by regression."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.arguments import at_least, fraction, positive
from gradbench.core.contract import Batch, Example, Model, Params, Site, Trace
from gradbench.core.run import as_examples, find_sites
from gradbench.estimators.adaptive import (
    Learned,
    Network,
    descent,
    network,
    reals,
    start_network,
)
from gradbench.estimators.baselines import (
    BASELINES,
    Baseline,
    Mean,
    Signals,
    averaged,
    follow,
    learned,
    mean_signals,
    start_averages,
)
from gradbench.estimators.registry import register
from gradbench.estimators.reinforce import score_function
from gradbench.estimators.score import runs_of, to_units

HIDDEN, RATE, DECAY = 100, 0.01, 0.8


@register(
    family="nvil",
    exactness="unbiased",
    full_name="neural variational inference and learning",
    display_name="NVIL",
    paper="https://arxiv.org/abs/1402.0030",
    as_published="the gradient divided by a running scale",
    source="Mnih & Gregor 2014, Neural variational inference and learning in belief networks",
    formula=(
        r"g_k = \bigl(f - c - c_k(\text{input})\bigr)\,\frac{\partial \log P(x_k)}{\partial a_k}"
    ),
)
def nvil(
    model: Model,
    *,
    hidden: int = HIDDEN,
    rate: float = RATE,
    decay: float = DECAY,
    signals: str = "local",
) -> Learned:
    """(f - c - c_k(input)) d log P(x_k) / da_k, both baselines learned, never from the sample.

    c is a moving average of f over past draws, with the weight ``decay`` a step for past ones. c_k
    is a network of ``hidden`` tanh units (100 in the paper), one for each layer k, regressed on
    f - c by Adam at the ``rate``. Its inputs are the real numbers of the example and the states of
    the layer below. Both are 0 at the start. f is the return of the layer, with the ``signals`` of
    ``reinforce``, and each layer has its own c.

    The paper also divides by a running scale, which rescales the gradient and is left out here; its
    c contains the current draw, this one does not.

    Raises:
        GradbenchError: ``hidden`` below 1, a rate that is not positive, a decay outside [0, 1], or
            other ``signals`` than "local" and "whole".
    """
    return learned(score_function(model, signals), input_dependent(hidden, rate, decay))


@BASELINES.register("nvil")
def input_dependent(hidden: int = HIDDEN, rate: float = RATE, decay: float = DECAY) -> Baseline:
    """Return a moving average, and a network of example and states below for what it leaves.

    The hyper-parameters are those of the estimator ``nvil``.

    Raises:
        GradbenchError: ``hidden`` below 1, a rate that is not positive, or a decay outside [0, 1].
    """
    hidden = at_least(1, "hidden", hidden)
    rate, decay = positive("rate", rate), fraction("decay", decay)

    def less(
        nets: Sequence[Network], c: Array, run: Trace, signals: Signals, example: Example
    ) -> Signals:
        """Return signal - c - c_k for each layer."""
        seen = reals(example)

        def outputs(x: tuple[Array, ...]) -> list[Array]:
            below = [seen, *(jnp.concatenate([seen, jnp.ravel(states)]) for states in x)]
            return [network(net, z)[0] for net, z in zip(nets, below, strict=False)]

        for _ in runs_of(run):
            outputs = jax.vmap(outputs)
        each = zip(signals, c, outputs(run.x), strict=True)
        return [signal - c_k - to_units(out, signal) for signal, c_k, out in each]

    def squares(nets: Sequence[Network], c: Array, mean: Mean) -> Array:
        def of_example(run: Trace, signals: Signals, example: Example) -> Any:
            return sum(jnp.mean(r**2) for r in less(nets, c, run, signals, example))

        return mean(of_example)

    start, step = descent(rate, squares)

    def init(model: Model, params: Params, batch: Batch) -> Any:
        example = jax.tree.map(lambda leaf: leaf[0], as_examples(model, jax.random.key(0), batch))
        nets = _start_baselines(find_sites(model, params, example), example, hidden, params)
        return {"nets": start(nets), "average": start_averages(model, params, batch)}

    def subtract(state: Any, run: Trace, signals: Signals, example: Example) -> Signals:
        return less(state["nets"][0], averaged(state["average"]), run, signals, example)

    def adapt(state: Any, mean: Mean) -> Any:
        return {
            "nets": step(state["nets"], averaged(state["average"]), mean),
            "average": follow(state["average"], mean(mean_signals), 1.0, decay),
        }

    return Baseline(subtract, init, adapt)


def _start_baselines(
    sites: Sequence[Site], example: Example, hidden: int, params: Params
) -> list[Network]:
    """Return a network for each layer, of the example and the layer below; its output is 0."""
    nets = []
    for site, below in zip(sites, [0, *(site.size for site in sites)], strict=False):
        key, inputs = jax.random.key(site.index), reals(example).size + below
        net = start_network(key, inputs, hidden, 1, params)
        nets.append(net | {"second": jnp.zeros_like(net["second"])})
    return nets
