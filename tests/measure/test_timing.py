"""The protocol of times, on a clock that stands still unless a program takes time on it.

No test knows how fast this machine is. Wrong protocols are planted, and found by the same checks.
"""

import gc
import math
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import pytest
from conftest import small

from gradbench.core.precision import float64
from gradbench.estimators import exact, mean_field, reinforce
from gradbench.measure import timing
from gradbench.measure.cell import Cell
from gradbench.measure.draws import make_plan
from gradbench.measure.timing import BUDGET, REPEATS, Program, Timed, Timing, in_turns

COMPILATION = 100.0  # seconds of the first call of any program
KEY = jax.random.key(3)


class Machine:
    """A clock and its programs; ``slow(now)`` is how many times as long everything takes."""

    def __init__(self, slow=lambda now: 1.0):
        self.now, self.calls, self.compiled, self.slow = 0.0, [], set(), slow

    def clock(self):
        return self.now

    def take(self, name, seconds):
        self.now += COMPILATION * (name not in self.compiled) + seconds * self.slow(self.now)
        self.calls.append(name)
        self.compiled.add(name)

    def program(self, name, seconds, draws=1, budget=BUDGET):
        return Program(partial(self.take, name, seconds), draws, budget)

    def turns(self):
        """The names in the order of their calls, each run of one name once."""
        return [b for a, b in zip([None, *self.calls], self.calls, strict=False) if a != b]


def one_after_another(programs, clock):
    """Planted: each program has its repeats for itself, as before."""
    return [in_turns([program], clock)[0] for program in programs]


def with_compilation(programs, clock):
    """Planted: the call that compiles is timed."""
    found = []
    for program in programs:
        begin = clock()
        program.run()
        found.append(Timing((clock() - begin) / program.draws, 0.0, 1))
    return found


def least(programs, clock):
    """Planted: the least repeat is taken, and no spread is known."""
    found = in_turns(programs, clock)
    return [one._replace(seconds=0.9 * one.seconds, spread=0.0) for one in found]


# --- turns ---


def known_times(protocol):
    """Programs of known times on a quiet machine."""
    machine = Machine()
    seconds = {"a": 3e-5, "b": 2e-3, "c": 0.04, "d": 1.5}
    programs = [machine.program(name, 64 * one, 64) for name, one in seconds.items()]
    for found, one in zip(protocol(programs, machine.clock), seconds.values(), strict=True):
        assert found.seconds == pytest.approx(one, rel=1e-9)
        assert found.spread == pytest.approx(0.0, abs=1e-9)


def slow_spell_hits_all_alike(protocol):
    """From some moment on everything takes ten times as long: no ratio of times changes by it."""
    for begin in np.linspace(0.05, 1.4, 5):
        machine = Machine(lambda now, begin=begin: 10.0 if now > 4 * COMPILATION + begin else 1.0)
        programs = [machine.program(n, 1e-3) for n in range(4)]
        found = [one.seconds for one in protocol(programs, machine.clock)]
        assert max(found) < 1.5 * min(found)


def disagreement_is_seen(protocol):
    """The machine is twice as slow in every second moment: the spread says so."""
    machine = Machine(lambda now: 1.0 + (int(now / 0.04) % 2))
    programs = [machine.program(n, 1e-3) for n in range(3)]
    for found in protocol(programs, machine.clock):
        assert found.spread > 0.1 and 0.999e-3 < found.seconds < 2.001e-3


def test_the_protocol_measures_known_times_hides_no_slow_spell_and_sees_disagreement():
    known_times(in_turns)
    slow_spell_hits_all_alike(in_turns)
    disagreement_is_seen(in_turns)


@pytest.mark.parametrize(
    ("planted", "check"),
    [
        (with_compilation, known_times),
        (one_after_another, slow_spell_hits_all_alike),
        (least, known_times),
        (least, disagreement_is_seen),
    ],
)
def test_a_wrong_protocol_is_found(planted, check):
    with pytest.raises(AssertionError):
        check(planted)


def test_all_are_compiled_before_any_is_timed_and_then_repeats_take_turns_forth_and_back():
    machine = Machine()
    names = "abc"
    in_turns([machine.program(name, 1e-3) for name in names], machine.clock)
    assert machine.calls[:3] == list(names)
    # Turns forth and back: where one ends the next begins, with the same program.
    rounds = "".join("abc" if turn % 2 == 0 else "cba" for turn in range(REPEATS))
    merged = [b for a, b in zip(" " + rounds, rounds, strict=False) if a != b]
    assert machine.turns()[-len(merged) :] == merged
    assert machine.turns()[: -len(merged)] == [*names, *names]  # compiled, then calibrated


@pytest.mark.parametrize("seconds", [1e-6, 1e-4, 2e-3, 0.011])
def test_a_repeat_takes_long_enough_for_the_clock_and_all_of_them_not_longer_than_the_budget(
    seconds,
):
    machine = Machine()
    found = in_turns([machine.program("a", seconds)], machine.clock)[0]
    assert found.repeats == REPEATS
    calibration = 2 * BUDGET / 16
    spent = machine.now - COMPILATION - seconds
    assert REPEATS * BUDGET / 16 <= spent <= REPEATS * BUDGET / 8 + 2 * calibration


def test_a_program_whose_call_takes_long_has_five_repeats_spread_over_all_turns():
    machine = Machine()
    slow, quick = in_turns([machine.program("a", 2.0), machine.program("b", 1e-3)], machine.clock)
    assert (slow.repeats, quick.repeats) == (5, REPEATS)
    assert slow.seconds == pytest.approx(2.0)
    assert machine.calls.count("a") == 7
    assert machine.turns() == ["a", "b"] * 7  # of nine turns, every second one


def test_a_clock_that_stands_still_ends_as_well():
    (found,) = in_turns([Program(lambda: None)], lambda: 1.0)
    assert found.seconds == 0.0 and found.spread == 0.0


def test_no_garbage_is_collected_meanwhile_and_it_is_again_also_after_an_interruption():
    seen = []
    in_turns([Machine().program("a", 1e-3)._replace(run=lambda: seen.append(gc.isenabled()))])
    assert seen[0] and not any(seen[1:]) and gc.isenabled()

    def interrupted():
        seen.append(None)
        if len(seen) > 2:
            raise KeyboardInterrupt

    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        in_turns([Program(interrupted)])
    assert gc.isenabled()


# --- the spread ---


@pytest.mark.parametrize("repeats", [5, 7, REPEATS])
@pytest.mark.first(1)
def test_the_spread_is_about_the_standard_deviation_of_normal_times(repeats):
    """Over 4000 simulations, with a standard error of less than 1 % of it."""
    rng = np.random.default_rng(repeats)
    times = 1.0 + 0.01 * rng.normal(size=(4000, repeats))
    found = [Timing.of(own) for own in times]
    assert 0.9 < np.mean([one.spread for one in found]) / 0.01 < 1.1
    assert abs(np.mean([one.seconds for one in found]) - 1.0) < 6 * 0.01 / math.sqrt(4000)


def test_a_single_outlier_moves_neither_the_time_nor_much_of_the_spread():
    times = [1.0, 1.01, 0.99, 1.005, 0.995, 1.0, 1.01, 0.99]
    for place in range(9):
        found = Timing.of([*times[:place], 3.0, *times[place:]])
        assert found.seconds == pytest.approx(1.0, abs=0.01) and found.spread < 0.1
    assert Timing.of([1.0] * 5 + [3.0] * 4).spread > 0.5  # two or more are no outlier


# --- draws of estimators ---


@dataclass(frozen=True)
class Pretended:
    """An estimator that takes no time itself, with or without randomness."""

    randomness: str

    def __call__(self, params, key, batch):
        return params[0].sum() * batch[0].sum()


def cell_of(loss, network=None):
    params = (np.ones(2),) if network is None else network[1]
    batch = (np.ones((3, 4)),) if network is None else network[2]
    return Cell(loss, params, batch, KEY)


def costs_of_calls(monkeypatch, machine, overhead, draw):
    """A call takes a time of its own and so much for each draw, whatever the estimator."""

    def draws(loss, block, *arguments):
        machine.take(("block", loss, block), overhead + draw * block)

    def equal(loss, params, key, batches):
        count = len(jax.tree.leaves(batches)[0])
        machine.take(("equal", loss, count), overhead + draw * count)

    monkeypatch.setattr(timing, "draw_block", draws)
    monkeypatch.setattr(timing, "equal_draws", equal)


def equal_cost_is_equal_time(monkeypatch, program_of):
    machine = Machine()
    costs_of_calls(monkeypatch, machine, overhead=1e-4, draw=1e-5)
    cells = [Timed(cell_of(Pretended(kind)), make_plan(2048)) for kind in ("uniforms", "none")]
    monkeypatch.setattr(timing, "program_of", program_of)
    random, same = timing.time_draws(cells, clock=machine.clock)
    assert random.seconds == pytest.approx(1e-5 + 1e-4 / 64)
    assert same == random
    assert random.latency == pytest.approx(1e-4 + 1e-5)
    assert (random.spread, random.latency_spread) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_draws_without_randomness_are_timed_as_many_at_a_time_as_those_with_it(monkeypatch):
    honest = timing.program_of
    equal_cost_is_equal_time(monkeypatch, honest)


def test_a_draw_that_is_timed_alone_is_found(monkeypatch):
    honest, single = timing.program_of, timing.single_draw

    def planted(timed):
        """Without randomness a single draw is timed, as before."""
        return single(timed.cell) if timed.cell.loss.randomness == "none" else honest(timed)

    with pytest.raises(AssertionError):
        equal_cost_is_equal_time(monkeypatch, planted)


def work(compiled):
    return compiled.cost_analysis()["flops"]


@pytest.fixture(scope="module")
def network():
    return small((2, 3, 2, 1))


@pytest.mark.slow
def test_equal_draws_are_all_made_and_each_is_the_draw(network):
    """Compiled code makes one draw for all keys: these would be draws that take no time."""
    model, params, batch = network
    with float64():
        loss = mean_field(model)
        program = timing.program_of(Timed(cell_of(loss, network), make_plan(2048)))
        assert program.draws == 64
        values, gradients = program.run()
        value, gradient = jax.value_and_grad(loss)(params, KEY, batch)
        np.testing.assert_allclose(values, np.full(64, value), rtol=1e-12)
        for rows, layer in zip(gradients, gradient, strict=True):
            flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(layer)])
            np.testing.assert_allclose(rows, np.tile(flat, (64, 1)), rtol=1e-10, atol=1e-14)

        def of_batches(count):
            batches = jax.tree.map(lambda leaf: np.stack([leaf] * count), batch)
            return work(timing.equal_draws.lower(loss, params, KEY, batches).compile())

        def of_keys(count):
            each = jax.vmap(jax.value_and_grad(loss), (None, 0, None))
            return work(jax.jit(each).lower(params, jax.random.split(KEY, count), batch).compile())

        assert of_batches(64) > 40 * of_batches(1)
        assert of_keys(64) < 2 * of_keys(1)  # the fault that is not made


@pytest.mark.slow
def test_a_draw_of_many_evaluations_is_made_alone(network):
    """The exact gradient of a large network needs the memory of all its states."""
    model, *_ = network
    cell = cell_of(exact(model), network)
    for evaluations, draws in [(1, 64), (3, 16), (16, 4), (64, 1), (2.0**40, 1)]:
        program = timing.program_of(Timed(cell, make_plan(2048), evaluations))
        assert program.draws == draws


def test_draws_with_randomness_are_timed_by_the_program_that_measures_them(network, monkeypatch):
    model, params, batch = network
    calls = []
    monkeypatch.setattr(timing, "draw_block", lambda *arguments: calls.append(arguments))
    loss = reinforce(model)
    cell = cell_of(loss, network)
    timing.program_of(Timed(cell, make_plan(2048))).run()
    timing.single_draw(cell).run()
    assert calls == [(loss, 64, 64, params, batch, KEY, 0), (loss, 1, 1, params, batch, KEY, 0)]


@pytest.mark.slow
def test_times_are_of_this_machine_and_known_with_and_without_randomness(network):
    """How long they are is not asserted: machines differ, and are busy."""
    model, *_ = network
    cells = [
        Timed(cell_of(make(model), network), make_plan(64)) for make in (reinforce, mean_field)
    ]
    for found in timing.time_draws(cells, 0.01):
        assert 0.0 < found.seconds < np.inf and 0.0 < found.latency < np.inf
        assert found.spread >= 0.0 and found.repeats >= 5
    for found in timing.time_draws(cells, 0.01, latency=False):
        assert 0.0 < found.seconds < np.inf and math.isnan(found.latency)
