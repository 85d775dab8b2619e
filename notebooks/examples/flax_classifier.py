"""A classifier of digits in Flax NNX, trained with optax and diagnosed on the way."""

import sys

import jax
import optax
from flax import nnx
from sklearn.datasets import load_digits

import gradbench
from gradbench import plots


class Classifier(nnx.Module):
    """64 pixels, two layers of binary units, 10 classes."""

    def __init__(self, units: int, rngs: nnx.Rngs):
        sizes = ((64, units), (units, units))
        # Flax 0.11 takes the list itself, without nnx.List.
        self.hidden = nnx.List([nnx.Linear(*size, rngs=rngs) for size in sizes])
        self.output = nnx.Linear(units, 10, rngs=rngs)

    def __call__(self, x, binary):
        for layer in self.hidden:
            x = binary(layer(x), noise="logistic")
        return self.output(x)


def main(estimator="zgr", steps=1500, every=250, units=32):
    """Trains and diagnoses; returns the diagnoses by step."""
    pixels, labels = map(jax.numpy.asarray, load_digits(return_X_y=True))
    graph, params = nnx.split(Classifier(units, nnx.Rngs(0)))
    optimiser = optax.adam(1e-2)

    def model(params, example, binary):
        logits = nnx.merge(graph, params)(example[0] / 8 - 1, binary)
        return optax.softmax_cross_entropy_with_integer_labels(logits, example[1])

    loss = gradbench.estimators.make_estimator(estimator, model)

    @jax.jit
    def step(params, state, key, batch):
        updates, state = optimiser.update(jax.grad(loss)(params, key, batch), state)
        return optax.apply_updates(params, updates), state

    state, found = optimiser.init(params), {}
    for number in range(steps + 1):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), number), 3)
        rows = jax.random.choice(keys[0], len(labels), (100,))
        batch = pixels[rows], labels[rows]
        if number % every == 0:
            found[number] = gradbench.diagnose(loss, params, batch, keys[1])
            print(f"step {number}", found[number], sep="\n", end="\n\n")
        params, state = step(params, state, keys[2], batch)
    return found


if __name__ == "__main__":
    plots.diagnoses(main(*sys.argv[1:2])).savefig("diagnosis.png")
