"""Commands in odd surroundings: streams that are closed or full, no home, little memory or disk.

``Surroundings`` is a process that has imported what commands need and forks for each of them, so
that many can be tried. A fork sets its surroundings up, makes standard streams as Python does when
it begins, runs the command, and ends as Python ends.
"""

import json
import os
import signal
from typing import NamedTuple

from serving import Serving

_SERVER = """
import gc, io, json, os, resource, signal, sys
from gradbench.cli.main import main
for module in sys.argv[1:]:
    __import__(module)

def opened(number, said, encoding):
    if said == "closed":
        os.close(number)
        return None
    if said == "unread":  # a pipe whose reader is gone, as after `| head -0`
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(write, number)
    os.close(write)
    errors = "backslashreplace" if number == 2 else "strict"
    raw = open(number, "wb", -1 if number == 1 else 0, closefd=False)
    return io.TextIOWrapper(raw, encoding, errors, write_through=number == 2)

def surrounded(asked):
    os.setsid()
    os.chdir(asked["folder"])
    for name, value in asked["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    encoding = asked["encoding"]
    sys.stdout = sys.__stdout__ = opened(1, asked["out"], encoding)
    sys.stderr = sys.__stderr__ = opened(2, asked["err"], encoding)
    for name, most in asked["limits"].items():
        if name == "RLIMIT_AS":  # beside what is there already
            most += 4096 * int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(getattr(resource, name), (most, most))

gc.collect(), gc.freeze()  # what is there already is not looked at again by each fork
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        sys.stdin = None
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        surrounded(asked)
        code = main(asked["command"])
        for stream in (sys.stdout, sys.stderr):
            try:
                stream is None or stream.flush()
            except Exception:
                code = 120  # as Python exits then
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Ended(NamedTuple):
    """How a command has ended: its exit code, None if it had to be killed, and what it said."""

    code: int | None
    out: str
    err: str

    def fault(self, code, heard=True):
        """What is wrong with it, "" if nothing: there is no traceback, and the code is right.

        Where it is ``heard``, bad input gets a sentence.
        """
        said = self.out + self.err
        if self.code is None:
            return f"it hangs: {said}"
        for bad in ("Traceback", "Exception ignored", "Fatal Python error", "error of gradbench"):
            if bad in said:
                return f"{bad}: {said}"
        if self.code not in ((code,) if isinstance(code, int) else code):
            return f"exit code {self.code}, not {code}: {said}"
        if self.code == 2 and heard and "gradbench: " not in self.err:
            return f"no sentence: {said}"
        return ""


class Surroundings(Serving):
    """Runs commands, one at a time, each in a process of its own."""

    def __init__(self, folder, *modules, patience=600):
        """``folder`` is the working directory, ``modules`` are imported beforehand."""
        self.folder, self.patience = folder, patience
        super().__init__(_SERVER, *modules)

    def run(
        self, command, out=None, err=None, environment=(), limits=(), encoding="utf-8", folder=None
    ):
        """Run a command.

        Args:
            command: its arguments.
            out: "closed", "unread", or the path of a file that standard output is written to.
            err: likewise of standard error.
            environment: variables, None for one that is not set.
            limits: of resources, such as RLIMIT_FSIZE.
            encoding: of the streams.
            folder: the working directory.
        """
        kept = {"out": self.folder / ".out", "err": self.folder / ".err"}
        for path in kept.values():
            path.write_bytes(b"")
        asked = {
            "command": [str(one) for one in command],
            "out": str(out or kept["out"]),
            "err": str(err or kept["err"]),
            "environment": dict(environment),
            "limits": dict(limits),
            "encoding": encoding,
            "folder": str(folder or self.folder),
        }
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        child = int(self.process.stdout.readline())
        killer = signal_after(self.patience, child)
        code = int(self.process.stdout.readline())
        killer.cancel()
        said = (path.read_text(errors="replace") for path in kept.values())
        return Ended(None if code == -signal.SIGKILL else code, *said)


def signal_after(seconds, process):
    """A timer that kills a process."""
    import threading

    timer = threading.Timer(seconds, os.kill, (process, signal.SIGKILL))
    timer.start()
    return timer
