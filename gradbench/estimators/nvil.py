"""NVIL, neural variational inference and learning: baselines learned by regression."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.arguments import at_least, fraction, positive
from gradbench.core.contract import Example, Model, Params, Site, Trace, scalar_of
from gradbench.core.run import as_examples, find_sites, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.adaptive import (
    Learned,
    Network,
    descent,
    network,
    reals,
    start_network,
)
from gradbench.estimators.registry import register
from gradbench.estimators.reinforce import averaged, follow, scores, start_average


@register(
    family="nvil",
    exactness="unbiased",
    source="Mnih & Gregor 2014, Neural variational inference and learning in belief networks",
)
def nvil(model: Model, *, hidden: int = 16, rate: float = 0.01, decay: float = 0.8) -> Learned:
    """(f - c - c_k(input)) d log P(x_k) / da_k, both baselines learned, never from the sample.

    c is a moving average of f over past draws, with the weight ``decay`` a step for past ones. c_k
    is a network of ``hidden`` tanh units, one for each layer k, regressed on f - c by Adam at the
    ``rate``. Its inputs are the real numbers of the example and the states of the layer below. Both
    are 0 at the start.

    The paper also divides by a running scale, which rescales the gradient and is left out here; its
    c contains the current draw, this one does not. The same return f serves all layers.

    Raises:
        GradbenchError: ``hidden`` below 1, a rate that is not positive, or a decay outside [0, 1].
    """
    hidden = at_least(1, "hidden", hidden)
    rate, decay = positive("rate", rate), fraction("decay", decay)

    def returns(nets: Any, c: Array, run: Trace, example: Example) -> list[Array]:
        """Return f - c - c_k for each layer."""
        below = [reals(example), *(jnp.ravel(x) for x in run.x)]
        inputs = [below[0], *(jnp.concatenate([below[0], x]) for x in below[1:])]
        return [run.f - c - network(net, z)[0] for net, z in zip(nets, inputs, strict=False)]

    def regression(nets, c, params, key, batch):
        def squares(params, u, example):
            run = sampled(model, params, u[0], example)
            return sum(r**2 for r in returns(nets, c, run, example))

        return scalar_of(surrogate_loss(model, squares)(params, key, batch))

    start, step = descent(rate, regression)

    def init(params, batch):
        example = jax.tree.map(lambda leaf: leaf[0], as_examples(model, jax.random.key(0), batch))
        nets = _start_baselines(find_sites(model, params, example), example, hidden, params)
        return {"nets": start(nets), "average": start_average(params)}

    def frozen(state):
        def example_loss(params, u, example):
            run = sampled(model, params, u[0], example)
            nets, c = state["nets"][0], averaged(state["average"])
            return run.f + scores(run, returns(nets, c, run, example))

        return surrogate_loss(model, example_loss)

    def adapt(state, params, key, batch):
        f = scalar_of(frozen(state)(params, key, batch))
        return {
            "nets": step(state["nets"], averaged(state["average"]), params, key, batch),
            "average": follow(state["average"], f, decay),
        }

    return Learned(model, init, frozen, adapt)


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
