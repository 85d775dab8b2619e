"""The training of a problem: interrupted anywhere, it goes on and ends in the same bits."""

import jax
import numpy as np
import pytest
import tiny

from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.precision import float64
from gradbench.results.store import Results
from gradbench.suites import checkpoints, train
from gradbench.suites.instance import build
from gradbench.suites.read_problem import load_problem
from gradbench.suites.runner import run
from gradbench.suites.workers.drive import _Cells

PROBLEM = tiny.changed(
    tiny.PROBLEM,
    ('estimator = "reinforce"', 'estimator = "reinforce"\noptimiser = "adam"'),
    ("checkpoints = [0, 10]", "checkpoints = [0, 3, 10]"),
)
SUITE = tiny.changed(tiny.SUITE, ('"arm", "straight_through", "psa"', '"psa"'))
SAVES = 10  # of an undisturbed training: one after each epoch


@pytest.fixture(autouse=True)
def after_every_epoch(monkeypatch):
    """States are saved after every epoch."""
    monkeypatch.setattr(train, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(train, "CALL_SECONDS", 0.0)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("suite"), SUITE, tiny=PROBLEM)


@pytest.fixture(scope="module")
def undisturbed(suite):
    return quietly(suite, suite.parent / "results")


def quietly(suite, out, **options):
    return run(suite, out, progress=False, **options).directory


def bits(directory):
    """All parameters that are stored, and all draws."""
    folder = directory / "checkpoints"
    files = {path.name: path.read_bytes() for path in folder.rglob("*.npz")}
    assert len(files) == 3
    return files, tiny.numbers(directory)


def interrupted(suite, out, monkeypatch, saves, **options):
    """Run until so many states are saved; return the epochs of those that are."""
    honest, saved = checkpoints._save, []

    def save(results, built, state):
        if len(saved) == saves:
            raise KeyboardInterrupt
        honest(results, built, state)
        saved.append(state.epoch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "_save", save)
        quietly(suite, out, **options)
    return saved


def begun(monkeypatch):
    """A list that gets the first epoch of every call of the training."""
    honest, first = train._epochs, []

    def epochs(*arguments):
        first.append(int(arguments[-2]))
        return honest(*arguments)

    monkeypatch.setattr(train, "_epochs", epochs)
    return first


def test_states_on_the_way_lead_to_the_same_bits(suite):
    with float64():
        built = build(load_problem(suite.parent / "tiny.toml"))
        states = []
        whole = dict(built.trained(save=states.append))
        assert [state.epoch for state in states] == list(range(1, SAVES + 1))
        for state in states[::3]:
            later = dict(built.trained(resumed=state))
            assert list(later) == [epoch for epoch in whole if epoch > state.epoch]
            for epoch, params in later.items():
                for a, b in zip(*map(jax.tree.leaves, (params, whole[epoch])), strict=True):
                    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("saves", [3, 1, 8])
@pytest.mark.first(1)
def test_an_interrupted_training_goes_on(suite, undisturbed, tmp_path, monkeypatch, saves):
    assert interrupted(suite, tmp_path, monkeypatch, saves) == list(range(1, saves + 1))
    first = begun(monkeypatch)
    quietly(suite, tmp_path)
    assert first == list(range(saves, SAVES))
    assert bits(tmp_path) == bits(undisturbed)
    assert not (tmp_path / "unfinished").exists()


@pytest.mark.slow
def test_workers_go_on_with_it_too(suite, undisturbed, tmp_path, monkeypatch):
    honest, sent = _Cells.job, []

    def job(self, what):
        found = honest(self, what)
        sent.append([path for path, _ in found.files])
        return found

    monkeypatch.setattr(_Cells, "job", job)
    interrupted(suite, tmp_path, monkeypatch, 4)
    quietly(suite, tmp_path, workers=1)
    assert "unfinished/tiny/0/training.npz" in sent[0]
    assert bits(tmp_path) == bits(undisturbed)
    assert not (tmp_path / "unfinished").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def of_another_seed(path):
    results = path.parents[3]
    path.write_bytes((results / "other" / path.relative_to(results)).read_bytes())


@pytest.mark.parametrize("harm", [cut, of_another_seed])
@pytest.mark.first(1)
def test_a_state_that_is_damaged_or_of_another_run_is_begun_anew(
    suite, undisturbed, tmp_path, monkeypatch, capsys, harm
):
    out = tmp_path / "results"
    interrupted(suite, out, monkeypatch, 5)
    interrupted(suite, out / "other", monkeypatch, 7, seed=1)
    harm(out / "unfinished" / "tiny" / "0" / "training.npz")
    first = begun(monkeypatch)
    quietly(suite, out)
    assert first[0] == 0
    assert "it is begun anew" in capsys.readouterr().err
    assert bits(out) == bits(undisturbed)


@pytest.mark.slow
def test_a_training_that_has_gone_past_a_lost_checkpoint_is_begun_anew(
    suite, undisturbed, tmp_path, monkeypatch
):
    interrupted(suite, tmp_path, monkeypatch, 5)
    (tmp_path / "checkpoints" / "tiny" / "0" / "epoch%203.npz").unlink()
    first = begun(monkeypatch)
    quietly(suite, tmp_path)
    assert first[0] == 0
    assert bits(tmp_path) == bits(undisturbed)


def test_a_full_disk_on_the_way_is_told_and_the_training_goes_on(
    suite, undisturbed, tmp_path, monkeypatch
):
    honest = Results.write

    def write(self, path, data):
        if path.name == "training.npz":
            raise GradbenchError("the disk is full; free some space")
        honest(self, path, data)

    monkeypatch.setattr(Results, "write", write)
    with pytest.warns(GradbenchWarning, match="the disk is full.*; the training goes on"):
        quietly(suite, tmp_path)
    assert bits(tmp_path) == bits(undisturbed)
