"""Data sets like the known ones, but small, and files of them in every format that is read."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image

from gradbench.suites.datasets.bags import bags
from gradbench.suites.datasets.content import Part, digest_of, digest_of_all
from gradbench.suites.datasets.source import Source, bags_of, joined

RNG = np.random.default_rng(0)
GREY = {
    "train_inputs": RNG.integers(0, 256, (30, 5, 4), np.uint8),
    "train_targets": RNG.integers(0, 10, 30, np.uint8),
    "test_inputs": RNG.integers(0, 256, (10, 5, 4), np.uint8),
    "test_targets": RNG.integers(0, 10, 10, np.uint8),
}
BATCHES = [
    (RNG.integers(0, 256, (6, 32, 32, 3), np.uint8), RNG.integers(0, 10, 6, np.uint8))
    for _ in range(3)
]
COLOUR = {
    "train_inputs": np.concatenate([images for images, _ in BATCHES[:2]]),
    "train_targets": np.concatenate([classes for _, classes in BATCHES[:2]]),
    "test_inputs": BATCHES[2][0],
    "test_targets": BATCHES[2][1],
}
TRAIN = ["earn\tthe profit rose and profit fell", "trade\tjapan and u s trade", "earn\tprofit net"]
TEST = ["trade\tjapan profit", "earn\tnothing of it"]
WORDS = bags(TRAIN, TEST)


def part(name, content):
    """The part of a source that a content is."""
    shape = None if isinstance(content, list) else content.shape[1:]
    return Part(name, len(content), shape, digest_of(content))


def source(parts, arrays, make=joined, **more):
    """A source of parts, by name, that makes arrays."""
    known = {"files": {}, "hosts": (), **more}
    return Source(
        title="small",
        licence="none",
        paper="none",
        examples=(len(arrays["train_targets"]), len(arrays["test_targets"])),
        parts=tuple(part(name, content) for name, content in parts.items()),
        digest=digest_of_all(arrays),
        make=make,
        **known,
    )


def small_sources():
    """Small data sets under the names of the known ones that are of their kind."""
    batches = {}
    for name, (images, classes) in zip(("train{}_1", "train{}_2", "test{}"), BATCHES, strict=True):
        batches |= {name.format("_inputs"): images, name.format("_targets"): classes}
    documents = {"train": TRAIN, "test": TEST}
    return {
        "mnist": source(GREY, GREY),
        "cifar10": source(batches, COLOUR),
        "r8": source(documents, WORDS, bags_of),
    }


def topics(train, test, words, classes=4):
    """Made-up documents, each class with words of its own: their source, and files of them."""
    rng, letters = np.random.default_rng(3), "bcdfghjklmnpqrstvwxz"
    vocabulary = [f"{a}{b}{a}" for a in letters for b in letters][:words]
    shares = rng.dirichlet(np.full(words, 0.1), classes)

    def document(kind):
        counts = rng.multinomial(40, 0.9 * shares[kind] + 0.1 / words)
        said = [word for word, n in zip(vocabulary, counts, strict=True) for _ in range(n)]
        return f"class{kind}\t" + " ".join(said)

    parts = {
        name: [document(k % classes) for k in range(size)]
        for name, size in (("train", train), ("test", test))
    }
    parts["train"][0] += " " + " ".join(vocabulary)  # so that all words are known
    files = {f"{name}.txt": tabbed(own) for name, own in parts.items()}
    return source(parts, bags(parts["train"], parts["test"]), bags_of), files


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def channels_first(images):
    return np.moveaxis(images, -1, 1).reshape(len(images), -1)


def binary(images, classes):
    return np.concatenate([classes[:, None], channels_first(images)], axis=1).tobytes()


def batch(images, classes, protocol=2):
    """The pickle that Python 3 writes of a batch."""
    data = {b"labels": classes.tolist(), b"data": channels_first(images), b"batch_label": b"one"}
    return pickle.dumps(data, protocol=protocol)


def published_batch(images, classes):
    """The pickle that Python 2 wrote of a batch, instruction by instruction."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    rows = channels_first(images)
    labels = b"]q\x04(" + b"".join(b"K" + bytes([one]) for one in classes) + b"e"
    kind = b"cnumpy\ndtype\nq\x06" + text(b"u1") + b"K\x00K\x01\x87q\x07Rq\x08"
    kind += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x09b"
    state = b"(K\x01K" + bytes([len(rows)]) + b"M" + struct.pack("<H", 3072) + b"\x86q\x0a" + kind
    state += b"\x89T" + struct.pack("<i", rows.size) + rows.tobytes() + b"tq\x0bb"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x0cK\x00\x85q\x0d"
    array += text(b"b") + b"\x87q\x0eRq\x0f" + state
    items = text(b"batch_label") + text(b"training batch 1 of 5")
    items += text(b"labels") + labels + text(b"data") + array
    return b"\x80\x02}q\x01(" + items + b"u."


def strip(images):
    file = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 1024, 3)).save(file, "PNG")
    return file.getvalue()


def tabbed(documents, header=False):
    head = "Category\tText\nd\tstring\nclass\t\n\t\n" if header else ""
    return (head + "".join(f"{one} \n" for one in documents)).encode()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def lines(first, second, header=""):
    """Comma-separated numbers, those of two arrays in each line."""
    table = np.concatenate([a.reshape(len(first), -1) for a in (first, second)], axis=1)
    end = "\r\n" if header else "\n"
    return (header + "".join(",".join(map(str, row)) + end for row in table)).encode()


def npz(compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def grey_files():
    """The four published files of a data set like MNIST, by gzip, by name."""
    names = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    return {
        f"{name}-ubyte.gz": gzip.compress(idx(array), mtime=0)
        for name, array in zip(names, GREY.values(), strict=True)
    }


def zipped(files, **attributes):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return file.getvalue()


def tarred(files, mode="w:gz", **attributes):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


FORMATS = {  # of each data set, by a description: files by name
    "mnist": {
        "idx": {name: gzip.decompress(data) for name, data in grey_files().items()},
        "idx.gz": grey_files(),
        "npy": {f"{name}.npy": npy(array) for name, array in GREY.items()},
        "npz of Keras": {
            "mnist.npz": npz(
                x_train=GREY["train_inputs"],
                y_train=GREY["train_targets"],
                x_test=GREY["test_inputs"],
                y_test=GREY["test_targets"],
            )
        },
        "npz of flat floats and wide labels": {
            "a.npz": npz(
                compressed=True,
                a=GREY["train_inputs"].reshape(30, 20).astype(np.float32),
                b=GREY["train_targets"].astype(np.int64)[:, None],
                c=np.asfortranarray(GREY["test_inputs"].astype(">i4")),
                d=GREY["test_targets"].astype(np.float64),
            )
        },
        "lines of numbers": {
            "train.csv": lines(GREY["train_targets"], GREY["train_inputs"], "label,1x1,1x2\r\n"),
            "test.csv": lines(GREY["test_inputs"], GREY["test_targets"]),
        },
        "npz of all in one": {
            "a.npz": npz(
                x=np.concatenate([GREY["train_inputs"], GREY["test_inputs"]]),
                y=np.concatenate([GREY["train_targets"], GREY["test_targets"]]),
            )
        },
    },
    "cifar10": {
        "binary": {f"batch_{k}.bin": binary(*one) for k, one in enumerate(BATCHES)},
        "published batches": {f"batch_{k}": published_batch(*b) for k, b in enumerate(BATCHES)},
        **{
            f"batches of protocol {p}": {f"b_{k}": batch(*b, p) for k, b in enumerate(BATCHES)}
            for p in (2, 3, 4)
        },
        "strips": {
            **{f"batch_{k}.png": strip(images) for k, (images, _) in enumerate(BATCHES)},
            "train_labels.json": json.dumps(COLOUR["train_targets"].tolist()).encode(),
            "test_labels.json": json.dumps(COLOUR["test_targets"].tolist(), indent=1).encode(),
        },
        "npz with channels first": {
            "a.npz": npz(
                x_train=np.moveaxis(COLOUR["train_inputs"], -1, 1),
                y_train=COLOUR["train_targets"][:, None],
                x_test=COLOUR["test_inputs"],
                y_test=COLOUR["test_targets"],
            )
        },
    },
    "r8": {
        "text": {"train.txt": tabbed(TRAIN), "test.txt": tabbed(TEST)},
        "text of Windows": {
            "train.txt": tabbed(TRAIN).replace(b"\n", b"\r\n"),
            "test.txt": tabbed(TEST).replace(b"\n", b"\r\n"),
        },
        "text for Orange": {"a.tab": tabbed(TRAIN, True), "b.tab": tabbed(TEST, True)},
    },
}
