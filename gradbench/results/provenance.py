"""The origin of results: versions, device and commit, never a path or the name of a user."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from gradbench.core import canary, plugins

_SOURCE = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, object]:
    """Return what a reader needs to reproduce results, for JSON; unknown entries are None.

    ``device`` is the kind of the accelerator or "cpu" and ``devices`` the number that computes.
    ``commit`` is the commit of the checkout that gradbench runs from, and ``modified`` says whether
    the package differs from it. ``plugins``, if any were loaded, are the names of files and
    packages with their digests and versions. ``canary`` holds the backends whose compiled code was
    checked before anything was measured, see ``gradbench.core.platform``: {"cpu": "passed"}.
    """
    # Imported late, as it loads JAX: reading results must not pay for it.

    from gradbench.core.devices import devices, kind

    found = devices()
    return {
        "gradbench": _version("gradbench"),
        "jax": _version("jax"),
        "jaxlib": _version("jaxlib"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "backend": kind(),
        "device": found[0].device_kind,
        "devices": len(found),
        "cores": os.cpu_count(),
        "canary": canary.passed() or None,
        **checkout(_SOURCE),
        **({"plugins": plugins.loaded()} if plugins.loaded() else {}),
    }


def checkout(package: Path) -> dict[str, object]:
    """Return the ``commit`` and ``modified`` of a package, None unless at the top of a checkout."""
    commit = modified = None
    # Only at the very top: installed into an environment inside some other project's checkout, git
    # would otherwise answer with the commit of that project.
    if (package.parent / ".git").exists():
        commit = _git(package, "rev-parse", "HEAD")
    if commit is not None:
        status = _git(package, "status", "--porcelain", "--", ".")
        modified = None if status is None else status != ""
    return {"commit": commit, "modified": modified}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(directory: Path, *arguments: str) -> str | None:
    """Return the output of git without surrounding space, None where it is missing or refuses."""
    # Inside a git hook these variables would point git at the repository of the hook.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    try:
        answer = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip()
