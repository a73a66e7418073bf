"""What ends all tokens ends those, too, that were asked for before and come after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.backends import run
from wirechamber.clock import SystemClock
from wirechamber.secrets import Vault
from wirechamber.services.access import Access, InvalidGrant
from wirechamber.services.grants import Grants
from wirechamber.settings import Settings
from wirechamber.store.sqlite import open_sqlite_store


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Access, Grants]]:
    clock = SystemClock()
    async with open_sqlite_store(folder, Vault.open(folder), clock=clock) as store:
        access = Access(store, clock, Settings())
        yield access, Grants(store, access, clock)


def test_a_login_that_was_under_way_while_the_password_changed_brings_no_token(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as (access, grants):
            ann = await access.create_user("ann", "correct horse")
            looked_at = await access.verify("ann", "correct horse", "127.0.0.1")
            await access.set_password(ann, "battery staple")
            with pytest.raises(InvalidGrant):
                await grants.log_in(looked_at, "particle", None, None, None)
            assert await access.tokens_of(ann.id) == []
            again = await access.verify("ann", "battery staple", "127.0.0.1")
            assert (await grants.log_in(again, "particle", None, None, None)).refresh

    run(work())


def test_a_login_through_a_client_that_is_removed_meanwhile_brings_none(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as (access, grants):
            ann = await access.create_user("ann", "correct horse")
            client, _ = await grants.register(ann.id, "mine", "installed", None, None)
            await grants.unregister(ann.id, client.id)
            with pytest.raises(InvalidGrant):
                await grants.log_in(ann, client.id, None, None, client)
            assert await access.tokens_of(ann.id) == []

    run(work())
