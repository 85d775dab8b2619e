"""``gradbench data`` says what it did, and ends as commands do."""

import re
import tomllib
from pathlib import Path

import pytest
from small_data import grey_files, small_sources

from gradbench.cli.main import main
from gradbench.suites.datasets import sources
from gradbench.suites.datasets.cache import entry
from gradbench.suites.datasets.content import short


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run a command: its exit code, what it prints, and its errors."""
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sources.SOURCES, "mnist", small_sources()["mnist"])

    def run(*words):
        code = main(["data", *map(str, words)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content in grey_files().items():
        (folder / name).write_bytes(content)
    return folder


def test_a_data_set_is_added_listed_and_verified(call, files):
    digest = short(sources.SOURCES["mnist"].digest)
    assert call("verify")[:2] == (
        0,
        f"no data sets are in {entry('mnist').parent}; add one by 'gradbench data get NAME'\n",
    )
    assert call("add", "mnist", files) == (0, f"mnist is in {entry('mnist')}\n", "")
    assert call("get", "mnist") == (0, f"mnist is in {entry('mnist')}\n", "")
    assert call("verify") == (0, f"mnist: as published, digest {digest}\n", "")
    code, out, _ = call("list")
    lines = {line.split()[0]: line.split() for line in out.splitlines()}
    assert code == 0 and set(lines) == {"name", "digits", *sources.SOURCES}
    assert lines["mnist"][1:5] == ["30", "10", "5x4", "yes"]
    assert lines["r52"][1:6] == ["6532", "2568", "2000", "words", "no"]


def test_a_damaged_data_set_fails_the_verification(call, files):
    call("add", "mnist", files)
    entry("mnist").write_bytes(entry("mnist").read_bytes()[:-9])
    code, out, _ = call("verify")
    assert code == 1 and out.startswith(f"mnist: {str(entry('mnist'))!r} is damaged")
    assert call("verify", "cifar-10")[0] == 1  # it is not there


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gett"], "gradbench: there is no command 'gett'; did you mean 'get'?"),
        (["get", "minst"], "gradbench: unknown data set 'minst'; did you mean 'mnist'?"),
        (["verify", "minst"], "gradbench: unknown data set 'minst'; did you mean 'mnist'?"),
        (["add", "mnist"], "gradbench: data add got no PATH"),
        (["add", "mnist", "no/such"], "gradbench: 'no/such' does not exist; give the path"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(call, words, said):
    code, out, error = call(*words)
    assert (code, out) == (2, "") and error.startswith(said) and error.count("\n") == 1


def test_without_a_command_the_help_is_printed(call):
    assert call() == call("--help")
    assert call()[1].startswith("Usage: gradbench data ")


def test_the_table_in_markdown_has_all_digests(call):
    _, out, _ = call("list", "--markdown")
    for source in sources.SOURCES.values():
        assert f"`{short(source.digest)}`" in out and source.licence in out


PAGE = (Path(__file__).parents[2] / "notebooks" / "guide" / "data.md").read_text()


def test_the_page_has_the_table_that_the_command_prints(capsys):
    assert main(["data", "list", "--markdown"]) == 0
    table = PAGE.partition("--markdown -->\n")[2].partition("<!-- the table ends")[0]
    assert capsys.readouterr().out == table


def test_the_digests_on_the_page_are_those_that_are_pinned():
    said = dict(re.findall(r"^    (\w+): as published, digest (\w+)$", PAGE, re.MULTILINE))
    assert said == {name: short(source.digest) for name, source in sources.SOURCES.items()}


def test_the_code_on_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "data.md", "exec"), {})
    assert re.fullmatch(r"[0-9a-f]{16}\n", capsys.readouterr().out)
    for table in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL):
        assert set(tomllib.loads(table)) == {"data"}
