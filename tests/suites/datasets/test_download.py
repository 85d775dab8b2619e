"""Downloads from a server on this machine: right, wrong, broken and too large."""

import gc
import gzip
import hashlib
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from small_data import GREY, grey_files, idx, small_sources, source

from gradbench.core.errors import GradbenchError
from gradbench.suites import datasets
from gradbench.suites.datasets import download, sources
from gradbench.suites.datasets.cache import data_folder, entry

# Of a connection that breaks, requests leaves the socket to the collection of garbage.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def collected():
    yield
    gc.collect()


@pytest.fixture
def server():
    """A server of files by their paths; ``broken`` of them end early so many times."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            held = self.server
            held.asked[self.path] += 1
            content = held.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if held.broken[self.path] > 0:
                held.broken[self.path] -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.files = {f"/a/{name}": content for name, content in grey_files().items()}
    running.asked, running.broken = Counter(), Counter()
    running.host = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(autouse=True)
def published(server, tmp_path, monkeypatch):
    """A small MNIST that is published on the server, and a cache of its own."""
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the tries of pooch
    sums = {name: hashlib.md5(content).hexdigest() for name, content in grey_files().items()}
    small = source(GREY, GREY, files=sums, hosts=(f"{server.host}/gone/", f"{server.host}/a/"))
    monkeypatch.setitem(sources.SOURCES, "mnist", small)


def left():
    """The files that a download has left, but for locks."""
    return [p for p in data_folder().rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_the_next_host_is_asked_where_one_has_no_file(server):
    assert datasets.get("mnist", progress=False) == entry("mnist")
    assert datasets.verify("mnist") is None and left() == [entry("mnist")]
    assert all(server.asked[path] == 1 for path in server.files)


def test_what_is_here_is_not_downloaded_again(server):
    datasets.get("mnist", progress=False)
    before = sum(server.asked.values())
    datasets.get("mnist", progress=False)
    assert sum(server.asked.values()) == before
    entry("mnist").write_bytes(b"damaged")
    datasets.get("mnist", progress=False)
    assert datasets.verify("mnist") is None


def test_what_an_interrupted_download_left_is_removed(server):
    datasets.get("mnist", progress=False)
    left, other = (data_folder() / "downloads" / name for name in ("mnist", "cifar10"))
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"half")
    datasets.get("mnist", progress=False)
    assert not left.exists() and other.exists()


def test_a_connection_that_breaks_is_tried_again(server):
    server.broken["/a/train-images-ubyte.gz"] = download.RETRIES
    datasets.get("mnist", progress=False)
    assert server.asked["/a/train-images-ubyte.gz"] == download.RETRIES + 1
    assert datasets.verify("mnist") is None


def test_a_file_with_another_sum_is_refused_and_nothing_is_added(server):
    server.files["/a/train-labels-ubyte.gz"] = gzip.compress(idx(GREY["train_targets"] ^ 1))
    with pytest.raises(GradbenchError) as error:
        datasets.get("mnist", progress=False)
    assert "does not match the known hash" in str(error.value)
    assert "gradbench data add mnist PATH" in str(error.value)
    assert not entry("mnist").exists()
    assert not [path for path in left() if "labels" in path.name and "train" in path.name]


def test_files_that_were_downloaded_stay_for_the_next_try(server):
    path = "/a/t10k-labels-ubyte.gz"
    server.broken[path] = 100
    with pytest.raises(GradbenchError, match="cannot download the data set 'mnist'"):
        datasets.get("mnist", progress=False)
    server.broken[path] = 0
    datasets.get("mnist", progress=False)
    assert server.asked["/a/train-images-ubyte.gz"] == 1 and datasets.verify("mnist") is None


def test_documents_have_no_published_sum_but_a_digest(server, monkeypatch):
    small = small_sources()["r8"]
    files = {"train.txt": None, "test.txt": None}
    published = {"files": files, "hosts": (f"{server.host}/a/",)}
    monkeypatch.setitem(sources.SOURCES, "r8", small.__class__(**vars(small) | published))
    texts = {"train.txt": b"earn\tother words\n", "test.txt": b"trade\tno\n"}
    server.files |= {f"/a/{name}": content for name, content in texts.items()}
    with pytest.raises(GradbenchError, match="nothing is added"):
        datasets.get("r8", progress=False)
    assert not entry("r8").exists()


def test_a_server_that_sends_without_end_is_left(server, monkeypatch):
    monkeypatch.setattr(download, "_MOST", 2**18)
    server.files["/a/train-images-ubyte.gz"] = bytes(2**20)
    with pytest.raises(GradbenchError, match="it is larger than 262144 bytes"):
        datasets.get("mnist", progress=False)
    assert not entry("mnist").exists()


@pytest.mark.slow
def test_a_machine_without_a_network_is_told_what_to_type(server, monkeypatch):
    small = sources.SOURCES["mnist"]
    closed = {"hosts": ("http://127.0.0.1:9/",)}
    monkeypatch.setitem(sources.SOURCES, "mnist", small.__class__(**vars(small) | closed))
    with pytest.raises(GradbenchError, match="give the files by 'gradbench data add mnist PATH'"):
        datasets.get("mnist", progress=False)
