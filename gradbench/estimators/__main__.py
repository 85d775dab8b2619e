"""Write the index of estimators that ``gradbench.core.index`` reads: run this module for it.

It has to be written anew whenever an estimator has changed; until then the commands that read it
import all estimators instead, which is slower. A test fails where it is not up to date.
"""

import json

from gradbench.core import index
from gradbench.estimators import ESTIMATORS


def content() -> str:
    """Return what the file should contain: a digest of the sources, and all descriptions."""
    found = {
        "digest": index.sources_digest(),
        "estimators": {
            name: entry.describe()._asdict()
            for name, entry in sorted(ESTIMATORS.items())
            if ESTIMATORS.facts(name).module.startswith("gradbench.")
        },
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    index.FILE.write_text(content(), "utf-8")
