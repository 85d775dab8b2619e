"""ARMS: several mutually antithetic copies of the states of every layer."""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.arguments import at_least
from gradbench.core.autodiff import gradient_term
from gradbench.core.branches import ABOVE, Above, Branches
from gradbench.core.contract import Loss, Model, Site
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.run import branch_streams, draw_state, rollout, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.core.uniforms import Uniforms
from gradbench.estimators.copulas import COPULAS, copies_law, dirichlet_below
from gradbench.estimators.cost import Cost, Formula, L
from gradbench.estimators.registry import register

SAMPLES = Formula("samples")
Both = Callable[[Array, int], Array]  # P(two of n copies are below q), from q and n


@register(
    family="arm",
    exactness="unbiased",
    cost=Cost(1 + L * (SAMPLES - 1), layers=L * (1 + L * (SAMPLES - 1))),
    full_name="antithetic REINFORCE, multi-sample",
    display_name="ARMS",
    paper="https://arxiv.org/abs/2105.14141",
    source="Dimitriev & Zhou 2021, ARMS: Antithetic-REINFORCE-multi-sample gradient",
    formula=(
        r"g_\ell = \frac{1}{(n - 1)(1 - \rho)} \sum_{k=1}^{n} \bigl(f_k - \bar{f}\bigr)\,(b_k - p)"
    ),
)
def arms(
    model: Model,
    *,
    samples: int = 2,
    copula: str = "dirichlet",
    descendants: str = "shared",
) -> Loss:
    """sum_k (f_k - mean f) (b_k - p) / ((n - 1) (1 - rho)) per layer, over n coupled copies b_k.

    n is the number of ``samples``, and rho < 0 the correlation of two copies. The first copy is the
    sampled path. The others are drawn given it by a "dirichlet" or "gaussian" ``copula`` of their
    uniforms, complemented where p > 1/2. Two copies are DisARM whatever the copula. The formula is
    the gradient in the logit of p.

    ``descendants`` is the noise of the layers above the copies: that of the path, "shared" (common
    random numbers), "independent", or "antithetic", coupled by the copula as the copies are.

    Raises:
        GradbenchError: ``samples`` below 2, an unknown ``copula`` or ``descendants``.
    """
    samples = at_least(2, "samples", samples)
    if copula not in COPULAS:
        raise GradbenchError(f"copula is {copula!r}; {did_you_mean(copula, COPULAS)}")
    branch_streams(descendants)  # refuses an unknown name
    coupled, both = COPULAS[copula]
    scale = partial(_scale, samples, both)

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        by_site = list(zip(*u, strict=True))
        above = _noise_above(descendants, u, coupled)
        loss = run.f
        for site, a, x, v in zip(run.sites, run.a, run.x, by_site, strict=True):
            p, often = site.noise.cdf(a), a > 0
            others = coupled([jnp.where(often, 1 - v[0], v[0]), *v[1:]])[1:]
            copies = [draw_state(site, a, jnp.where(often, 1 - w, w)) for w in others]
            rollouts = [
                rollout(model, params, example, run, site.index, copy, noise)
                for copy, noise in zip(copies, above[1:], strict=True)
            ]
            f, bits = jnp.stack([run.f, *rollouts]), (jnp.stack([x, *copies]) + 1) / 2
            signal = jnp.tensordot(f - jnp.mean(f), bits - p, 1)
            loss += gradient_term(signal * scale(site, a), a)
        return loss

    return surrogate_loss(
        model,
        example_loss,
        samples,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=None if samples == 2 else _on_no_grid,
        branches=_branches(samples, copula, descendants, scale, example_loss),
    )


def _scale(samples: int, both: Both, site: Site, a: Array) -> Array:
    """Return the factor of sum_k (f_k - mean f) (b_k - p) in the gradient in a.

    It is F'(a) / (p (1 - p)), the derivative of the logit, over (n - 1) (1 - rho), where
    1 - rho = (q - P(two copies are below q)) / (q (1 - q)) and q is the smaller of p and 1 - p.
    """
    q = site.noise.cdf(-jnp.abs(a))
    apart = jnp.where(q > 0, q - both(q, samples), 1)  # q (1 - q) (1 - rho)
    inverse = site.noise.cdf(jnp.abs(a)) * jnp.where(q > 0, q / apart, 1)
    return inverse * site.noise.logit_slope(a) / (samples - 1)


def _branches(
    samples: int,
    copula: str,
    descendants: str,
    scale: Callable[[Site, Array], Array],
    example_loss: Callable[..., Array],
) -> Branches | None:
    """Return what is declared of the branches, None where their law is not known."""
    if samples > 2 and copula != "dirichlet":  # two copies are the same whatever the copula
        return None
    above = _dirichlet_above(samples) if descendants == "antithetic" else ABOVE[descendants]
    return Branches(example_loss, partial(_law, samples, scale), samples, above)


def _law(samples: int, scale: Callable[[Site, Array], Array], site: Site, a: Array) -> Array:
    """Return the law of the copies under the Dirichlet copula, see ``Branches``."""
    q = site.noise.cdf(-jnp.abs(a))
    together = [jnp.ones_like(q), q, *(dirichlet_below([q] * m, samples) for m in (2, 3, 4))]
    rare = copies_law(together, samples, jnp.where(a > 0, -1, 1) * scale(site, a))
    return jnp.where(a > 0, rare[:, ::-1], rare)  # the bits that are rare where p > 1/2 are 0


def _dirichlet_above(n: int) -> Above:
    return lambda p, other: dirichlet_below([p, other], n)


def _noise_above(
    descendants: str, u: Sequence[Uniforms], coupled: Callable[[Sequence[Array]], list[Array]]
) -> Sequence[Uniforms]:
    """Return the uniforms of the layers above, for each copy."""
    if descendants == "antithetic":
        return list(zip(*map(coupled, zip(*u, strict=True)), strict=True))
    return [u[0]] * len(u) if descendants == "shared" else u


def _on_no_grid(stream: int, run: object) -> Sequence[Array]:
    raise GradbenchError(
        "the exact moments of arms() with more than two samples are known for copula='dirichlet' "
        "on a chain of layers under a function of the last states only, since more copies jump on "
        "no grid of uniforms; measure draws of it"
    )
