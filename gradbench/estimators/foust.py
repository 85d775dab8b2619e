"""FouST: straight-through after a Fourier analysis of the objective over uniform bits."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from gradbench.core.arguments import fraction, positive
from gradbench.core.autodiff import gradient_term, surrogate_gradient
from gradbench.core.contract import Loss, Model
from gradbench.core.run import draw_state, run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.registry import Exactness, register
from gradbench.estimators.straight_through import with_derivative


def _exactness(weight: Any, uniform_point: Any, rho: Any) -> Exactness:
    if uniform_point or rho != 1:
        return "linear"
    return "quadratic" if weight else "multilinear"


def _cost(weight: Any, uniform_point: Any, rho: Any) -> Cost:
    moved = uniform_point or rho != 1
    return Cost(2, 1, 2 * L) if moved else Cost(gradient=1)


@register(
    family="foust",
    exactness=_exactness,
    cost=_cost,
    differentiable=True,
    source="Pervez et al. 2020, Low bias low variance gradient estimates",
)
def foust(
    model: Model, *, weight: bool = True, uniform_point: bool = True, rho: float = 1.0
) -> Loss:
    """J = F'(a) / 2P(x) at a uniform point between the states: straight-through with less bias.

    Three switches; with none of them it is straight-through. ``weight`` divides F' by 2P(x), which
    makes uniform bits of the sampled ones: alone it is ZGR. ``uniform_point`` differentiates the
    objective, and the layers above, at the states x v with v uniform on (0, 1): with the weight it
    is exact for any objective of one unit and for sums of them, and biased for products of units.
    ``rho`` below 1 is the noise operator: they are differentiated at states that are kept with
    probability rho and are else new, uniform bits; the derivative is that of the kept ones over
    rho. It multiplies what products of k units contribute by rho^(k - 1).

    Probabilities, slopes and the value are those of the sampled path. How the paper combines the
    three, in deep networks in particular, and its rho could not be pinned down: what is here is
    derived from their definitions.

    Raises:
        GradbenchError: a rho that is not in (0, 1].
    """
    rho = positive("rho", fraction("rho", rho))
    if not uniform_point and rho == 1:
        return with_derivative(model, lambda noise, x, a: _slope(noise, x, a, weight))

    def moved(site, x, a, *u):
        """A state near the sampled one, and the slope of its derivative in a."""
        y, slope = x, _slope(site.noise, x, a, weight)
        if rho < 1:
            w = u[-1]
            y = jnp.where(w < rho, y, jnp.where(w < (1 + rho) / 2, 1, -1).astype(y.dtype))
            slope = jnp.where(w < rho, slope / rho, 0)
        if uniform_point:
            y = y * u[1]
        return y, slope

    def attached(state, a):
        """What ``moved`` gives, as a function of a."""
        y, slope = state
        return surrogate_gradient(lambda y, a, slope: slope, y, a, slope)

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        fixed, path, at = stop_gradient((params, run.x, run.a))

        def near(shift):
            """The objective near the moved states, as a function of the pre-activations."""

            def unit(site, a):
                k = site.index
                own = [stream[k] for stream in u]
                return attached(moved(site, path[k], at[k], *own), a + shift[k])

            return run_model(model, fixed, example, unit).f

        g = jax.grad(near)(jax.tree.map(jnp.zeros_like, at))
        return run.f + sum(gradient_term(g_k, a) for g_k, a in zip(g, run.a, strict=True))

    def rule(site, a, *u):
        """The moved states alone: without a model the layers above see no others."""
        return attached(moved(site, draw_state(site, a, u[0]), a, *u), a)

    def breakpoints(stream, run):
        noisy = rho < 1 and stream == streams - 1
        ends = (rho, (1 + rho) / 2) if noisy else (1.0,)
        return [jnp.stack([jnp.full_like(a, end) for end in ends]) for a in run.a]

    streams = 1 + bool(uniform_point) + (rho < 1)
    smoothness = "smooth" if uniform_point else "constant"
    return surrogate_loss(
        model,
        example_loss,
        streams,
        randomness="uniforms",
        smoothness=smoothness,
        breakpoints=breakpoints,
        rule=rule,
        soft=True,
    )


def _slope(noise: Any, x: Any, a: Any, weight: bool) -> Any:
    return noise.hazard(x * a) if weight else 2 * noise.pdf(a)
