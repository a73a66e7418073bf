from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cloud import cloud
from tests.gateway.town import Town


@pytest.fixture(scope="session")
def shared_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One cloud for all tests that leave nothing behind that matters to others: each has devices of its own."""
    folder = tmp_path_factory.mktemp("town") / "data"
    with cloud(folder, provisioning="true", publish_rate="1000", publish_burst="1000") as running:
        yield Town(running)


@pytest.fixture
def town(shared_town: Town) -> Iterator[Town]:
    """The shared cloud; what a test connects to it is closed after it."""
    yield shared_town
    shared_town.leave()
