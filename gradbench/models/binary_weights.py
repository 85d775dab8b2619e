"""Binary weights: networks whose weights are -1 or +1 at random, the same for all examples.

The latent weight eta gives w = sign(eta - z), P(w = +1) = F(eta). Because all examples share the
weights, the model's only example is the whole batch, and its objective is what an estimator for
the activations returns for that batch. So the estimators of weights and activations nest.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Example, Loss, Model, Params
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.noise import Noise, get_noise
from gradbench.core.run import batch_size
from gradbench.models.network import SBN, RealNetwork
from gradbench.models.predict import Predicts

_INNER = 0xB1A5  # folded into the key of the activations; streams of uniforms count from 0


def map_weights(f: Callable[[Any], Any], theta: Params) -> Any:
    """Return the parameters of a layer with ``f`` applied to every entry called "weight"."""

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        last = path[-1] if path else None
        name = getattr(last, "key", getattr(last, "name", None))  # in a dictionary, or a class
        return f(leaf) if name == "weight" else leaf

    return jax.tree_util.tree_map_with_path(one, theta)


@dataclass(frozen=True)
class BinaryWeights(Predicts):
    """A network with binary weights: the entries called "weight" of its parameters are latent.

    ``network`` is a ``RealNetwork``, or an ``SBN`` with stochastic activations. The activations of
    an ``SBN`` need an estimator of their own, ``activations(network)``, such as ``estimators.psa``
    or ``estimators.exact``. ``noise`` is the noise of the weights. ``entries`` are the numbers of
    the parameter entries that have binary weights, the objective's being the last; all of them by
    default. Biases stay real.

    An estimator of such a model estimates the gradient in the weights, on an ordinary batch:

        loss = straight_through(BinaryWeights(network, activations=psa))
        jax.grad(loss)(params, key, batch)

    A latent weight outside the support of a bounded noise (uniform, triangular: [-1, 1]) is -1 or
    +1 with probability 1. Its exact gradient is zero, and so is every estimate but those of the
    identity rule and Concrete. ``optimisers.mirror_descent`` keeps latent weights inside.

    Raises:
        GradbenchError: an SBN without an estimator for its activations, unknown noise or entries.
    """

    network: Any
    activations: Callable[[Model], Loss] | None = None
    noise: str | Noise = "logistic"
    entries: Any = None

    def __post_init__(self) -> None:
        """Check what can be checked without parameters."""
        get_noise(self.noise)
        if not isinstance(self.network, SBN | RealNetwork):
            raise GradbenchError(
                f"binary weights got a network of type {type(self.network).__name__}; "
                "give an SBN or a RealNetwork"
            )
        if self.activations is not None and not callable(self.activations):
            raise GradbenchError(
                f"the activations of binary weights are {self.activations!r}; give an estimator, "
                "such as estimators.psa"
            )
        if isinstance(self.network, SBN) and self.activations is None:
            raise GradbenchError(
                "binary weights of an SBN need an estimator for its activations; give "
                "activations=estimators.exact or another one"
            )
        if isinstance(self.network, RealNetwork) and self.activations is not None:
            raise GradbenchError(
                "binary weights of a RealNetwork got an estimator for its activations, which are "
                "not random; leave it out"
            )
        known = range(len(self.network.layers) + 1)
        if self.entries is not None:
            if isinstance(self.entries, tuple | list):
                object.__setattr__(self, "entries", tuple(self.entries))
            chosen = self.entries if isinstance(self.entries, tuple) else ()
            if not chosen or not all(entry in known for entry in chosen):
                raise GradbenchError(
                    f"binary weights got the entries {self.entries}; give numbers from 0 to "
                    f"{known[-1]}, at least one"
                )

    def init(self, key: Array) -> tuple[Params, ...]:
        """Return random latent weights and biases: the parameters of the network."""
        return self.network.init(key)

    @property
    def inner_model(self) -> Model | None:
        """The model of the activations given the weights; None where these are not random."""
        return self.network if isinstance(self.network, SBN) else None

    @property
    def exact_route(self) -> str:
        """The name of the exact route: over the weights, and for each over the activations."""
        return "brute_force" if self.inner_model is None else "over_weights"

    def with_activations(self, activations: Callable[[Model], Loss]) -> "BinaryWeights":
        """Return the same model with another estimator of the activations."""
        return replace(self, activations=activations)

    def run_work(self, params: Params, batch: Batch) -> float:
        """Return the multiply-adds of one run of the batch with given weights, as measured."""
        return 10.0 * batch_size(batch) * sum(leaf.size for leaf in jax.tree.leaves(params))

    def units_in_words(self, params: Params) -> str:
        """Return what is enumerated, as "2-2 hidden units, 14 binary weights"."""
        count = sum(eta.size for eta in self.latent(params))
        return f"{self.network.units_in_words(params)}, {count} binary weights"

    def as_single_example(self, key: Array, batch: Batch) -> Example:
        """Return the one example of this model: the key of the activations, and the batch."""
        return jax.random.fold_in(key, _INNER), batch

    def loss(self) -> Loss:
        """Return the loss of the batch given weights: an estimator, or a real network's mean."""
        network = self.network
        if self.inner_model is not None:
            assert self.activations is not None
            return self.activations(self.inner_model)

        def mean(params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
            return jnp.mean(jax.vmap(lambda example: network(params, example))(batch))

        return mean

    @property
    def random(self) -> bool:
        """True if the objective is random even given the weights."""
        known = getattr(self.loss(), "randomness", "uniforms")  # any function may be a loss
        return self.inner_model is not None and known != "none"

    def __call__(
        self, params: Params, example: Example, binary: Callable[..., Array]
    ) -> Float[Array, ""]:
        """Return the objective of the batch: the model contract.

        ``example`` is what ``as_single_example`` makes of the batch.

        Raises:
            GradbenchError: an example that is no pair of a key and a batch, or an entry without
                binary weights.
        """
        if not isinstance(example, tuple | list) or len(example) != 2:
            raise GradbenchError(
                "a network with binary weights was run without a key; make an estimator of it"
            )
        key, batch = example
        self._check_entries(params)
        drawn = self.with_weights(lambda eta: binary(eta, self.noise), params)
        return self.loss()(drawn, key, batch)

    def with_weights(self, f: Callable[[Any], Any], params: Params) -> tuple[Any, ...]:
        """Return the parameters with ``f`` applied to the latent weights."""
        chosen = range(len(params)) if self.entries is None else self.entries
        return tuple(
            map_weights(f, theta) if k in chosen else theta for k, theta in enumerate(params)
        )

    def at_mode(self, params: Params) -> tuple[Any, ...]:
        """Return parameters whose weights have their more probable states with probability 1.

        The latent weights are at the ends of the support of the noise, which may be infinite. It is
        how a network of binary weights is tested once it is trained: by ``predict``, for example.

        Args:
            params: the parameters, with latent weights of any size.
        """
        noise = get_noise(self.noise)

        def end(eta: Array) -> Array:
            return jnp.where(noise.cdf(eta) < 0.5, -noise.bound, noise.bound).astype(eta.dtype)

        return self.with_weights(end, params)

    def check(self, params: Params, batch: Batch) -> None:
        """Refuse what the network refuses.

        Raises:
            GradbenchError: see the network's ``check``.
        """
        self.network.check(params, batch)

    def warn_outside(self, params: Params) -> None:
        """Warn of latent weights outside the support of the noise. The arrays must be concrete."""
        bound = get_noise(self.noise).bound
        latent = np.concatenate([np.ravel(eta) for eta in self.latent(params)])
        if count := int(np.sum(np.abs(latent) > bound)):
            warnings.warn(
                f"{count} of {latent.size} latent weights are outside the support "
                f"[-{bound:g}, {bound:g}] of {get_noise(self.noise).name} noise: they are -1 or +1 "
                "with probability 1 and their gradient is zero; clip them, as mirror_descent does",
                GradbenchWarning,
                stacklevel=2,
            )

    def _check_entries(self, params: Params) -> None:
        """Refuse an entry with parameters but without binary weights: it would stay real."""
        chosen = range(len(params)) if self.entries is None else self.entries
        for k in chosen:
            named: list[Any] = []
            map_weights(named.append, params[k])
            if not named and jax.tree.leaves(params[k]):
                raise GradbenchError(
                    f'entry {k} of the parameters has nothing called "weight" to be made binary; '
                    "name its weight so, or leave the entry out of entries"
                )

    def latent(self, params: Params) -> list[Array]:
        """Return the latent weights among the parameters, each [outputs, ...]."""
        found: list[Array] = []

        def keep(eta: Array) -> Array:
            found.append(eta)
            return eta

        self.with_weights(keep, params)
        return found
