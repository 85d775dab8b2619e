"""BitFlip-1, one flip of a unit that is chosen at will, and UGC, its combination with DisARM.

Formulas are gradients in the logit of p; for other noise p(1 - p) becomes F'.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.arguments import fraction
from gradbench.core.autodiff import gradient_term
from gradbench.core.callables import short
from gradbench.core.contract import Loss, Model, Site
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.run import branch_noise, branch_streams, draw_state, flip, rollout, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.choice import choice_breaks, choose, first_breaks
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.registry import register

# Weights of the units, in proportion to which one is chosen.
CHOICES: dict[str, Callable[[Site, Array], Array]] = {
    "variance": lambda site, a: site.noise.cdf(a) * site.noise.cdf(-a),
    "uniform": lambda site, a: jnp.ones_like(a),
}


@register(
    family="flips",
    exactness="unbiased",
    cost=Cost(L + 1, layers=L * (L + 1)),
    full_name="flip of one unit drawn from q",
    display_name="BitFlip",
    paper="https://arxiv.org/abs/2208.06124",
    source="Kunes et al. 2023, Gradient estimation for binary latent variables via gradient "
    "variance clipping",
    formula=(
        r"g_{\ell,i} = \frac{p_i (1 - p_i)}{q_i}\,\bigl(f(b_i = 1) - f(b_i = 0)\bigr) \quad "
        r"\text{for one unit } i \sim q"
    ),
    aliases=("bitflip_1",),
)
def bitflip(
    model: Model,
    *,
    q: str | Callable[[Array], Array] = "variance",
    descendants: str = "shared",
) -> Loss:
    """p_i(1 - p_i) (f(b_i = 1) - f(b_i = 0)) / q_i e_i for one unit i of every layer, drawn from q.

    ``q`` is in proportion to p(1 - p), the "variance" of the units, which leaves a factor that is
    the same for all of them and small where they saturate; "uniform", as in ``random_flip``; or
    a function that gives positive weights of probabilities p. ``descendants`` is as in ``ram``.

    Raises:
        GradbenchError: unknown q or ``descendants``.
    """
    weights = _weights(q)

    def example_loss(params, u, example):
        run, above = sampled(model, params, u[0], example), branch_noise(descendants, u)
        loss = run.f
        for site, a, x, v in zip(run.sites, run.a, run.x, u[1], strict=True):
            w = weights(site, a)
            other = flip(x, choose(w.ravel(), v))
            f = rollout(model, params, example, run, site.index, other, above)
            # F' / w of the chosen unit: F' / p(1 - p) is a sum of hazards, finite at saturation.
            chosen = w > 0
            factor = (
                site.noise.logit_slope(a)
                if q == "variance"
                else site.noise.pdf(a) / jnp.where(chosen, w, 1)
            )
            slope = jnp.where(chosen, jnp.sum(w) * factor, 0)
            loss += gradient_term(slope * (x - other) / 2 * (run.f - f), a)
        return loss

    def breakpoints(stream, run):
        return [
            first_breaks(
                choice_breaks(weights(site, a).ravel()) if stream else jnp.zeros(0), site.shape
            )
            for site, a in zip(run.sites, run.a, strict=True)
        ]

    branch_streams(descendants)  # refuses an unknown name; layers above use other uniforms of u[1]
    return surrogate_loss(
        model,
        example_loss,
        2,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=breakpoints,
    )


def _weights(q: str | Callable[[Array], Array]) -> Callable[[Site, Array], Float[Array, "..."]]:
    """Return the weights of units of a site with pre-activations a."""
    if callable(q):
        return lambda site, a: jnp.broadcast_to(q(site.noise.cdf(a)), a.shape).astype(a.dtype)
    if q not in CHOICES:
        raise GradbenchError(f"q is {short(q)}; {did_you_mean(q, CHOICES)}")
    return CHOICES[q]


@register(
    family="flips",
    exactness="unbiased",
    cost=Cost(L + 1, layers=L * (L + 1)),
    full_name="flip of a random unit",
    display_name="random flip",
    paper="https://proceedings.mlr.press/v70/tokui17a.html",
    source="one term of RAM (Tokui & Sato 2017), taken at random",
    formula=(
        r"g_i = D\,F'(a_i)\,\bigl(f(b_i = 1) - f(b_i = 0)\bigr) \quad \text{for one unit } i "
        r"\text{ of } D"
    ),
)
def random_flip(model: Model, *, descendants: str = "shared") -> Loss:
    """D F'(a_i) (f(b_i = 1) - f(b_i = 0)) e_i for one uniformly chosen unit i of every layer.

    D is the width of the layer. It costs per layer what RAM costs per unit: an estimator with two
    evaluations a layer should not do worse. ``descendants`` is as in RAM.

    Raises:
        GradbenchError: unknown ``descendants``.
    """
    return bitflip(model, q="uniform", descendants=descendants)


@register(
    family="flips",
    exactness="unbiased",
    cost=Cost(2 * L + 1, layers=L * (2 * L + 1)),
    full_name="unbiased gradient variance clipping",
    display_name="UGC",
    paper="https://arxiv.org/abs/2208.06124",
    source="Kunes et al. 2023, Gradient estimation for binary latent variables via gradient "
    "variance clipping",
    formula=(
        r"g_i = \begin{cases} \text{BitFlip-1} & \min(p_i, 1 - p_i) < t \\ \text{DisARM} & "
        r"\text{in the other units} \end{cases}"
    ),
)
def ugc(model: Model, *, threshold: float | None = None, descendants: str = "shared") -> Loss:
    """BitFlip-1 with uniform q in units with min(p, 1 - p) < t, DisARM in the others.

    Unbiased gradient variance clipping: for equal differences of f the second moment of BitFlip-1
    in a layer of D units is D (p(1 - p))^2, and that of DisARM p(1 - p) max(p, 1 - p) / 2. They
    cross at t = 1 / 2D, the ``threshold`` if none is given. Unit i is drawn from all D, and adds to
    the gradient only if it is below the threshold. ``descendants``, of both branches, is as in
    ``ram``.

    Raises:
        GradbenchError: a threshold that is no number from 0 to 1, or unknown ``descendants``.
    """
    given = None if threshold is None else fraction("threshold", threshold)

    def example_loss(params, u, example):
        run, above = sampled(model, params, u[0], example), branch_noise(descendants, u)
        loss = run.f
        for site, a, x, v, own in zip(run.sites, run.a, run.x, u[1], u[0], strict=True):
            flipped = flip(x, choose(jnp.ones(site.size, a.dtype), v))
            twin = draw_state(site, a, 1 - own)
            one, all_ = (
                run.f - rollout(model, params, example, run, site.index, other, above)
                for other in (flipped, twin)
            )
            rarer = site.noise.cdf(-jnp.abs(a))
            ends = rarer < (1 / (2 * site.size) if given is None else given)
            bit = one * site.size * site.noise.pdf(a) * (x - flipped) / 2
            most = site.noise.cdf(jnp.abs(a)) * site.noise.logit_slope(a)
            loss += gradient_term(jnp.where(ends, bit, all_ * (x - twin) / 4 * most), a)
        return loss

    def breakpoints(stream, run):
        points = [jnp.arange(1, s.size) / s.size if stream else jnp.zeros(0) for s in run.sites]
        return [first_breaks(p, s.shape) for p, s in zip(points, run.sites, strict=True)]

    branch_streams(descendants)
    return surrogate_loss(
        model,
        example_loss,
        2,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=breakpoints,
    )
