"""PSA, the path sample-analytic estimator."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from gradbench.estimators.registry import register
from gradbench.model import Loss, Model, Visit, credit, flips, lift, sampled, visit_path


@register(
    family="psa",
    exactness="biased",
    cost="n + 1",
    source="Shekhovtsov, Yanush & Flach 2020, Path sample-analytic gradient estimators",
)
def psa(model: Model) -> Loss:
    """One sampled path; the effect of flipping each single unit of it, carried down analytically.

    With delta_i the effect of flipping unit i, all other states kept,

        delta_i = f(x with i flipped) - f(x)
                  + sum over units j above of -x_j delta_j (F(a_j with i flipped) - F(a_j)),

    the gradient in a_j is -x_j delta_j F'(a_j): sums of products of differences of F along all
    paths of single flips. Unbiased for one layer and any objective, for the last layer and the
    parameters of the objective of any network, and if each unit feeds at most one unit above. The
    objective and its own parameters are averaged over flips of the last states, which is exact and
    lowers the variance.

    A model with the method ``flip_pull(params, run, k, g)``, a chain, gives the sum over the layer
    above from its structure; for any other model each unit is flipped and the model run again.
    """

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        constant = Visit(*stop_gradient((run.f, run.x, run.a)), run.sites)
        last = len(run.x) - 1

        def flipped(params, k):
            """f and the pre-activations above, with each unit of site k flipped in turn."""

            def one(x_k):
                other = visit_path(model, params, example, (*run.x[:k], x_k, *run.x[k + 1 :]))
                return other.f, other.a[k + 1 :]

            return jax.vmap(one)(flips(run.x[k]))

        def pulled(k, signals):
            """delta of site k < last, from the signals -x_j delta_j of the sites above."""
            if hasattr(model, "flip_pull"):
                return model.flip_pull(stop_gradient(params), constant, k, signals[0])
            f, a = flipped(stop_gradient(params), k)
            delta = f - constant.f
            for site, new, old, g in zip(
                run.sites[k + 1 :], a, constant.a[k + 1 :], signals, strict=True
            ):
                change = site.noise.cdf(new) - site.noise.cdf(old)
                delta += jnp.sum(g * change, axis=tuple(range(1, change.ndim)))
            return delta.reshape(run.sites[k].shape)

        # Each unit of the last layer, drawn anew given the rest, takes its other state with 1 - P.
        change = flipped(params, last)[0] - run.f
        other = 1 - run.sites[last].noise.probability(constant.x[last], constant.a[last])
        loss = run.f + jnp.mean(other.ravel() * change)

        delta = stop_gradient(change).reshape(run.sites[last].shape)
        signals: tuple = ()
        for k in reversed(range(last + 1)):
            if k < last:
                delta = pulled(k, signals)
            signals = (-constant.x[k] * delta, *signals)
            loss += credit(signals[0] * run.sites[k].noise.pdf(constant.a[k]), run.a[k])
        return loss

    return lift(model, example_loss)
