"""What tests read of the README and of the pages of the guide: blocks, links, headings."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
PAGES = [ROOT / "README.md", NOTEBOOKS / "index.md", *sorted((NOTEBOOKS / "guide").glob("*.md"))]
FENCE = re.compile(r"^(`{3,}|:{3,})(\{?[\w-]*\}?)[^\n]*\n(.*?)^\1 *$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A block of code of a page: its language, and its text."""

    language: str
    text: str

    @property
    def file(self) -> str:
        """The file that the block is, where its first line names one: "# mine.py"."""
        found = re.match(r"# ([\w.-]+\.(py|toml))\n", self.text)
        return found[1] if found else ""


def name(path: Path) -> str:
    """What a test is called by the page that it is of."""
    return path.stem


def blocks(path: Path) -> list[Block]:
    """The blocks of code of a page in their order, those of Sphinx's directives left out."""
    found = (Block(m[2], m[3]) for m in FENCE.finditer(path.read_text()) if m[1][0] == "`")
    return [block for block in found if not block.language.startswith("{")]


def prose(path: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", path.read_text())


def commands(text: str) -> list[list[str]]:
    """The commands of gradbench in a page, as lists of words: lines of code that begin with one."""
    shell = "\n".join(m[3] for m in FENCE.finditer(text) if m[2] == "bash")
    lines = re.findall(r"^(?:    |\$ |\s*- run: )gradbench (.*)$", text, re.MULTILINE)
    lines += re.findall(r"^gradbench (.*)$", shell, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def headings(path: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r" ", "-", re.sub(r"[^\w\- ]", "", title)).strip("-") for title in plain}


def links(text: str) -> list[str]:
    """The targets of links and images in Markdown, code left out."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
