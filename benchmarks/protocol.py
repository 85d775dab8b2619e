"""gradbench beside the protocol of the PSA paper as its reader would write it: ``make peer``.

The experiment of Shekhovtsov, Yanush & Flach 2020 needs mean and variance of many draws of one
gradient: network 2-5-5-5-1, 200 points, float32. A reader maps a loss over the keys of the draws,
in JAX by ``vmap`` or ``lax.map(batch_size=64)``, and in PyTorch by ``torch.func``, and takes the
moments of the stack. Losses are written once for both, in the words that they share. Printed are
draws per second of CPU time on one core, and how many times as many ``gradbench.draws`` makes.
"""

import os
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from turns import rates, ratio

import gradbench
from gradbench.models import dense_network
from gradbench.suites.data import load_data

SIZES = (2, 5, 5, 5, 1)
DRAWS, AT_ONCE = 2048, 64


def forward(xp: Any, params: Any, u: Any, x: Any) -> tuple[list[Any], list[Any]]:
    """Return states and pre-activations [points, units] of all layers, from their uniforms."""
    states, before = [x], []
    for (weight, bias), noise in zip(params[:-1], u, strict=True):
        before.append(states[-1] @ weight.T + bias)
        states.append(xp.where(noise < 1 / (1 + xp.exp(-before[-1])), 1.0, -1.0))
    return states, before


def logistic_loss(xp: Any, params: Any, x: Any, t: Any) -> Any:
    """Return the objective of each point, of states [..., points, units]."""
    weight, bias = params[-1]
    return xp.log1p(xp.exp(-(x @ weight.T + bias)[..., 0] * t))


def straight_through(xp: Any, fixed: Callable[[Any], Any], params: Any, u: Any, data: Any) -> Any:
    """Sample states with the derivative of 2 F(a)."""
    x, t = data
    for (weight, bias), noise in zip(params[:-1], u, strict=True):
        p = 1 / (1 + xp.exp(-(x @ weight.T + bias)))
        x = 2 * p + fixed(xp.where(noise < p, 1.0, -1.0) - 2 * p)
    return logistic_loss(xp, params, x, t).mean()


def psa(xp: Any, fixed: Callable[[Any], Any], params: Any, u: Any, data: Any) -> Any:
    """Run the recursion of the paper over sheets of flips [flipped, points, units]."""
    x, t = data
    states, before = forward(xp, params, u, x)
    weight, _ = params[-1]
    out = (states[-1] @ weight.T + params[-1][1])[..., 0]
    flipped = out[None] - 2 * states[-1].T * weight[0][:, None]
    change = (xp.log1p(xp.exp(-flipped * t)) - logistic_loss(xp, params, states[-1], t)[None]).T
    other = 1 / (1 + xp.exp(states[-1] * fixed(before[-1])))
    loss = logistic_loss(xp, params, states[-1], t) + (other * change).mean(-1)
    delta = fixed(change)
    for k in range(len(before) - 1, -1, -1):
        p = 1 / (1 + xp.exp(-fixed(before[k])))
        signal = -states[k + 1] * delta
        loss = loss + (signal * p * (1 - p) * before[k]).sum(-1)
        if k:
            step = -2 * states[k].T[:, :, None] * fixed(params[k][0]).T[:, None, :]
            sheet = 1 / (1 + xp.exp(-(fixed(before[k])[None] + step))) - p[None]
            delta = (signal[None] * sheet).sum(-1).T
    return loss.mean()


LOSSES = {"straight_through": straight_through, "psa": psa}


def problem() -> tuple[Any, Any]:
    """Return parameters, pairs of a weight and a bias, and 200 points in two classes."""
    made = dense_network(SIZES).init(jax.random.key(0))
    params = [(np.asarray(one["weight"]), np.asarray(one["bias"])) for one in made]
    return params, tuple(np.asarray(part, np.float32) for part in load_data("overlapping_classes"))


def of_gradbench(name: str) -> Callable[[], Any]:
    """Return a task: mean and variance of the draws, by ``gradbench.draws``."""
    made, data = problem()
    params = tuple({"weight": weight, "bias": bias} for weight, bias in made)
    loss = getattr(gradbench.estimators, name)(dense_network(SIZES))
    return lambda: gradbench.draws(loss, params, jax.random.key(1), data, DRAWS)


def of_jax(name: str, mapped: Callable[..., Any]) -> Callable[[], Any]:
    """Return a task: the same by ``mapped(draw, keys)``."""
    params, data = jax.tree.map(jnp.asarray, problem())

    def draw(key: Any) -> Any:
        keys = jax.random.split(key, len(SIZES) - 2)
        u = [
            jax.random.uniform(k, (len(data[0]), n)) for k, n in zip(keys, SIZES[1:], strict=False)
        ]
        loss = LOSSES[name]
        return jax.grad(lambda params: loss(jnp, jax.lax.stop_gradient, params, u, data))(params)

    @jax.jit
    def moments(key: Any) -> Any:
        stack = mapped(draw, jax.random.split(key, DRAWS))
        return [jax.tree.map(lambda g, f=f: f(g, 0), stack) for f in (jnp.mean, jnp.var)]

    return lambda: jax.block_until_ready(moments(jax.random.key(1)))


def of_torch(name: str, chunk: int | None) -> Callable[[], Any]:
    """Return a task: the same by ``torch.func``, in chunks of so many draws."""
    import torch

    made, numbers = problem()
    params = [tuple(map(torch.tensor, pair)) for pair in made]
    data = tuple(map(torch.tensor, numbers))

    def loss(params: Any, number: Any) -> Any:
        u = [torch.rand(len(data[0]), n) for n in SIZES[1:-1]]
        return LOSSES[name](torch, lambda x: x.detach(), params, u, data) + 0 * number

    draw = torch.func.vmap(
        torch.func.grad(loss), (None, 0), randomness="different", chunk_size=chunk
    )

    def task() -> Any:
        stack = draw(params, torch.zeros(DRAWS))
        return [(g.mean(0), g.var(0)) for pair in stack for g in pair]

    return task


def main() -> None:
    """Print draws per second of each way, and the ratio of ours to it."""
    if hasattr(os, "sched_setaffinity"):  # before JAX starts its threads: one core for all
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    jax.config.update("jax_platforms", "cpu")
    ways: dict[str, Callable[[str], Callable[[], Any]]] = {
        "gradbench.draws": of_gradbench,
        "jax vmap": lambda name: of_jax(name, lambda draw, keys: jax.vmap(draw)(keys)),
        f"jax lax.map(batch_size={AT_ONCE})": lambda name: of_jax(
            name, lambda draw, keys: jax.lax.map(draw, keys, batch_size=AT_ONCE)
        ),
    }
    try:
        import torch
    except ImportError:
        print("torch is not installed: without its ways; `make peer` installs it")
    else:
        torch.set_num_threads(1)
        ways["torch.func.vmap"] = lambda name: of_torch(name, None)
        ways[f"torch.func.vmap(chunk_size={AT_ONCE})"] = lambda name: of_torch(name, AT_ONCE)
    size = "-".join(map(str, SIZES))
    print(f"\nmean and variance of {DRAWS} draws, {size}, 200 points: draws per CPU-second; ratios")
    for name in LOSSES:
        print_ways(name, list(ways), rates([(DRAWS, make(name)) for make in ways.values()]))


def print_ways(name: str, ways: Sequence[str], found: Sequence[Sequence[float]]) -> None:
    """Print a line for each way: its median rate, and how many times as fast the first is."""
    print(f"\n{name:32}{'draws/s':>10}   gradbench / it")
    for way, own in zip(ways, found, strict=True):
        print(f"  {way:30}{median(own):10,.0f}{ratio(found[0], own)}", flush=True)


if __name__ == "__main__":
    main()
