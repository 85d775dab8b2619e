"""A process that has imported what commands need, and runs each in a process forked from it."""

import os
import subprocess
import sys


class Serving:
    """A server that reads commands from its standard input, until that is closed."""

    def __init__(self, source, *modules, **environment):
        """``source`` is its program, ``modules`` are imported, ``environment`` are variables."""
        paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment | {"PYTHONPATH": paths},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
