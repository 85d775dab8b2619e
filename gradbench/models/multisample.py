"""Models of several samples, for bounds such as the one of importance-weighted autoencoders."""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.arguments import at_least
from gradbench.core.contract import Example, Params, apart
from gradbench.core.errors import GradbenchError


@dataclass(frozen=True)
class MultiSample:
    """``samples`` independent runs of a model, and the logarithm of their mean weight.

    Run k has the objective f_k = -log w_k, and all of them together -log mean_k exp(-f_k), which is
    -log mean_k w_k. For an ELBO with ``kl="sampled"`` this is the importance-weighted bound (Burda
    et al. 2016), for f = -log P(target | x) the negative log-likelihood of the mean prediction
    (Raiko et al. 2015). The stochastic layers of the first run come first, then those of the
    second. Parameters and examples are the model's.

    Raises:
        GradbenchError: fewer than one sample, or a model whose examples share their states.
    """

    model: Any
    samples: int = 2

    def __post_init__(self) -> None:
        """Check what can be checked without parameters."""
        object.__setattr__(self, "samples", at_least(1, "samples", self.samples))
        if hasattr(self.model, "as_single_example"):
            raise GradbenchError(
                f"MultiSample got a {type(self.model).__name__}, whose examples share their "
                "states; give a model of one example"
            )

    def init(self, key: Array) -> Any:
        """Return random parameters of the model, where it has them."""
        return self.model.init(key)

    def with_objective(self, objective: Any) -> "MultiSample":
        """Return the same samples of the model under another objective."""
        return replace(self, model=self.model.with_objective(objective))

    def losses(self, params: Params, example: Example, binary: Any) -> Float[Array, " samples"]:
        """Return the objectives f_k of all runs of one ``example``; ``binary`` draws the states."""
        return jnp.stack(
            [apart(self.model(params, example, binary))[0] for _ in range(self.samples)]
        )

    def __call__(self, params: Params, example: Example, binary: Any) -> Float[Array, ""]:
        """Return the objective of one example, its states from ``binary``: the model contract."""
        return bound(self.losses(params, example, binary))


def as_weights(model: Any) -> Any:
    """Return a model whose exp(-f) is an importance weight: an ELBO with its divergence sampled."""
    objective: Any = getattr(model, "objective", None)
    if getattr(objective, "kl", "sampled") == "sampled":
        return model
    return model.with_objective(replace(objective, kl="sampled"))


def bound(losses: Float[Array, "... samples"]) -> Float[Array, "..."]:
    """Return -log mean_k exp(-f_k)."""
    return math.log(losses.shape[-1]) - jax.nn.logsumexp(-losses, axis=-1)
