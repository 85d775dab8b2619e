"""A variational autoencoder with Bernoulli latents: its bound is an `expectation` of any function.

The decoder is differentiated as usual, the encoder, which gives the logits, by the estimator.
"""

import sys

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from gradbench import expectation


def negative_elbo(bits, decoder, logits, image):
    """-log p(image | bits) - log p(bits) + log q(bits), p(bits) uniform."""
    pixels = decoder["weight"] @ bits + decoder["bias"]
    reconstruction = optax.sigmoid_binary_cross_entropy(pixels, image).sum()
    log_q = -optax.sigmoid_binary_cross_entropy(logits, bits).sum()
    return reconstruction + log_q + len(bits) * jnp.log(2.0)


def dense(key, inputs, outputs):
    """Parameters of a layer."""
    weight = jax.random.normal(key, (outputs, inputs))
    return {"weight": weight / jnp.sqrt(inputs), "bias": jnp.zeros(outputs)}


def main(estimator="disarm", steps=1500, latents=16, samples=2):
    """Trains on binarised digits; returns the bound per image at the start and at the end."""
    images = jnp.asarray(load_digits().data > 8, jnp.float32)
    bound = expectation(negative_elbo, estimator, samples=samples, coding="bits")

    def loss(params, key, images):
        logits = images @ params["encoder"]["weight"].T + params["encoder"]["bias"]
        keys, each = jax.random.split(key, len(images)), jax.vmap(bound, (0, 0, None, 0, 0))
        return each(logits, keys, params["decoder"], logits, images).mean()

    keys = jax.random.split(jax.random.key(0))
    params = {"encoder": dense(keys[0], 64, latents), "decoder": dense(keys[1], latents, 64)}
    optimiser = optax.adam(1e-2)

    @jax.jit
    def step(params, state, key):
        batch = jax.random.choice(key, images, (100,))
        value, gradient = jax.value_and_grad(loss)(params, jax.random.fold_in(key, 1), batch)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state, values = optimiser.init(params), []
    for key in jax.random.split(jax.random.key(1), steps):
        params, state, value = step(params, state, key)
        values.append(float(value))
    return sum(values[:20]) / 20, sum(values[-20:]) / 20


if __name__ == "__main__":
    print("nats per image: {:.1f} at the start, {:.1f} at the end".format(*main(*sys.argv[1:2])))
