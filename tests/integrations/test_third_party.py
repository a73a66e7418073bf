"""A kind from a package of its own: built, installed into a fresh environment, and used there by a running cloud."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.cloud import Cloud, Target, eventually

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "wirechamber-ntfy"


def run(*command: object) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with Wirechamber and the example in it.

    What they depend on is lent from this environment; the two themselves are built and installed as wheels.
    """
    folder = tmp_path_factory.mktemp("fresh")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder / "wheels", ROOT, EXAMPLE)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    found = folder / "venv" / "bin" / "python"
    wheels = sorted((folder / "wheels").glob("*.whl"))
    assert len(wheels) == 2
    run(*pip, "--python", found, "install", "--no-deps", "--no-index", *wheels)
    site = folder / "venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    lent = [each for each in sys.path if each.endswith("site-packages")]
    (site / "lent.pth").write_text("\n".join(lent) + "\n")
    return found


def test_the_kind_is_there_and_works(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "executable", str(python))
    assert str(python.parent.parent) in run(python, "-c", "import wirechamber; print(wirechamber.__file__)")
    running = Cloud(tmp_path / "data", retry_schedule="0,0.1")
    try:
        running.start()
        token = running.user("ann")
        client = running.client(token)
        kinds = {each["integration_type"]: each for each in client.get("/v1/integrations/kinds").json()["kinds"]}
        assert kinds["Ntfy"]["secrets"] == ["token"]
        assert kinds["Ntfy"]["schema"]["properties"]["priority"]["enum"] == ["default", "high", "low", "min", "urgent"]
        with Target() as ntfy:
            ntfy.answer = lambda method, path, body: (200, {}, b'{"id":"m1"}')
            running.environment |= {"WIRECHAMBER_URL": running.url, "WIRECHAMBER_TOKEN": token}
            said = running.command(
                "integration", "create", "ntfy", "--event", "alarm", "--topic", "doors", "--server", ntfy.url,
                "--token", "tk_secret", "--json",
            )  # fmt: skip
            made = json.loads(said)
            assert (made["integration_type"], made["token"]) == ("Ntfy", "[[SENSITIVE]]")
            client.post("/v1/devices/events", json={"name": "alarm", "data": "open"})
            eventually(lambda: ntfy.requests)
            ((method, path, headers, body),) = ntfy.requests
            assert (method, path, body) == ("POST", "/doors", b"open")
            assert (headers["Title"], headers["Authorization"]) == ("alarm", "Bearer tk_secret")
            assert "Must be one of min, low, default, high, urgent." in " ".join(
                running.command("integration", "create", "Ntfy", "--help").split()
            )
    finally:
        for each in running.clients:
            each.close()
        if running.process is not None and running.process.poll() is None:
            running.kill()


def test_the_example_has_tests_of_its_own(python: Path) -> None:
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", EXAMPLE, EXAMPLE / "tests")
