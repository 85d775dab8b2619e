"""Documents as bags of words: which words, in which order, and counted."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gradbench.suites.datasets.bags import bags

LETTERS = st.text("abcde", min_size=1, max_size=3)
DOCUMENTS = st.lists(
    st.tuples(st.sampled_from(["x", "y"]), st.lists(LETTERS, min_size=1)).map(
        lambda pair: f"{pair[0]}\t{' '.join(pair[1])}"
    ),
    min_size=1,
    max_size=6,
)


def lines(array):
    return bytes(array).decode().split("\n")


def test_the_vocabulary_is_of_the_training_part_by_frequency_and_then_by_letters():
    found = bags(["a\tbank zinc oil oil", "b\tzinc apple"], ["a\toil rose rose rose zinc"])
    assert lines(found["words"]) == ["oil", "zinc", "apple", "bank"]
    assert found["train_inputs"].tolist() == [[2, 1, 0, 1], [0, 1, 1, 0]]
    assert found["test_inputs"].tolist() == [[1, 1, 0, 0]]


def test_classes_are_numbered_by_name():
    found = bags(["trade\toil", "earn\toil", "trade\toil"], ["earn\toil"])
    assert lines(found["classes"]) == ["earn", "trade"]
    assert found["train_targets"].tolist() == [1, 0, 1] and found["test_targets"].tolist() == [0]


def test_function_words_and_single_letters_are_left_out():
    found = bags(["a\tthe u s oil and don t it of which because trade"], [])
    assert lines(found["words"]) == ["oil", "trade"]


def test_only_so_many_words_are_kept():
    found = bags(["a\toil oil trade bank bank"], ["a\ttrade oil"], words=2)
    assert lines(found["words"]) == ["bank", "oil"]
    assert found["test_inputs"].tolist() == [[0, 1]]


@settings(max_examples=30)
@given(train=DOCUMENTS)
def test_counts_are_those_of_the_words_that_are_left(train):
    found = bags(train, train)
    words = lines(found["words"]) if found["words"].size else []
    assert "a" not in words and "be" not in words
    for row, document in zip(found["train_inputs"], train, strict=True):
        counts = Counter(document.partition("\t")[2].split())
        assert row.tolist() == [counts[word] for word in words]
    totals = found["train_inputs"].sum(axis=0)
    assert list(totals) == sorted(totals, reverse=True)
    np.testing.assert_array_equal(found["train_inputs"], found["test_inputs"])
