"""A black box: when to open the second counter of a shop, judged by a simulator in numpy.

Gradients come through `expectation`; estimators that need f' of the simulator are refused.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradbench import expectation

HOURS, DAYS, WAGE = 24, 200, 12.0
RATES = 14 + 12 * np.sin(np.arange(HOURS) * 2 * np.pi / HOURS)  # arrivals an hour
ARRIVALS = np.random.default_rng(0).poisson(RATES, (DAYS, HOURS))


def simulate(opened):
    """Mean cost of a day: an hour of a customer in the queue costs 1, a second counter WAGE."""
    opened = np.asarray(opened)  # [..., HOURS] of 0 and 1
    queue, waited = np.zeros((*opened.shape[:-1], DAYS)), 0.0
    for hour in range(HOURS):
        served = 15 + 15 * opened[..., hour, None]
        queue = np.maximum(queue + ARRIVALS[:, hour] - served, 0)
        waited += queue.mean(-1)
    return np.float32(waited + WAGE * opened.sum(-1))


def cost(opened):
    """Run the simulator from JAX, on many schedules at once."""
    like = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.pure_callback(simulate, like, opened, vmap_method="expand_dims")


def main(estimator="arms(samples=8)", steps=400):
    """Optimises the probabilities of opening; returns the best schedule and its cost."""
    expected = expectation(cost, estimator, coding="bits")
    optimiser = optax.adam(0.1)
    logits = jnp.zeros(HOURS)
    state = optimiser.init(logits)

    @jax.jit
    def step(logits, state, key):
        updates, state = optimiser.update(jax.grad(expected)(logits, key), state)
        return optax.apply_updates(logits, updates), state

    for key in jax.random.split(jax.random.key(0), steps):
        logits, state = step(logits, state, key)
    schedule = np.asarray(logits > 0, int)
    return schedule, float(simulate(schedule))


if __name__ == "__main__":
    print("second counter open:", *main(*sys.argv[1:2]))
    always = [float(simulate(np.full(HOURS, x))) for x in (0, 1)]
    print("never open: {:.1f}; always: {:.1f}".format(*always))
