"""Documents as bags of words, in the way of semantic hashing.

The words of a document are those of at least two letters that are not function words of English, as
they stand: nothing is stemmed. The vocabulary is the most frequent ones of the documents to train
with, those used equally often in alphabetical order. Source: Salakhutdinov & Hinton 2009, Semantic
hashing, which also removes common words and takes the 2000 most frequent ones, of words that are
stemmed.
"""

from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDS = 2000
# Articles, pronouns, prepositions, conjunctions, auxiliaries and what is left of contractions.
_FUNCTION = Path(__file__).with_name("function_words.txt")


def bags(train: Sequence[str], test: Sequence[str], words: int = WORDS) -> dict[str, NDArray[Any]]:
    """Return the arrays of documents to train and to test with.

    Args:
        train: the documents, each as its class, a tab and its words.
        test: the same of the others.
        words: the size of the vocabulary, at most.

    Returns:
        ``train_inputs`` [n, words] are counts, and ``train_targets`` [n] the numbers of classes in
        alphabetical order; ``test_inputs`` and ``test_targets`` are the same.
        ``words`` has the vocabulary and ``classes`` the names, as the bytes of text with one a
        line.
    """
    parts = [[document.partition("\t") for document in part] for part in (train, test)]
    classes = sorted({name for name, _, _ in parts[0]})
    left_out = frozenset(_FUNCTION.read_text().split())
    texts = [[_words(text, left_out) for _, _, text in part] for part in parts]
    counts = Counter(word for text in texts[0] for word in text)
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))[:words]
    found: dict[str, NDArray[Any]] = {"words": _text(vocabulary), "classes": _text(classes)}
    for name, part, own in zip(("train", "test"), parts, texts, strict=True):
        found[f"{name}_inputs"] = _counted(own, vocabulary)
        numbers = [classes.index(kind) for kind, _, _ in part]
        found[f"{name}_targets"] = np.array(numbers, np.uint8)
    return found


def _words(text: str, left_out: Set[str]) -> list[str]:
    return [word for word in text.split() if len(word) > 1 and word not in left_out]


def _counted(texts: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> NDArray[np.uint16]:
    column = {word: number for number, word in enumerate(vocabulary)}
    found = np.zeros((len(texts), len(vocabulary)), "<u2")
    for row, text in zip(found, texts, strict=True):
        for word, count in Counter(text).items():
            if word in column:
                row[column[word]] = min(count, 2**16 - 1)
    return found


def _text(lines: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\n".join(lines).encode(), np.uint8)
