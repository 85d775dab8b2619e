"""Whatever is given to gradbench is taken or refused in a sentence, and no number is another one.

`pytest -m slow -s tests/test_fuzz.py` tries more than 10^5 inputs, and prints what came of them.
"""

import pytest
from fuzz import TARGETS, survived

from gradbench.cli.main import main
from gradbench.core import plugins


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_at_random_are_taken_or_refused(name, tmp_path):
    assert survived(name, TARGETS[name].few, tmp_path).total() == TARGETS[name].few


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_inputs_at_random_are_taken_or_refused(name, tmp_path):
    found = survived(name, TARGETS[name].many, tmp_path)
    print(
        f"\n{name}: {found.total():,} tried, {found['taken']:,} taken, {found['refused']:,} refused"
    )
    assert found.total() == TARGETS[name].many


def test_a_number_that_is_accepted_from_a_damaged_file_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("gradbench.core.atomic.refuse_foreign", lambda *_: None)
    with pytest.raises(AssertionError, match="was read as something else") as caught:
        survived("damaged_results", 1000, tmp_path)
    assert "of 'damaged_results'" in caught.value.__notes__[0]


def test_what_is_no_refusal_is_a_fault(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise KeyError("x")

    monkeypatch.setattr("fuzz.load_suite", broken)
    with pytest.raises(KeyError) as caught:
        survived("suites", 1, tmp_path)
    assert caught.value.__notes__ == ["input 0 of 'suites'"]


def test_more_than_a_hundred_thousand_inputs_are_tried_in_all():
    assert sum(target.many for target in TARGETS.values()) >= 10**5


def test_plugins_of_random_commands_are_forgotten(tmp_path):
    before = plugins.loaded()
    with TARGETS["command_lines"].make(tmp_path):
        assert main(["--plugin", "mine.py", "list", "estimators"]) == 0
        assert plugins.loaded() != before
    assert plugins.loaded() == before
