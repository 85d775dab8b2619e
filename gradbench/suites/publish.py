"""Write the results that come with the package: ``python -m gradbench.suites.publish [SUITE]...``.

Each suite is run as a whole with seed 0, its networks trained anew, and what
``gradbench.results.published`` lists is kept. Without names, those that are there are made again.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from gradbench.metrics.comparable import publish
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.registry import METRICS
from gradbench.results.published import FOLDER, published_suites
from gradbench.suites.runner import run

_KEPT = ("manifest.json", "checkpoints", "references")


def publish_suite(suite: str, folder: Path = FOLDER) -> Path:
    """Run a suite with seed 0 and write its results, without draws, to ``folder``/SUITE.

    Raises:
        GradbenchError: as ``run``.
    """
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / suite
        run(suite, made, seed=0, retrain=True)
        kept = Path(temporary) / "kept"
        kept.mkdir()
        for name in _KEPT:
            copy = shutil.copytree if (made / name).is_dir() else shutil.copyfile
            copy(made / name, kept / name)
        publish(kept, made, list(METRICS), LEVEL)
        target = folder / suite
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(kept, target)
    return target


if __name__ == "__main__":
    for name in sys.argv[1:] or published_suites():
        print(publish_suite(name))
