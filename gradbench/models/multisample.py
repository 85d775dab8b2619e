"""Models of several samples: a front end for bounds such as that of importance-weighted VAEs."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.contract import Example, Model, Params
from gradbench.core.errors import GradbenchError


@dataclass(frozen=True)
class MultiSample:
    """``samples`` independent runs of a model, and the logarithm of their mean weight.

    With f_k = -log w_k the objective of run k, the objective is -log mean_k exp(-f_k), that is
    -log mean_k w_k. For an ELBO with ``kl="sampled"`` it is the importance-weighted bound (Burda et
    al. 2016), for f = -log P(target | x) the negative log-likelihood of the mean prediction (Raiko
    et al. 2015). The stochastic layers of the first run come first, then those of the second;
    parameters and examples are the model's.

    Raises:
        GradbenchError: no sample, or a model whose examples share their states.
    """

    model: Model
    samples: int = 2

    def __post_init__(self) -> None:
        """Checks what can be checked without parameters."""
        n: Any = self.samples
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise GradbenchError(f"samples is {n!r}; give a whole number of at least 1")
        object.__setattr__(self, "samples", int(n))
        if hasattr(self.model, "as_single_example"):
            raise GradbenchError(
                f"MultiSample got a {type(self.model).__name__}, whose examples share their "
                "states; give a model of one example"
            )

    def init(self, key: Array) -> Any:
        """Random parameters: those of the model, where it has them."""
        return self.model.init(key)  # type: ignore[attr-defined]

    def losses(self, params: Params, example: Example, binary: Any) -> Float[Array, " samples"]:
        """The objectives f_k of the runs of one ``example``, as ``binary`` draws their states."""
        return jnp.stack([self.model(params, example, binary) for _ in range(self.samples)])

    def __call__(self, params: Params, example: Example, binary: Any) -> Float[Array, ""]:
        """The objective of one example as ``binary`` draws the states: the model contract."""
        return bound(self.losses(params, example, binary))


def bound(losses: Float[Array, "... samples"]) -> Float[Array, "..."]:
    """-log mean_k exp(-f_k)."""
    return math.log(losses.shape[-1]) - jax.nn.logsumexp(-losses, axis=-1)
