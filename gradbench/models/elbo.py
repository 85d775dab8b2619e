"""The evidence bound of variational autoencoders."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.noise import Noise
from gradbench.models.bound_flips import PRIOR, TermFlips, flips_below, own_flips
from gradbench.models.layer import Layer, Shape, axes, fits
from gradbench.models.losses import OBJECTIVES, LossFunction, Stack, check_targets, get_loss


@dataclass(frozen=True)
class ELBO:
    """The negative evidence lower bound of a variational autoencoder with Bernoulli latents.

    The network is the encoder q(x_1 | input) ... q(x_L | x_{L-1}); ``decoders[k]`` is a layer that
    reads the states of layer k + 1 and gives the logits of what is below it: of the target for
    k = 0, else of the states of layer k. The prior of the last states has its own logits. So

        f = -log p(target | x_1) + sum_k [log q(x_k | x_{k-1}) - log p(x_k | x_{k+1})],

    ``kl="sampled"``. With ``kl="closed"`` what depends on the last pre-activations alone is summed
    over the states: the entropies of all layers, and the divergence of the last from the prior. The
    expected value is the same. The parameters are ``{"prior": [units], "decoders": one entry for
    each}``.

    ``likelihood`` is the likelihood of the target, "bernoulli_likelihood" (in {-1, +1}) or
    "multinomial_likelihood" (counts). Source: Kingma & Welling 2014; Mnih & Gregor 2014.

    Raises:
        GradbenchError: no decoders, decoders that do not chain, an unknown ``kl`` or likelihood; in
            a network, layers to which they do not belong.
    """

    decoders: tuple[Layer, ...]
    kl: str = "closed"
    likelihood: str | LossFunction = "bernoulli_likelihood"

    def __post_init__(self) -> None:
        """Refuse decoders that do not chain and unknown names."""
        decoders: Any = self.decoders
        if not isinstance(decoders, tuple | list) or not decoders:
            raise GradbenchError(
                f"an ELBO got the decoders {decoders!r}; give a tuple with one for each layer"
            )
        object.__setattr__(self, "decoders", tuple(decoders))
        if self.kl not in ("closed", "sampled"):
            raise GradbenchError(f"kl is {self.kl!r}; {did_you_mean(self.kl, KL)}")
        if self.likelihood not in LIKELIHOODS and not callable(self.likelihood):
            remedy = did_you_mean(self.likelihood, LIKELIHOODS)
            raise GradbenchError(f"the likelihood is {self.likelihood!r}; {remedy}")

    def check_network(self, network: Any) -> None:
        """Refuse a ``network`` whose layers or coding of states the decoders do not fit.

        Raises:
            GradbenchError: a coding of states other than -1 and +1, or not one decoder of the right
                shape for each layer.
        """
        layers = network.layers
        if getattr(network, "states", None) != (-1.0, 1.0):
            raise GradbenchError(
                f"an ELBO got a network with the states {getattr(network, 'states', 'real')}; its "
                "decoders read -1 and +1, leave the states out"
            )
        if len(layers) != len(self.decoders):
            raise GradbenchError(
                f"an ELBO got {len(layers)} stochastic layers and decoders: {len(self.decoders)}; "
                "give one decoder for each layer"
            )
        for k, (layer, decoder) in enumerate(zip(layers, self.decoders, strict=True)):
            read, written = [axes(layer.outputs)], [axes(decoder.inputs)]
            if k > 0:
                read.append(axes(layers[k - 1].outputs))
                written.append(axes(decoder.outputs))
            if not all(map(fits, read, written)):
                raise GradbenchError(
                    f"decoder {k + 1} reads {decoder.inputs} and gives {decoder.outputs}, but "
                    f"layer {k + 1} reads {layer.inputs} and gives {layer.outputs}; make the "
                    "decoder undo the layer"
                )

    @property
    def inputs(self) -> Shape:
        """The shape of the last states."""
        return self.decoders[-1].inputs

    def init(self, key: Array) -> Params:
        """Return random parameters of the decoders, and an even prior."""
        keys = jax.random.split(key, len(self.decoders))
        return {
            "prior": jnp.zeros(int(np.prod(self.inputs))),
            "decoders": tuple(d.init(k) for d, k in zip(self.decoders, keys, strict=True)),
        }

    def read(self, theta: Params, states: tuple[Array, ...]) -> Float[Array, " outputs"]:
        """Return the logits of the target, given the ``states`` of all layers."""
        return jnp.ravel(self.decoders[0](theta["decoders"][0], states[0]))

    def _check_parameters(self, theta: Params) -> None:
        units, names = int(np.prod(self.inputs)), {"prior", "decoders"}
        fit = (
            isinstance(theta, Mapping)
            and set(theta) == names
            and jnp.shape(theta["prior"]) == (units,)
            and len(theta["decoders"]) == len(self.decoders)
        )
        if not fit:
            found = jax.tree.map(jnp.shape, theta)
            raise GradbenchError(
                f"an ELBO got parameters of shapes {found}; give a prior of {units} logits and "
                f"{len(self.decoders)} entries of decoders"
            )

    def term(self, params: Params, k: int, noise: Noise, below: Any, a: Array, x: Array) -> Array:
        """Return the part of f that belongs to layer k, see ``gradbench.models.losses``.

        ``noise`` is the noise of the layer, a and x [...] are its pre-activations and states, and
        ``below`` is what it reads.

        Raises:
            GradbenchError: ``params[-1]`` without a prior and decoders of the right shapes.
        """
        theta = params[-1]
        self._check_parameters(theta)
        a, bits = jnp.ravel(a), jnp.ravel(x)
        logits = self.decoders[k](theta["decoders"][k], x)
        if k == 0:
            f = get_loss(self.likelihood)(jnp.ravel(logits), jnp.ravel(below[1]))
        else:
            f = -PRIOR.log_probability(jnp.ravel(below), jnp.ravel(logits))
        last = k == len(self.decoders) - 1
        if self.kl == "sampled":
            f += noise.log_probability(bits, a)
            return f - PRIOR.log_probability(bits, theta["prior"]) if last else f
        mean = 2 * noise.cdf(a) - 1
        f += noise.log_probability(mean, a)  # affine in the states: at their mean, its mean
        return f - PRIOR.log_probability(mean, theta["prior"]) if last else f

    def own_flips(self, k: int, tolerance: float) -> TermFlips | None:
        """Return how flips of layer k in its own term are made at once; None if they are not.

        They are where the decoder is affine and gives bits, within the ``tolerance``, see
        ``gradbench.models.low_rank_bound``; and exactly where it is dense and gives counts.
        """
        return own_flips(self, k, tolerance)

    def flips_below(self, k: int, above: Layer, tolerance: float) -> TermFlips | None:
        """Return how flips of layer k in the term of the layer ``above`` are made at once.

        They are, within the ``tolerance``, where that layer is affine and its units are logistic;
        otherwise None.
        """
        return flips_below(self, k, above, tolerance)

    def check_targets(self, targets: np.ndarray) -> None:
        """Refuse ``targets`` [N, ...] that the likelihood is not made for.

        Raises:
            GradbenchError: names the first such target.
        """
        check_targets(self.likelihood, targets, 0)


KL = ("closed", "sampled")
LIKELIHOODS = ("bernoulli_likelihood", "multinomial_likelihood")


@OBJECTIVES.register("elbo")
@dataclass(frozen=True)
class ElboForm:
    """The evidence bound of an autoencoder: a decoder for each layer, and the divergence ``kl``."""

    uses = ("kl",)

    def objective(self, stack: Stack) -> ELBO:
        """Return the objective, with the mirror image of each layer as its decoder.

        Raises:
            GradbenchError: a layer has no mirror image.
        """
        decoders = []
        for form, layer in zip(stack.forms, stack.layers, strict=True):
            if not hasattr(form, "decoder"):
                (name, *_) = fields(form)  # type: ignore[arg-type]
                raise GradbenchError(
                    f"the objective 'elbo' got the layer {name.name!r}, which has no decoder; give "
                    "dense layers"
                )
            decoders.append(form.decoder(layer.inputs))
        return ELBO(tuple(decoders), stack.kl)
