"""A binary layer in an Equinox model: its activation is replaced by one line, `binarize`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import gradbench


class Classifier(eqx.Module):
    """64 pixels, one layer of binary units, 10 classes."""

    inner: eqx.nn.Linear
    outer: eqx.nn.Linear

    def __init__(self, units, key):
        inner, outer = jax.random.split(key)
        self.inner = eqx.nn.Linear(64, units, key=inner)
        self.outer = eqx.nn.Linear(units, 10, key=outer)

    def __call__(self, x, key):
        x = gradbench.binarize(self.inner(x), key=key, estimator="zgr")  # was: jnp.tanh(...)
        return self.outer(x)


def loss(net, key, batch):
    """Mean cross-entropy; every image has a key of its own."""
    images, labels = batch
    logits = jax.vmap(net)(images, jax.random.split(key, len(images)))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def main(steps=600, units=64):
    """Trains; returns the accuracy on the training set, and what the last gradient was worth."""
    pixels, labels = map(jnp.asarray, load_digits(return_X_y=True))
    data = pixels / 8 - 1, labels
    net = Classifier(units, jax.random.key(0))
    optimiser = optax.adam(3e-3)
    state = optimiser.init(eqx.filter(net, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(net, state, key):
        rows = jax.random.choice(key, len(labels), (100,))
        batch = jax.tree.map(lambda leaf: leaf[rows], data)
        gradient = eqx.filter_grad(loss)(net, jax.random.fold_in(key, 1), batch)
        updates, state = optimiser.update(gradient, state)
        return eqx.apply_updates(net, updates), state

    for key in jax.random.split(jax.random.key(1), steps):
        net, state = step(net, state, key)
    logits = jax.vmap(net)(data[0], jax.random.split(key, len(labels)))
    accuracy = float(jnp.mean(jnp.argmax(logits, 1) == labels))
    return accuracy, gradbench.diagnose(loss, net, jax.tree.map(lambda x: x[:20], data), key)


if __name__ == "__main__":
    print(*main(), sep="\n")
