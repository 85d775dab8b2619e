"""The time of a draw, measured by one protocol for all estimators alike.

The ideas are those of pyperf (V. Stinner, https://pyperf.readthedocs.io):

- Every program is called before any is timed, which compiles it.
- Its calls are repeated until they take long enough for the clock: that is a repeat.
- Repeats of all programs take turns, every second time backwards, so that a slow spell of the
  machine hits all alike and not one estimator or checkpoint alone.
- The time is the median of the repeats, and their spread its uncertainty.

What is timed is a draw among many, as they are made when they are measured: a compiled block of
draws. That holds for estimators without randomness too, which ``measure`` draws only once. Their
draws are all equal, and compiled code would make one and copy it; so each gets examples of its own,
and the program cannot know that they are equal. How long a single draw takes, its latency, is
another number: most of it is the call of compiled code, which is the same for all estimators.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.contract import Batch, Loss, Params, is_deterministic, scalar_of
from gradbench.core.platform import check_platform
from gradbench.core.pytrees import layer_vectors
from gradbench.measure.cell import Cell
from gradbench.measure.draws import Plan, chunk_of, draw_block

REPEATS = 9
_LEAST_REPEATS = 5  # of a program whose call takes long
_SHARE = 1 / 16  # of the budget of a program, which a repeat takes at least, and twice at most
BUDGET = 0.2  # seconds for the repeats of a block of draws
SINGLE = 0.032  # seconds for those of a single draw
_MOST_CALLS = 1 << 16  # of a repeat, whatever the clock says

Clock = Callable[[], float]


class Program(NamedTuple):
    """A program to be timed.

    Attributes:
        run: makes ``draws`` draws, and returns when they are made.
        draws: their number.
        budget: the seconds that all repeats take, about, unless a single call takes long.
    """

    run: Callable[[], object]
    draws: int = 1
    budget: float = BUDGET


class Timing(NamedTuple):
    """The time of one draw of a program.

    Attributes:
        seconds: the median over the repeats.
        spread: half the distance of their 16 % and 84 % quantiles, relative to the median: one
            standard deviation of normal times, and not much more after a single outlier.
        repeats: their number.
    """

    seconds: float
    spread: float
    repeats: int

    @classmethod
    def of(cls, times: Sequence[float]) -> "Timing":
        """Return the median and the spread of some times of one draw."""
        low, middle, high = np.quantile(times, [0.16, 0.5, 0.84], method="hazen")
        spread = (high - low) / max(middle, 1e-300) / 2.0
        return cls(float(middle), float(spread), len(times))


class Timed(NamedTuple):
    """A cell whose draws are to be timed, with its plan.

    ``evaluations`` are those of a draw per example. They limit how many draws of an estimator
    without randomness are made at a time, as the exact one needs the memory of all states.
    """

    cell: Cell
    plan: Plan
    evaluations: float = 1.0


class DrawTime(NamedTuple):
    """The time of a draw among many and, if it was asked for, of a single one.

    ``spread`` and ``latency_spread`` are relative, see ``Timing``.
    """

    seconds: float
    spread: float
    repeats: int
    latency: float = math.nan
    latency_spread: float = math.nan

    def known(self) -> dict[str, float]:
        """Return the fields that were measured, by name."""
        return {name: value for name, value in self._asdict().items() if not math.isnan(value)}


def time_draws(
    cells: Sequence[Timed],
    budget: float | None = None,
    latency: bool = True,
    clock: Clock = time.perf_counter,
) -> list[DrawTime]:
    """Return the time of a draw of each cell, all measured in turns.

    Args:
        cells: the cells; to be called in the precision that they are measured in.
        budget: the seconds for each, about, ``BUDGET`` by default. Seven blocks of draws are made
            at least.
        latency: whether to measure single draws as well, which compiles one more program each.
        clock: returns seconds.

    Raises:
        GradbenchError: the platform computes wrong values.
    """
    seconds = BUDGET if budget is None else budget
    programs = [program_of(one)._replace(budget=seconds) for one in cells]
    count = len(programs)
    if latency:
        programs += [single_draw(one.cell) for one in cells]
    found = in_turns(programs, clock)
    pairs = zip(found[:count], found[count:], strict=True) if latency else ((x,) for x in found)
    return [DrawTime(*many, *(single[0][:2] if single else ())) for many, *single in pairs]


def program_of(timed: Timed) -> Program:
    """Return the program of a block of draws; without randomness, of draws from equal examples."""
    cell, plan, evaluations = timed
    chunk = chunk_of(cell.loss, cell.params, cell.batch, plan.block)
    if not is_deterministic(cell.loss):
        return Program(partial(_block, cell, plan.block, chunk), plan.block)
    count = 1 << max(1, int(chunk / max(evaluations, 1.0))).bit_length() - 1
    if count == 1:  # it takes so long that there is nothing to share
        return single_draw(cell)
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf] * count), cell.batch)
    return Program(partial(_equal_draws, cell, batches), count)


def single_draw(cell: Cell) -> Program:
    """Return the program of one draw."""
    return Program(partial(_block, cell, 1, 1), 1, SINGLE)


def _block(cell: Cell, block: int, chunk: int) -> object:
    loss, params, batch, key = cell[:4]
    return jax.block_until_ready(draw_block(loss, block, chunk, params, batch, key, 0))


def _equal_draws(cell: Cell, batches: Batch) -> object:
    check_platform()
    return jax.block_until_ready(equal_draws(cell.loss, cell.params, cell.key, batches))


@partial(jax.jit, static_argnums=0)
def equal_draws(
    loss: Loss, params: Params, key: Array, batches: Batch
) -> tuple[Array, tuple[Array, ...]]:
    """Return values [n] and gradients [n, P] per layer of draws from n batches.

    An estimator without randomness reads no key, so that all draws of one batch are one draw to the
    compiler.
    """
    each = jax.vmap(jax.value_and_grad(lambda *args: scalar_of(loss(*args))), (None, None, 0))
    values, gradients = each(params, key, batches)
    return values, layer_vectors(gradients, 1)


def in_turns(programs: Sequence[Program], clock: Clock = time.perf_counter) -> list[Timing]:
    """Return the time of a draw of each program; their repeats take turns."""
    for program in programs:
        program.run()
    with _no_collection():
        calls, turns = [], []
        for program in programs:
            count, seconds = _calibrated(program, clock)
            calls.append(count)
            turns.append(_turns(program.budget, seconds))
        times: list[list[float]] = [[] for _ in programs]
        for turn in range(REPEATS):
            order = range(len(programs))
            for n in reversed(order) if turn % 2 else order:
                if turn in turns[n]:
                    seconds = _repeat(programs[n], calls[n], clock)
                    times[n].append(seconds / calls[n] / programs[n].draws)
    return [Timing.of(own) for own in times]


def _repeat(program: Program, calls: int, clock: Clock) -> float:
    begin = clock()
    for _ in range(calls):
        program.run()
    return clock() - begin


def _calibrated(program: Program, clock: Clock) -> tuple[int, float]:
    """Return how many calls are a repeat, and the seconds that they take."""
    calls, least = 1, _SHARE * program.budget
    while (seconds := _repeat(program, calls, clock)) < least and calls < _MOST_CALLS:
        calls *= 2
    return calls, seconds


def _turns(budget: float, seconds: float) -> set[int]:
    """Return the turns, spread over all, in which a program whose repeat takes long takes part."""
    count = min(max(int(budget / max(seconds, 1e-9)), _LEAST_REPEATS), REPEATS)
    return set(np.linspace(0, REPEATS - 1, count).round().astype(int).tolist())


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from collecting garbage, which takes longer the more was compiled before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
