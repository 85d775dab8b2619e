"""Predictions of trained networks: outputs, codes and bounds, of many examples at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.arguments import at_least
from gradbench.core.contract import Batch, Params, Site, Unit
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.run import draw_state, run_model
from gradbench.core.uniforms import check_key, open_uniform, random_words
from gradbench.models.losses import ensemble
from gradbench.models.multisample import as_weights, bound
from gradbench.models.structure import has_latent_weights, is_activated

_AT_ONCE = 256  # examples that are worked on at a time
States: TypeAlias = tuple[Array, ...]
# Says how the units of one run get their states: a unit from the key of the run.
Units = Callable[[Array], Unit]


class Predicts:
    """What networks predict once they are trained: a part of ``SBN`` and ``BinaryWeights``.

    The methods take examples [n, ...] and work on some hundred of them at a time.
    """

    objective: Any

    def predict(
        self, params: Params, x: Array, key: Array | None = None, samples: int = 1
    ) -> Float[Array, "n outputs"]:
        """Return the outputs of the network: logits where its loss has them.

        Args:
            params: the parameters.
            x: inputs [n, ...].
            key: a key, for sampled states. Without one it is the *mean field*: the states have
                their means given the means below.
            samples: how many runs are averaged. Probabilities are, where the loss is one of
                classes, bits or counts: the result then is their logits (of classes and counts
                their logarithms). Other outputs are averaged as they are.

        Returns:
            The outputs [n, outputs], of autoencoders those of the first decoder.

        Raises:
            GradbenchError: several samples without a key, parameters or inputs that do not fit, or
                an objective that has no outputs.
        """
        samples = _checked(key, samples)
        if not hasattr(objective := _objective(self), "read"):
            raise GradbenchError(
                f"the objective {type(objective).__name__} has no outputs to "
                "predict; give a Readout or an ELBO, or take codes()"
            )
        return _predict(self, samples, params, jnp.asarray(x), key)

    def codes(self, params: Params, x: Array, key: Array | None = None) -> Float[Array, "n units"]:
        """Return the states of the last layer, in {-1, +1}, as in semantic hashing.

        Args:
            params: the parameters.
            x: inputs [n, ...].
            key: a key, for sampled states; without one each unit has its more probable state, given
                those below.

        Raises:
            GradbenchError: parameters or inputs that do not fit, or binary weights without
                stochastic units.
        """
        _checked(key, 1)
        if is_activated(getattr(self, "network", None)):
            raise GradbenchError("a network without stochastic units has no codes; take predict()")
        return _codes(self, params, jnp.asarray(x), key)

    def bound(self, params: Params, batch: Batch, key: Array, samples: int = 100) -> Array:
        """Return the bound -log mean_k exp(-f_k) of ``samples`` runs, for each example [n].

        Of an autoencoder (``ELBO``) it is the importance-weighted bound of -log p(target), and
        with ``kl="closed"`` that of the same network with ``kl="sampled"``; of a classifier it is
        the loss of the mean prediction. It falls towards -log p as samples are added (Burda et al.
        2016).

        Args:
            params: the parameters.
            batch: inputs [n, ...] and targets [n, ...].
            key: a key.
            samples: the number of runs.

        Raises:
            GradbenchError: parameters or a batch that do not fit, or binary weights, which all
                examples share.
        """
        samples = _checked(key, samples, needed=True)
        if has_latent_weights(self):
            raise GradbenchError(
                "bound() got binary weights, which all examples share; give an SBN"
            )
        return _bound(as_weights(self), samples, params, batch, key)


def _objective(model: Any) -> Any:
    """Return the objective of the states: of binary weights that of the network around them."""
    return getattr(model, "network", model).objective


def _checked(key: Array | None, samples: int, needed: bool = False) -> int:
    samples = at_least(1, "samples", samples)
    if key is not None or needed:
        check_key(key)
    elif samples > 1:
        raise GradbenchError(
            f"samples is {samples} but there is no key, so that nothing is random; give "
            "key=jax.random.key(seed)"
        )
    return samples


def _sampled(key: Array) -> Unit:
    """Return units that draw their states."""

    def unit(site: Site, a: Array) -> Array:
        words = random_words(jax.random.fold_in(key, site.index), a.size)
        return draw_state(site, a, open_uniform(words, a.dtype).reshape(a.shape))

    return unit


def _mean(site: Site, a: Array) -> Array:
    return 2 * site.noise.cdf(a) - 1


def _likely(site: Site, a: Array) -> Array:
    return jnp.where(site.noise.cdf(a) < 0.5, -1, 1).astype(a.dtype)


@partial(jax.jit, static_argnums=(0, 1))
def _predict(model: Any, samples: int, params: Params, x: Array, key: Array | None) -> Array:
    objective = _objective(model)
    loss = getattr(objective, "loss", None) or getattr(objective, "likelihood", None)

    def example(keys: Any, x: Array, params: Params) -> Array:
        unit = _mean if keys is None else _sampled(keys)
        return objective.read(params[-1], _states(model, params, x, unit))

    if key is None:
        drawn = _weights(model, params, None)
        return _mapped(lambda x: example(None, x, drawn), x)

    def run(number: Array) -> Array:
        own = jax.random.fold_in(key, number)
        first, second = jax.random.split(own)
        drawn = _weights(model, params, first)
        keys = jax.random.split(second, len(x))
        return _mapped(lambda pair: example(pair[0], pair[1], drawn), (keys, x))

    return ensemble(loss, jax.lax.map(run, jnp.arange(samples)))


@partial(jax.jit, static_argnums=0)
def _codes(model: Any, params: Params, x: Array, key: Array | None) -> Array:
    if key is None:
        drawn = _weights(model, params, None)
        found = _mapped(lambda x: _states(model, drawn, x, _likely, coded=False)[-1], x)
        return found.reshape(len(x), -1)
    first, second = jax.random.split(key)
    drawn = _weights(model, params, first)

    def example(pair: Any) -> Array:
        return _states(model, drawn, pair[1], _sampled(pair[0]), coded=False)[-1]

    return _mapped(example, (jax.random.split(second, len(x)), x)).reshape(len(x), -1)


@partial(jax.jit, static_argnums=(0, 1))
def _bound(network: Any, samples: int, params: Params, batch: Batch, key: Array) -> Array:
    n = len(jax.tree.leaves(batch)[0])

    def run(number: Array) -> Array:
        keys = jax.random.split(jax.random.fold_in(key, number), n)
        return _mapped(
            lambda pair: run_model(network, params, pair[1], _sampled(pair[0])).f, (keys, batch)
        )

    return bound(jax.lax.map(run, jnp.arange(samples)).T)


def _mapped(f: Callable[[Any], Array], examples: Any) -> Array:
    return jax.lax.map(f, examples, batch_size=_AT_ONCE)


def _weights(model: Any, params: Params, key: Array | None) -> Params:
    """Return the parameters with binary weights in the place of latent ones: drawn, or means."""
    if not has_latent_weights(model):
        return params
    noise, count = get_noise(model.noise), iter(range(10**6))

    def weight(eta: Array) -> Array:
        site = Site(next(count), eta.shape, noise)
        return _mean(site, eta) if key is None else _sampled(key)(site, eta)

    return model.with_weights(weight, params)


def _states(model: Any, params: Params, x: Array, unit: Unit, coded: bool = True) -> States:
    """Return the states of all layers of one example, ``coded`` as the objective reads them."""
    network = model.network if has_latent_weights(model) else model
    network.check_entries(params)
    if is_activated(network):
        found = []
        for layer, theta in zip(network.layers, params[:-1], strict=True):
            x = network.activation(layer(theta, x))
            found.append(x)
        return tuple(found)
    bare = network.with_objective(_nothing)
    states = run_model(bare, params, (x, jnp.zeros(())), unit).x
    return tuple(map(network.encode, states)) if coded else states


def _nothing(theta: Params, x: Array, target: Array) -> Array:
    """Return 0, in the place of an objective that is not asked for."""
    return jnp.zeros(())
