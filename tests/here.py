"""Workers for runs, in the process of the test."""

import itertools

from gradbench.suites.workers import unit
from gradbench.suites.workers.engine import Done, File, Lost


class Here:
    """Workers in this process, which do their jobs by turns; some die when they have sent files."""

    def __init__(self, count=2, deaths=()):
        self.count, self.deaths = count, dict(deaths)
        self.jobs, self.running, self.names = [], {}, itertools.count()
        self.ended = False

    def __enter__(self):
        self.workers = [next(self.names) for _ in range(self.count)]
        return self

    def __exit__(self, *_):
        self.ended = True

    def idle(self):
        return [worker for worker in self.workers if worker not in self.running]

    def start(self, worker, job):
        self.running[worker] = job
        self.jobs.append(job)

    def wait(self):
        worker, job = next(iter(self.running.items()))
        del self.running[worker]
        events, files = [], []
        unit.perform(job, lambda path, data: files.append(File(path, data)))
        left = self.deaths.pop(len(self.jobs), None)
        if left is not None:
            self.workers[self.workers.index(worker)] = next(self.names)
            events = [*files[:left], Lost("by SIGKILL")]
        else:
            events = [*files, Done()]
        return [(worker, event) for event in events]
