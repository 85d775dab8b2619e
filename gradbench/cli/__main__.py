"""Run the command line: ``python -m gradbench.cli``."""

import sys

from gradbench.cli.main import main

sys.exit(main())
