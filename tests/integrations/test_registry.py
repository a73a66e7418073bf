"""Kinds that can't be had: their package is broken, or what they need is not installed."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import cloud
from tests.standins.pubsub import TOPIC, Account
from wirechamber.integrations import registry
from wirechamber.integrations.base import InvalidConfig
from wirechamber.integrations.registry import Registry, third_party
from wirechamber.integrations.webhook import Webhook

BLOCKER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "google.auth" or name.startswith("google.auth."):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
"""


class Another(Webhook):
    """Another webhook."""


class Renamed(Webhook):
    """A webhook of another name."""

    kind = "Renamed"


def test_a_broken_package_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{__name__}:"
    points = [
        EntryPoint("gone", "no_such_package:Kind", registry.ENTRY_POINTS),
        EntryPoint("not-one", "builtins:dict", registry.ENTRY_POINTS),
        EntryPoint("good", f"{where}Renamed", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(EntryPoint, "load", lambda self: _load(self.value))
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert [kind.kind for kind in third_party()] == ["Renamed"]


def _load(value: str) -> Any:
    module, _, name = value.partition(":")
    if module == __name__:
        return globals()[name]
    return getattr(__import__(module), name)


def test_what_comes_with_wirechamber_is_replaced_by_nobody() -> None:
    own = Webhook()
    kinds = Registry([own, Another(), Renamed()])
    assert kinds.get("Webhook") is own
    assert [kind.kind for kind in kinds] == ["Webhook", "Renamed"]
    assert kinds.named("RENAMED").kind == "Renamed"
    with pytest.raises(InvalidConfig, match="must be one of Webhook, Renamed"):
        kinds.named("Other")


def test_without_its_extra_a_kind_says_how_to_install_it(tmp_path: Path) -> None:
    with cloud(tmp_path / "data") as live:
        token = live.user("ann")
        client = live.client(token)
        settings = {"integration_type": "GoogleCloudPubSub", "event": "t", "topic": TOPIC}
        made = client.post("/v1/integrations", json=settings | {"credentials": Account().text}).json()["id"]
        live.stop()
        (tmp_path / "sitecustomize.py").write_text(BLOCKER)
        paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
        live.environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        live.start()
        client = live.client(token)
        told = {each["integration_type"]: each for each in client.get("/v1/integrations/kinds").json()["kinds"]}
        assert told["GoogleCloudPubSub"]["installed"] is False
        assert told["GoogleCloudPubSub"]["install"] == 'pip install "google-auth>=2.40"'
        assert told["GoogleMaps"]["installed"] is True
        refused = client.post("/v1/integrations", json=settings)
        assert refused.status_code == 400
        says = 'GoogleCloudPubSub is not installed here; install it with: pip install "google-auth>=2.40"'
        assert says in refused.json()["error"]
        # One that is there already says the same, and everything else works.
        assert client.post(f"/v1/integrations/{made}/test", json={}).json()["error"] == says
        live.environment |= {"WIRECHAMBER_URL": live.url, "WIRECHAMBER_TOKEN": token, "COLUMNS": "200"}
        assert 'no: pip install "google-auth>=2.40"' in live.command("integration", "kinds")
