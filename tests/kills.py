"""Commands that are killed at any moment: what they leave behind, and how they are continued.

``Server`` is a process that has imported what commands need and forks for each of them, so that
many can be killed in little time. It has never computed anything by JAX, which has no threads then.
"""

import contextlib
import json
import os
import random
import re
import signal
import time
from pathlib import Path
from xml.etree import ElementTree

from serving import Serving

from gradbench.core.archives import read_arrays
from gradbench.results import runs
from gradbench.results.store import Results

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# What a shell reports of a process that has been ended by a signal, or has ended itself for it.
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130, -2}}
# What tqdm before 4.69.1 says of a bar that a signal has interrupted in the making.
UNMADE = re.compile(r"Exception ignored in: <function tqdm\.__del__ .*? 'disable'\n", re.DOTALL)

_SERVER = """
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal
from gradbench.cli.main import main
from gradbench.measure import timing
for module in sys.argv[1:]:
    __import__(module)
timing.BUDGET = timing.SINGLE = 1e-3
for line in sys.stdin:
    arguments = json.loads(line)
    child = os.fork()
    if not child:
        os.setsid()
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.environ["KILLS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
                    stream.fileno())
        code = 1
        try:
            code = main(arguments)
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Server(Serving):
    """Runs commands, one at a time, each in a process of its own."""

    def __init__(self, folder, *modules, **environment):
        """``modules`` are imported, ``environment`` are variables of it."""
        self.log = folder / "log"
        super().__init__(_SERVER, *modules, **environment, KILLS_LOG=str(self.log))

    def run(self, arguments, seconds=None, number=None):
        """The exit code of a command that gets a signal after some time; and how long it took."""
        self.log.write_text("")
        print(json.dumps([str(one) for one in arguments]), file=self.process.stdin, flush=True)
        child = int(self.process.stdout.readline())
        begin = time.monotonic()
        if number is not None:
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):  # it has ended before
                os.kill(child, number)
        code = int(self.process.stdout.readline())
        seconds = time.monotonic() - begin
        while left := _session(child):  # what it has begun ends with it
            assert time.monotonic() - begin - seconds < 120, left
            time.sleep(0.05)
        return code, seconds


def _session(leader):
    """The processes of a session, by their numbers; its leader is gone."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(path.parent.name))
    return found


def assert_whole(directory):
    """Nothing that a reader looks at is half-written, whatever has been killed."""
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        data = path.read_bytes()
        if path.suffix == ".pdf":
            assert data.startswith(b"%PDF") and data.rstrip().endswith(b"%%EOF"), path
        elif path.suffix == ".png":
            assert data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82"), path
        elif path.suffix == ".svg":
            ElementTree.fromstring(data)
        elif path.suffix == ".py":
            compile(data, str(path), "exec")
        elif path.suffix == ".html":
            assert data.rstrip().endswith(b"</html>"), path
        elif path.suffix == ".npz":
            read_arrays(data)
        elif path.suffix == ".json":
            json.loads(data)
    if (directory / "manifest.json").exists():
        results = Results.open(directory)
        for cell in results.cells():
            cell.load()
            results.load_moments(cell.place, cell.estimator)
            results.load_cost(cell.place, cell.estimator)
            assert results.load_checkpoint(cell.place) is not None
            assert results.load_reference(cell.place) is not None
        for kind in runs.KINDS:
            list(runs.stored(results, kind))


def seeds_until(got, kills):
    """Seeds of further runs of a command until the list ``got`` has so many signals."""
    for seed in range(100):
        if len(got) >= kills:
            return
        yield seed
    raise AssertionError(f"{len(got)} of {kills} signals came before the command had ended")


def killed_until_done(server, arguments, directory, seed, most, kills):
    """Kill a command again and again, then let it end; returns the signals that it got.

    Args:
        server: where it runs.
        arguments: the command.
        directory: what it writes.
        seed: of the moments and signals.
        most: the seconds within which a signal comes.
        kills: how many are tried.
    """
    generator = random.Random(seed)
    got = []
    for _ in range(kills):
        number = generator.choice(SIGNALS)
        code, _ = server.run(arguments, generator.uniform(0, most), number)
        said = UNMADE.sub("", server.log.read_text())
        assert "Traceback" not in said, said
        assert code in CODES[number] or code == 0, (arguments, number, code, said)
        if code == 143 or code == 130:
            assert re.search("interrupted; what was measured is kept", said), said
        assert_whole(directory)
        if code == 0:
            break
        got.append(number)
    code, _ = server.run(arguments)
    assert code == 0, server.log.read_text()
    return got
