"""FouST: straight-through after a Fourier analysis of the objective over uniform bits."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from gradbench.core.arguments import are_known, fraction, positive
from gradbench.core.autodiff import gradient_term, surrogate_gradient
from gradbench.core.contract import Example, Loss, Model, Params, Site, Trace
from gradbench.core.noise import Noise
from gradbench.core.run import draw_state, run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.core.uniforms import Uniforms
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.exactness import Exactness
from gradbench.estimators.registry import register
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
    full_name="Fourier straight-through",
    display_name="FouST",
    paper="https://proceedings.mlr.press/v119/pervez20a.html",
    source="Pervez et al. 2020, Low bias low variance gradient estimates",
    formula=(
        r"\frac{\partial b}{\partial a} := \frac{F'(a)}{2 P(x)} \quad \text{at the states } x v, "
        r"\quad v \sim U(0, 1)"
    ),
)
def foust(
    model: Model, *, weight: bool = True, uniform_point: bool = True, rho: float = 1.0
) -> Loss:
    """J = F'(a) / 2P(x) at a uniform point between the states: straight-through with less bias.

    It has three switches; with none of them it is straight-through. ``weight`` divides F' by 2P(x),
    which makes uniform bits of the sampled ones: alone it is ZGR. ``uniform_point`` differentiates
    the objective, and the layers above, at the states x v with v uniform on (0, 1): with the weight
    it is exact for any objective of one unit and for sums of them, and biased for products of
    units. ``rho`` below 1 is the noise operator: the derivative is taken at states that are kept
    with probability rho and are else new, uniform bits, and is divided by rho for the kept ones. It
    multiplies what products of k units contribute by rho^(k - 1).

    Probabilities, slopes and the value are those of the sampled path. The paper does not say in
    full how it combines the three, in deep networks in particular, nor which rho it takes: this
    implementation is derived from their definitions.

    Raises:
        GradbenchError: a rho that is not in (0, 1].
    """
    rho = positive("rho", fraction("rho", rho))
    moves = _Moves(weight, bool(uniform_point), rho)
    if moves.streams == 1:
        return with_derivative(model, moves.slope)

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        g = _gradient_near(model, moves, stop_gradient(params), u, example, run)
        return run.f + sum(gradient_term(g_k, a) for g_k, a in zip(g, run.a, strict=True))

    def rule(site, a, *u):
        """Return the moved states: without a model the layers above see only them."""
        return moves.attached(site, draw_state(site, a, u[0]), a, a, *u)

    return surrogate_loss(
        model,
        example_loss,
        moves.streams,
        randomness="uniforms",
        smoothness="smooth" if uniform_point else "constant",
        breakpoints=moves.breakpoints,
        rule=rule,
        soft=True,
    )


@dataclass(frozen=True)
class _Moves:
    """The three switches, as moves of sampled states.

    Stream 0 samples the states, the next is v if there is a uniform point, the last is of rho.
    """

    weight: bool
    uniform_point: bool
    rho: float

    @property
    def noisy(self) -> bool:
        """Whether there is a noise operator; a rho that JAX traces may be below 1."""
        return not are_known(self.rho) or self.rho < 1

    @property
    def streams(self) -> int:
        return 1 + self.uniform_point + self.noisy

    def slope(self, noise: Noise, x: Array, a: Array) -> Array:
        """Return the derivative of a state in its pre-activation."""
        return noise.hazard(x * a) if self.weight else 2 * noise.pdf(a)

    def attached(self, site: Site, x: Array, at: Array, a: Array, *u: Array) -> Array:
        """Return a state near the sampled one, x at the pre-activation ``at``, as a function of a.

        Its derivative in a is the slope of the sampled state.
        """
        y, slope = x, self.slope(site.noise, x, at)
        if self.noisy:
            w = u[-1]
            bit = jnp.where(w < (1 + self.rho) / 2, 1, -1).astype(y.dtype)
            y = jnp.where(w < self.rho, y, bit)
            slope = jnp.where(w < self.rho, slope / self.rho, 0)
        if self.uniform_point:
            y = y * u[1]
        return surrogate_gradient(lambda y, a, slope: slope, y, a, slope)

    def breakpoints(self, stream: int, run: Trace) -> list[Array]:
        """Return where a draw jumps in the uniforms of a stream."""
        noisy = self.noisy and stream == self.streams - 1
        ends = (self.rho, (1 + self.rho) / 2) if noisy else (1.0,)
        return [jnp.stack([jnp.full_like(a, end) for end in ends]) for a in run.a]


def _gradient_near(
    model: Model,
    moves: _Moves,
    params: Params,
    u: tuple[Uniforms, ...],
    example: Example,
    run: Trace,
) -> tuple[Float[Array, "..."], ...]:
    """Return the gradient of f in the pre-activations of every site, at the moved states."""
    path, at = stop_gradient((run.x, run.a))

    def near(shift: tuple[Array, ...]) -> Array:
        def unit(site: Site, a: Array) -> Array:
            k = site.index
            return moves.attached(site, path[k], at[k], a + shift[k], *(stream[k] for stream in u))

        return run_model(model, params, example, unit).f

    return jax.grad(near)(jax.tree.map(jnp.zeros_like, at))
