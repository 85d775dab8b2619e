"""I-MLE, implicit maximum likelihood estimation: perturb and map, for binary units."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from gradbench.core.arguments import positive
from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Loss, Model, Trace
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise
from gradbench.core.run import run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.registry import register


@register(
    family="straight_through",
    exactness="biased",
    cost=Cost(2, 1, 2 * L),
    differentiable=True,
    full_name="implicit maximum likelihood",
    display_name="I-MLE",
    paper="https://arxiv.org/abs/2106.01798",
    source="Niepert, Minervini & Franceschi 2021, Implicit MLE",
    formula=r"g = \frac{x - \operatorname{sign}(a - s f' - z)}{s}",
    aliases=("i_mle", "perturb_and_map"),
)
def imle(model: Model, *, step: float = 1.0) -> Loss:
    """(x - sign(a - s f' - z)) / s on the noise z of the state x = sign(a - z), f' in x.

    The state of the target distribution, whose pre-activations are a step s against the gradient,
    is subtracted from the sampled one; s is the ``step``, the paper's lambda. f' is what arrives at
    the states of a layer from the objective and the layers above, example by example. A draw is 0
    or 2 / s in size. As s goes to 0 the mean in one layer becomes right for multilinear objectives,
    and the variance grows as 1 / s; at any other s it is exact for nothing. The noise of the paper
    is a sum of Gamma variables; here it is the model's.

    Raises:
        GradbenchError: a step that is not positive; when exact moments are computed, any model.
    """
    s = positive("step", step)

    def example_loss(params, u, example):
        run, fixed = sampled(model, params, u[0], example), stop_gradient(params)

        def shifted(offsets: Sequence[Array]) -> Array:
            def unit(site, a):
                k = site.index
                return _perturb_and_map(site.noise, a + offsets[k], u[0][k], s)

            return run_model(model, fixed, example, unit).f

        gradients = jax.grad(shifted)([jnp.zeros_like(a) for a in run.a])
        terms = [gradient_term(g, a) for g, a in zip(gradients, run.a, strict=True)]
        return run.f + jnp.sum(jnp.stack(terms))

    return surrogate_loss(
        model,
        example_loss,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=_on_no_grid,
    )


def _map(noise: Noise, a: Array, u: Array) -> Float[Array, "..."]:
    return jnp.where(u < noise.cdf(a), 1, -1).astype(a.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _perturb_and_map(noise: Noise, a: Array, u: Array, step: Array | float) -> Array:
    """Return the states, with the difference of the two states as their gradient in a."""
    return _map(noise, a, u)


def _forward(noise, a, u, step):
    return _map(noise, a, u), (a, u, step)


def _backward(noise, kept, g):
    a, u, step = kept
    difference = (_map(noise, a, u) - _map(noise, a - step * g, u)) / step
    return difference.astype(a.dtype), jnp.zeros_like(u), jnp.zeros_like(step)


_perturb_and_map.defvjp(_forward, _backward)


def _on_no_grid(stream: int, run: Trace) -> Sequence[Array]:
    raise GradbenchError(
        "the exact moments of imle() are not known, since its draws jump where the gradient of the "
        "objective says; measure draws of it"
    )
