"""Put the tables that commands print into the README: ``make tables``."""

import re
from pathlib import Path

from gradbench.cli.catalogue import text

README = Path(__file__).parents[1] / "README.md"
TABLE = re.compile(
    r"(<!-- printed by: gradbench list (\w+) --markdown -->\n).*?(\n<!-- the table ends here -->)",
    re.DOTALL,
)


def with_tables(page: str) -> str:
    """Return the page with each table as its command prints it now."""
    return TABLE.sub(lambda found: found[1] + text(found[2], markdown=True) + found[3], page)


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
