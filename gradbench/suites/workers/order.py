"""The order of units: what others wait for is first, then what is estimated to take longest.

Units of one group share compiled programs, as those of an estimator on a network at different
checkpoints. A worker goes on with its group as long as there is something left in it, so that its
programs are compiled once; only who would have nothing to do helps others with theirs.
"""

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Unit(NamedTuple, Generic[T]):
    """Something to do.

    Attributes:
        what: what it is.
        group: what it shares programs with.
        rank: 0 for what is to be done before anything of rank 1, and so on.
        cost: how long it takes, in any unit.
    """

    what: T
    group: Hashable
    rank: int = 0
    cost: float = 0.0


class Queue(Generic[T]):
    """Units that wait; each method takes a time that hardly grows with their number."""

    def __init__(self) -> None:
        self._numbers = count()
        self._groups: dict[Hashable, list[tuple[int, float, int, Unit[T]]]] = {}
        self._free: list[tuple[int, float, int, Hashable]] = []  # groups that no worker has
        self._held: dict[Hashable, Hashable] = {}  # the group of each worker
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, unit: Unit[T]) -> None:
        """Add a unit."""
        entry = (unit.rank, -unit.cost, next(self._numbers), unit)
        heapq.heappush(self._groups.setdefault(unit.group, []), entry)
        heapq.heappush(self._free, (*entry[:3], unit.group))
        self._waiting += 1

    def take(self, worker: Hashable) -> Unit[T] | None:
        """Return the next unit of a worker, None where nothing waits."""
        held = self._held.pop(worker, None)
        own = self._groups.get(held)
        first = self._first_free()
        if own and not (first and first[0] < own[0][0]):  # nothing of a lower rank
            return self._pop(worker, held)
        if first:
            return self._pop(worker, first[3])
        others = [group for group in {*self._held.values(), held} if self._groups.get(group)]
        if others:
            return self._pop(worker, max(others, key=lambda group: len(self._groups[group])))
        return None

    def forget(self, worker: Hashable) -> None:
        """Let others have the group of a worker that is no more."""
        self._held.pop(worker, None)

    def _first_free(self) -> tuple[int, float, int, Hashable] | None:
        """Return the first of the groups that nobody has, and that have something left."""
        taken = set(self._held.values())
        passed = []
        found = None
        while self._free:
            entry = self._free[0]
            if not self._is_there(entry):
                heapq.heappop(self._free)
            elif entry[3] in taken:
                passed.append(heapq.heappop(self._free))
            else:
                found = entry
                break
        for entry in passed:
            heapq.heappush(self._free, entry)
        return found

    def _is_there(self, entry: tuple[int, float, int, Hashable]) -> bool:
        """Return whether a group still begins with the unit that the entry was made for."""
        waiting = self._groups.get(entry[3])
        return waiting is not None and len(waiting) > 0 and waiting[0][2] == entry[2]

    def _pop(self, worker: Hashable, group: Hashable) -> Unit[T]:
        waiting = self._groups[group]
        unit = heapq.heappop(waiting)[-1]
        self._held[worker] = group
        self._waiting -= 1
        if waiting:
            heapq.heappush(self._free, (*waiting[0][:3], group))
        else:
            del self._groups[group]
        return unit
