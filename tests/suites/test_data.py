import subprocess
import sys

import numpy as np
import pytest

from gradbench.core.errors import GradbenchError
from gradbench.suites.data import check_data, load_data


@pytest.fixture(scope="module")
def plane():
    return load_data("overlapping_classes", {"points": 20000})


def test_half_of_the_points_are_of_each_class(plane):
    inputs, targets = plane
    assert inputs.shape == (20000, 2) and inputs.dtype == np.float64
    assert np.sum(targets == 1) == np.sum(targets == -1) == 10000
    _, few = load_data("overlapping_classes", {"points": 3})
    assert sorted(few) == [-1, -1, 1]


def test_class_plus_one_is_uniform_on_its_rectangle(plane):
    x1, x2 = plane.inputs[plane.targets == 1].T
    assert np.abs(x1).max() <= np.pi / 2
    assert np.abs(x2 - 0.5).max() <= 0.5
    # Shares of four parts of 10000 points: 6 standard deviations are 0.03.
    for low in (x1 < 0, x2 < 0.5, (x1 < 0) == (x2 < 0.5)):
        assert abs(low.mean() - 0.5) < 0.03


def test_class_minus_one_is_uniform_below_the_cosine(plane):
    x1, x2 = plane.inputs[plane.targets == -1].T
    assert np.all(x2 < np.cos(x1)) and x2.min() >= -1
    # The area is pi + 2, of which pi lies below the axis and half left of it; 6 s.d. are 0.03.
    assert abs((x2 < 0).mean() - np.pi / (np.pi + 2)) < 0.03
    assert abs((x1 < 0).mean() - 0.5) < 0.03
    # Of the part above the axis, sqrt(1/2) has abs(x1) < pi/4; 3900 points, 6 s.d. are 0.044.
    assert abs((np.abs(x1[x2 > 0]) < np.pi / 4).mean() - np.sqrt(0.5)) < 0.044


def test_the_classes_overlap_where_both_have_points(plane):
    inputs, targets = plane
    both = (inputs[:, 1] > 0) & (inputs[:, 1] < np.cos(inputs[:, 0]))
    assert min(np.sum(both & (targets == 1)), np.sum(both & (targets == -1))) > 3000


def test_the_classes_are_mixed_along_the_batch(plane):
    first = plane.targets[:10000]
    assert 4700 < np.sum(first == 1) < 5300  # 6 s.d. are 300


# The others have to be brought to the machine first, see test_known_data.py.
MADE = ("binary_digits", "digits", "nothing", "overlapping_classes", "quadratic_form", "topics")


@pytest.mark.parametrize("name", MADE)
def test_the_same_names_give_the_same_data_whatever_the_global_state(name):
    np.random.seed(1)
    one = load_data(name, seed=3)
    np.random.seed(2)
    np.random.random(5)
    two = load_data(name, seed=3)
    np.testing.assert_array_equal(one.inputs, two.inputs)
    np.testing.assert_array_equal(one.targets, two.targets)


@pytest.mark.slow
def test_another_process_makes_the_same_data():
    code = (
        "from gradbench.suites.data import load_data;"
        "print(load_data('overlapping_classes', seed=5).inputs[0].tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = load_data("overlapping_classes", seed=5).inputs[0].tolist()
    assert other.stdout.strip() == str(here)


def test_another_seed_or_replicate_makes_other_points():
    inputs = [
        load_data("overlapping_classes", seed=seed, replicate=replicate).inputs
        for seed, replicate in [(0, 0), (1, 0), (0, 1), (1, 1)]
    ]
    firsts = {tuple(points[0]) for points in inputs}
    assert len(firsts) == 4


def test_digits_are_grey_values_in_the_unit_interval_with_ten_classes():
    train, test = load_data("digits"), load_data("digits", {"split": "test"})
    assert train.inputs.shape == (1297, 64) and test.inputs.shape == (500, 64)
    for inputs, targets in (train, test):
        assert inputs.min() == 0 and inputs.max() == 1 and inputs.dtype == np.float64
        assert np.issubdtype(targets.dtype, np.integer)
        np.testing.assert_array_equal(np.unique(targets), np.arange(10))


def test_the_splits_of_the_digits_share_no_image_and_lose_none():
    from sklearn.datasets import load_digits

    parts = [load_data("digits", {"split": split}).inputs for split in ("train", "test")]
    rows = sorted(map(tuple, np.concatenate(parts) * 16))
    assert rows == sorted(map(tuple, load_digits().data))


def test_the_split_of_the_digits_depends_on_no_seed():
    one, two = (
        load_data("digits", {"split": "test"}, seed=seed, replicate=seed) for seed in (0, 7)
    )
    np.testing.assert_array_equal(one.inputs, two.inputs)
    # Pinned: a library that shuffles in another way would silently change every measurement.
    assert one.targets[:12].tolist() == [6, 9, 3, 5, 4, 0, 2, 4, 9, 5, 1, 8]


def test_fewer_digits_are_the_first_of_the_split():
    few, all_ = (
        load_data("digits", {"split": "test", "examples": 256}),
        load_data("digits", {"split": "test"}),
    )
    np.testing.assert_array_equal(few.inputs, all_.inputs[:256])
    assert len(np.unique(few.targets)) == 10


@pytest.mark.parametrize("split", ["train", "test"])
def test_binary_digits_are_those_of_the_split_above_half_of_the_scale(split):
    arguments = {"split": split, "examples": 100}
    grey, (inputs, targets) = load_data("digits", arguments), load_data("binary_digits", arguments)
    np.testing.assert_array_equal(inputs, np.where(grey.inputs * 16 > 8, 1, -1))
    assert inputs.dtype == np.float64 and 0.2 < np.mean(inputs == 1) < 0.5
    np.testing.assert_array_equal(targets, inputs)


def test_topics_are_counts_of_words_that_sum_to_the_length_of_a_document():
    inputs, counts = load_data("topics", {"documents": 50, "words": 12, "length": 33})
    assert inputs.shape == counts.shape == (50, 12) and counts.dtype == np.float64
    np.testing.assert_array_equal(counts, np.round(counts))
    assert counts.min() == 0 and (counts.sum(axis=1) == 33).all()
    np.testing.assert_array_equal(inputs, np.log1p(counts))


def test_documents_mix_two_topics_of_four():
    """Long documents lie on lines between four points: their shares of words have rank four."""
    _, counts = load_data("topics", {"documents": 300, "words": 20, "length": 10**6})
    values = np.linalg.svd(counts / 10**6, compute_uv=False)
    assert values[3] > 0.3 and values[4] < 0.05  # noise: about sqrt(300 / 10^6)


def test_the_smallest_topics_are_data():
    inputs, counts = load_data("topics", {"documents": 1, "words": 1, "length": 1})
    assert counts.tolist() == [[1.0]] and np.isfinite(inputs).all()


def test_another_seed_makes_other_topics():
    one, two = (load_data("topics", {"documents": 5}, seed=seed).targets for seed in (0, 1))
    assert (one != two).any()


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("digit", {}, "unknown data set 'digit'; did you mean 'digits'?"),
        ("digits", {"splt": 1}, "'digits' has no argument 'splt'; did you mean 'split'?"),
        ("digits", {"rng": 1}, "'digits' has no argument 'rng'; choose one of examples, split"),
        ("digits", {"split": "tst"}, "got split = 'tst'; did you mean 'test'?"),
        ("digits", {"split": [1]}, r"got split = \[1\]; choose one of test, train"),
        ("digits", {"examples": 0}, "got examples = 0; give a whole number from 1"),
        ("digits", {"examples": True}, "got examples = True; give a whole number from 1"),
        ("overlapping_classes", {"points": None}, "got points = None; give a whole number"),
        ("overlapping_classes", {"points": 10**12}, "from 1 to 10000000"),
        ("binary_digits", {"split": "tets"}, "got split = 'tets'; did you mean 'test'?"),
        ("topics", {"documents": 0}, "got documents = 0; give a whole number from 1"),
        ("topics", {"topics": 3}, "no argument 'topics'; choose one of documents, length, words"),
    ],
)
def test_unknown_names_and_unfit_arguments_are_refused_in_one_sentence(name, arguments, sentence):
    with pytest.raises(GradbenchError, match=sentence):
        check_data(name, arguments)


def test_more_digits_than_there_are_is_refused():
    with pytest.raises(GradbenchError, match="test split of the digits has 500 examples, not 501"):
        load_data("digits", {"split": "test", "examples": 501})


def test_numbers_of_numpy_give_the_same_data_as_those_of_python():
    points, seed = np.int32(4), np.int64(3)
    one = load_data("overlapping_classes", {"points": points}, seed=seed)
    two = load_data("overlapping_classes", {"points": 4}, seed=3)
    np.testing.assert_array_equal(one.inputs, two.inputs)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", True, np.True_, np.int64(-1), np.float64(0)])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(GradbenchError, match="give a whole number of at least 0"):
        load_data("digits", seed=seed)
