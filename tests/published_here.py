"""A small MNIST in the place of the published one, at the address of the variable KILLS_HOST."""

import hashlib
import os

from small_data import GREY, grey_files, source

from gradbench.suites.datasets import sources

SUMS = {name: hashlib.md5(content).hexdigest() for name, content in grey_files().items()}
SMALL = source(GREY, GREY, files=SUMS, hosts=(os.environ.get("KILLS_HOST", ""),))
sources.SOURCES["mnist"] = SMALL
