"""What all tests share: one CPU thread, reproducible examples, and where optional real data is."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import time
import types
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported anywhere: on tensors this small a second thread costs more than it brings.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest

hypothesis.settings.register_profile("robusteval", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("robusteval")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and weights; tests that ask for it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("ROBUSTEVAL_SHARED", default))
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder} has no data; set ROBUSTEVAL_SHARED to run this test")
    return folder


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a stand-in for S3 on this machine, in a process of its own; tests that ask for it may need installing it.

    Its buckets live in memory.
    """
    for package in ("s3fs", "moto.server", "flask"):
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            pytest.skip(f"{package} is not installed; pip install s3fs 'moto[server]' to run the tests of S3")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def bucket(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a new, empty bucket; this process and its children find it, and have an empty home folder."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    settings = {
        "ENDPOINT_URL": s3_endpoint,
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
        "DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    name = f"bucket-{secrets.token_hex(6)}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_endpoint}/{name}", method="PUT")).close()
    return f"s3://{name}"


@pytest.fixture(scope="session")
def imagecorruptions() -> Iterator[Callable[..., Any]]:
    """`imagecorruptions.corrupt` of the published package, with what has died under it since given back.

    It asks for `pkg_resources`, which setuptools dropped, for `numpy.float_` and for a parameter that scikit-image's
    `gaussian` lost. Its OpenCV runs on one thread.
    """
    found = importlib.util.find_spec("imagecorruptions")
    if found is None or found.origin is None:
        pytest.skip("imagecorruptions is not installed; it is the reference of these tests")
    home = Path(found.origin).parent
    stand_in = types.ModuleType("pkg_resources")
    vars(stand_in)["resource_filename"] = lambda _, path: str(home / path)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr("numpy.float_", float, raising=False)
        with pytest.MonkeyPatch.context() as importing:
            importing.setitem(sys.modules, "pkg_resources", stand_in)
            package = importlib.import_module("imagecorruptions")
            functions = importlib.import_module("imagecorruptions.corruptions")
        importlib.import_module("cv2").setNumThreads(1)
        gaussian = importlib.import_module("skimage.filters").gaussian

        def with_channels(image: Any, sigma: Any, multichannel: bool = False, **options: Any) -> Any:
            return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **options)

        patch.setattr(functions, "gaussian", with_channels)
        yield package.corrupt
