"""What a reader would write, as the benchmarks have it, is right, draw by draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import benchmark

import gradbench
from gradbench.models import dense_network

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("name", ["straight_through", "psa"])
@pytest.mark.slow
def test_a_loss_of_the_protocol_has_the_draws_of_the_estimator(name):
    protocol = benchmark("protocol")
    pairs, data = protocol.problem()
    loss = getattr(gradbench.estimators, name)(dense_network(protocol.SIZES))
    draw = np.random.default_rng(0)
    u = [draw.uniform(size=(len(data[0]), n)).astype(np.float32) for n in protocol.SIZES[1:-1]]

    @jax.jit
    def both(pairs):
        def ours(params):
            each = jax.vmap(lambda u, example: loss.example_loss(params, (u,), example))
            return jnp.mean(each(tuple(u), data))

        def theirs(pairs):
            return protocol.LOSSES[name](jnp, jax.lax.stop_gradient, pairs, u, data)

        params = tuple({"bias": bias, "weight": weight} for weight, bias in pairs)
        return jax.grad(ours)(params), jax.grad(theirs)(pairs)

    ours, theirs = both(pairs)
    for one, (weight, bias) in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one["weight"], weight, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one["bias"], bias, rtol=1e-4, atol=1e-6)


def test_a_rate_is_per_second_of_cpu_time_without_the_first_call_and_tasks_take_turns(monkeypatch):
    turns, clock, calls = benchmark("turns"), [0.0], []
    costs = iter([100.0])  # the first call compiles

    def task(name="a"):
        calls.append(name)
        clock[0] += next(costs, 0.5)

    monkeypatch.setattr("time.process_time", lambda: clock[0])
    assert turns.rate(1000, task, 4.0) == 2000
    calls.clear()
    found = turns.rates([(1, task), (3, lambda: task("b"))], rounds=2)
    assert found == [(2.0, 2.0), (6.0, 6.0)]
    assert "".join(calls) == "aabbaabb"
    assert turns.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == "    3.0 (2.0 to 4.0)"
