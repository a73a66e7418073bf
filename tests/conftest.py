from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.cloud import Cloud, Target, cloud


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names a case by its argument where it is binary: each process must find the same names, whatever gzip notes."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What a command in this process sets up would be written to for ever, long after its output was closed."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Cloud]:
    """A running cloud with a short retry schedule."""
    with cloud(tmp_path / "data", retry_schedule="0,0.1,0.2", answer_deadline="5") as running:
        yield running


@pytest.fixture
def target() -> Iterator[Target]:
    """A place for webhooks to go."""
    with Target() as server:
        yield server


@pytest.fixture(scope="session")
def live_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, str]]:
    """A running cloud and a user's token, for tests that leave nothing behind that matters to others."""
    with cloud(tmp_path_factory.mktemp("shared") / "data", retry_schedule="0,0.1,0.2") as running:
        yield running, running.user("shared")
