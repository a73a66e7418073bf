"""What every store must do, whatever keeps it: written against `Store`, run against each backend."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.contract.backends import STORES, StoreOpener, run
from tests.contract.links import a_session
from tests.delivery.builders import NOW, OWNER, a_delivery, an_attempt, an_integration
from wirechamber.errors import Conflict, NotFound
from wirechamber.model.accounts import OAuthClient, RefreshToken, Token, User
from wirechamber.model.deliveries import DayCount, Settlement, Standing, Step
from wirechamber.model.devices import Device
from wirechamber.model.links import CameOnline, Greeted
from wirechamber.model.times import day
from wirechamber.store.base import AttemptFilter, DeviceFilter, Retention

DAY = 86_400_000


@pytest.fixture(params=STORES)
def opener(request: pytest.FixtureRequest) -> StoreOpener:
    return STORES[request.param]


def a_user(name: str = "ann", **rest: Any) -> User:
    fields: dict[str, Any] = {"id": f"id-{name}", "name": name, "password": "$argon2id$…", "created_at": NOW}
    return User(**(fields | rest))


def a_token(number: int = 0, **rest: Any) -> Token:
    fields: dict[str, Any] = {
        "digest": bytes([number]) * 32, "user": "id-ann", "hint": "abc123", "client": "particle",
        "scopes": ("*",), "created_at": NOW + number,
    }  # fmt: skip
    return Token(**(fields | rest))


def a_device(number: int = 0, **rest: Any) -> Device:
    fields: dict[str, Any] = {"id": f"{number:024x}", "created_at": NOW + number, "owner": "id-ann"}
    return Device(**(fields | rest))


def test_users(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            ann = a_user("Ann", account_info={"first_name": "Añn", "n": [1, None]})
            await store.users.add(ann)
            await store.users.add(a_user("bob"))
            with pytest.raises(Conflict):
                await store.users.add(a_user("aNN", id="id-other"))
            assert await store.users.get("id-Ann") == ann
            assert await store.users.by_name("ANN") == ann
            assert await store.users.by_name("an") is None
            assert [user.name for user in await store.users.all()] == ["Ann", "bob"]
            with pytest.raises(Conflict):
                await store.users.update(structs.replace(ann, name="BOB"))
            with pytest.raises(NotFound):
                await store.users.update(a_user("nobody"))
            await store.users.update(structs.replace(ann, name="anna"))
        async with opener(tmp_path) as store:
            assert await store.users.by_name("ann") is None
            assert await store.users.by_name("anna") == structs.replace(ann, name="anna")

    run(work())


def test_a_user_goes_with_everything_but_devices(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user("ann"))
            await store.tokens.add(a_token())
            await store.devices.add(a_device(1, name="lamp"))
            await store.integrations.add(an_integration("temp", owner="id-ann"))
            await store.deliveries.settle(Settlement(upsert=(a_delivery(),), attempts=(an_attempt(),)))
            assert await store.users.remove("id-ann")
            assert not await store.users.remove("id-ann")
            assert await store.tokens.by_digest(a_token().digest) is None
            assert await store.integrations.of_owner("id-ann") == []
            assert await store.deliveries.get("delivery-0") is None
            assert await store.deliveries.attempts("hook-temp", AttemptFilter(), 10) == []
            device = await store.devices.get(f"{1:024x}")
            assert device is not None
            assert device.owner is None

    run(work())


def test_tokens(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user("ann"))
            await store.users.add(a_user("bob"))
            tokens = [a_token(n, scopes=("devices:list", "events:get"), expires_at=NOW + n * DAY) for n in range(3)]
            for token in tokens:
                await store.tokens.add(token)
            await store.tokens.add(a_token(9, user="id-bob", expires_at=None))
            assert await store.tokens.by_digest(tokens[1].digest) == tokens[1]
            assert await store.tokens.by_digest(b"\0" * 31) is None
            assert await store.tokens.of_user("id-ann") == tokens[::-1]
            assert await store.tokens.remove_expired(NOW + DAY + 1) == 2
            assert await store.tokens.of_user("id-ann") == [tokens[2]]
            assert await store.tokens.remove(tokens[2].digest)
            assert not await store.tokens.remove(tokens[2].digest)
            assert await store.tokens.remove_all("id-ann") == 0
            assert await store.tokens.remove_all("id-bob") == 1

    run(work())


def test_devices(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user("ann"))
            await store.users.add(a_user("bob"))
            lamp = a_device(
                1, name="Lamp", notes="ünder the desk", platform_id=12, product_id=12, serial_number="S1",
            )  # fmt: skip
            await store.devices.add(lamp)
            assert await store.devices.get(lamp.id) == lamp
            assert await store.devices.by_name("id-ann", "lAMP") == lamp
            assert await store.devices.by_name("id-bob", "lamp") is None
            for known in (a_device(1), a_device(2, name="LAMP")):
                with pytest.raises(Conflict):
                    await store.devices.add(known)
            await store.devices.add(a_device(2, name="lamp", owner="id-bob"))
            await store.devices.add(a_device(3))
            with pytest.raises(Conflict):
                await store.devices.update(a_device(3, name="lamp"))
            with pytest.raises(NotFound):
                await store.devices.update(a_device(4))
            await store.devices.update(a_device(3, name="fan"))
            assert await store.devices.by_name("id-ann", "fan") == a_device(3, name="fan")
            assert await store.devices.remove(lamp.id)
            assert not await store.devices.remove(lamp.id)

    run(work())


def test_a_free_device_is_claimed_by_one(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            names = [f"user{number}" for number in range(8)]
            for name in names:
                await store.users.add(a_user(name))
            await store.devices.add(a_device(1, owner=None))
            claims = [store.devices.claim(f"{1:024x}", f"id-{name}") for name in names]
            owners = {device.owner for device in await asyncio.gather(*claims) if device is not None}
            assert len(owners) == 1
            assert await store.devices.claim("f" * 24, "id-user1") is None

    run(work())


def test_devices_are_listed_in_pages(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user("ann"))
            await store.users.add(a_user("bob"))
            for number in range(10):
                await store.devices.add(a_device(number, name=f"Room_{number}"))
            for number in range(3):
                connected = a_session(number, device=f"{number:024x}")
                at = NOW + 10 - number
                await store.links.apply(
                    [Greeted(device=f"{number:024x}", at=at, address="::1 5684", session=connected)]
                )
                if number:
                    await store.links.apply([CameOnline(f"{number:024x}", at, "::1 5684")])
            await store.devices.add(a_device(50, owner="id-bob", name="room_1"))
            await store.devices.add(a_device(51, owner=None))
            found, total = await store.devices.find(DeviceFilter(owner="id-ann"), limit=4)
            assert total == 10
            assert [device.name for device in found] == ["Room_0", "Room_1", "Room_2", "Room_9"]
            rest, total = await store.devices.find(DeviceFilter(owner="id-ann"), limit=40, offset=4)
            assert (len(rest), total) == (6, 10)
            # A part of the name, taken as it is: no pattern.
            for part, count in (("oom_1", 1), ("ROOM", 10), ("%", 0), ("m_", 10), ("mx1", 0)):
                found, total = await store.devices.find(DeviceFilter(owner="id-ann", name=part))
                assert len(found) == total == count, part
            assert (await store.devices.find(DeviceFilter()))[1] == 12
            for online, names in ((True, ["Room_1", "Room_2"]), (False, ["Room_0", "Room_9", "Room_8"])):
                found, _ = await store.devices.find(DeviceFilter(owner="id-ann", online=online), limit=3)
                assert [device.name for device in found] == names

    run(work())


def test_integrations_and_their_changes(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user("ann", id=OWNER))
            before = store.revision()
            record = an_integration(
                "temp", name="Añ", secrets={"auth.password": "s3cr3t"}, settings={"json": {"a": [1, None, "{{x}}"]}},
                since="7", device="a" * 24,
            )  # fmt: skip
            stored = await store.integrations.add(record)
            assert stored.revision == store.revision() > before
            assert structs.replace(stored, revision=0) == record
            assert await store.integrations.get(record.id) == stored
            second = await store.integrations.add(an_integration("hum", created_at=NOW + 1))
            assert await store.integrations.of_owner(OWNER) == [stored, second]
            assert await store.integrations.of_owner("other") == []
            changes = await store.integrations.changes(stored.revision)
            assert (list(changes.changed), list(changes.removed)) == ([second], [])
            edited = await store.integrations.update(structs.replace(stored, disabled=True, paused="why"))
            assert edited.revision > second.revision
            with pytest.raises(NotFound):
                await store.integrations.update(an_integration("none"))
            assert await store.integrations.remove(second.id)
            assert not await store.integrations.remove(second.id)
            changes = await store.integrations.changes(second.revision)
            assert (list(changes.changed), list(changes.removed)) == ([edited], [second.id])
            assert changes.revision == store.revision()
            everything = await store.integrations.changes(0)
            assert list(everything.changed) == [edited]

    run(work())


def test_secrets_are_unreadable_in_the_files(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user("ann", id=OWNER))
            await store.integrations.add(an_integration(secrets={"auth.password": "pink elephants"}))
        async with opener(tmp_path) as store:
            record = await store.integrations.get("hook-temp")
            assert record is not None
            assert record.secrets == {"auth.password": "pink elephants"}

    run(work())
    for file in tmp_path.iterdir():
        assert b"pink elephants" not in file.read_bytes(), file


def test_the_tokens_of_a_user_are_bounded(opener: StoreOpener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirechamber.store.sqlite.accounts.MAX_TOKENS", 3)

    async def work() -> None:
        async with opener(tmp_path) as store:
            for name in ("ann", "bob"):
                await store.users.add(a_user(name))
            await store.tokens.add(a_token(9, user="id-bob"))
            lasting = a_token(0)
            for token in (lasting, *(a_token(number, expires_at=NOW + number) for number in range(1, 6))):
                await store.tokens.add(token)
            # Those that would end first have gone; what nobody counts on to end, and others', stay.
            assert [token.digest[0] for token in await store.tokens.of_user("id-ann")] == [5, 4, 0]
            assert len(await store.tokens.of_user("id-bob")) == 1
            assert await store.tokens.remove_all("id-ann", keep=lasting.digest) == 2
            assert [token.digest[0] for token in await store.tokens.of_user("id-ann")] == [0]

    run(work())


def a_refresh_token(number: int = 0, **rest: Any) -> RefreshToken:
    fields: dict[str, Any] = {
        "digest": bytes([100 + number]) * 32, "family": "f", "user": "id-ann", "client": "particle", "scopes": ("*",),
        "life": DAY, "created_at": NOW + number, "expires_at": NOW + number + 15 * DAY,
    }  # fmt: skip
    return RefreshToken(**(fields | rest))


def test_refresh_tokens(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user())
            tokens = [a_token(number, family="f") for number in range(3)]
            again = [a_refresh_token(number, scopes=("events:get", "devices:*")) for number in range(3)]
            await store.tokens.add(tokens[0], again[0])
            other = a_token(9, family="other")
            await store.tokens.add(other, a_refresh_token(9, family="other"))
            assert await store.tokens.by_digest(tokens[0].digest) == tokens[0]
            assert await store.tokens.refresh(again[0].digest) == again[0]
            assert await store.tokens.refresh(b"\0" * 32) is None
            assert await store.tokens.rotate(again[0].digest, tokens[1], again[1])
            # Used, and it stays known: whoever shows it again has copied it.
            assert await store.tokens.refresh(again[0].digest) == structs.replace(again[0], used_at=NOW + 1)
            assert not await store.tokens.rotate(again[0].digest, tokens[2], again[2])
            assert await store.tokens.refresh(again[2].digest) is None
            assert await store.tokens.by_digest(tokens[2].digest) is None
            # An older access token ends alone, the newest with all there is.
            assert await store.tokens.remove(tokens[0].digest)
            assert await store.tokens.refresh(again[1].digest) == again[1]
            assert await store.tokens.remove(tokens[1].digest)
            assert [await store.tokens.refresh(each.digest) for each in again[:2]] == [None, None]
            assert await store.tokens.by_digest(other.digest) == other
            assert await store.tokens.end_family("other") == 1
            assert await store.tokens.end_family("other") == 0
            # The one that is kept keeps what refreshes it.
            await store.tokens.add(tokens[0], again[0])
            await store.tokens.add(other, a_refresh_token(9, family="other"))
            assert await store.tokens.remove_all("id-ann", keep=tokens[0].digest) == 1
            assert await store.tokens.refresh(again[0].digest) == again[0]
            assert await store.tokens.refresh(a_refresh_token(9).digest) is None
            assert await store.tokens.remove_all("id-ann", keep=b"another's") == 1
            assert await store.tokens.refresh(again[0].digest) is None
            await store.tokens.add(tokens[0], again[0])
            assert await store.tokens.remove(again[0].digest)
            assert await store.tokens.of_user("id-ann") == []
            await store.tokens.add(tokens[0], again[0])
            assert await store.tokens.remove_expired(again[0].expires_at) == 1
            await store.tokens.add(tokens[1], again[1])
            await store.users.remove("id-ann")
            assert await store.tokens.refresh(again[1].digest) is None

    run(work())


def test_refresh_tokens_are_bounded(opener: StoreOpener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirechamber.store.sqlite.accounts.MAX_TOKENS", 3)

    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user())
            await store.tokens.add(a_token(0, family="f"), a_refresh_token(0))
            for number in range(1, 6):
                token, refresh = a_token(number, family="f"), a_refresh_token(number)
                assert await store.tokens.rotate(a_refresh_token(number - 1).digest, token, refresh)
            await store.tokens.add(a_token(7, family="g"), a_refresh_token(7, family="g"))
            known = [await store.tokens.refresh(a_refresh_token(number).digest) is not None for number in range(8)]
            # The oldest that were used have gone.
            assert known == [False, False, False, False, True, True, False, True]

    run(work())


def test_clients_that_users_registered(opener: StoreOpener, tmp_path: Path) -> None:
    def a_client(number: int, **rest: Any) -> OAuthClient:
        fields: dict[str, Any] = {
            "id": f"{number:024x}", "owner": "id-ann", "name": "ünit", "type": "web", "scopes": ("events:get",),
            "secret": b"s" * 32, "created_at": NOW + number, "redirect_uri": "https://example.com/",
        }  # fmt: skip
        return OAuthClient(**(fields | rest))

    async def work() -> None:
        async with opener(tmp_path) as store:
            for name in ("ann", "bob"):
                await store.users.add(a_user(name))
            first, second = a_client(1), a_client(2, type="installed", redirect_uri=None)
            assert await store.clients.add(first, 2)
            assert await store.clients.add(second, 2)
            assert not await store.clients.add(a_client(3), 2)
            assert await store.clients.add(a_client(4, owner="id-bob"), 2)
            assert await store.clients.of_owner("id-ann") == [first, second]
            assert await store.clients.get(first.id) == first
            assert await store.clients.get("x") is None
            renamed = structs.replace(first, name="other", scopes=("*",))
            assert await store.clients.update(renamed)
            assert await store.clients.get(first.id) == renamed
            await store.tokens.add(a_token(1, client=first.id, family="f"), a_refresh_token(1, client=first.id))
            await store.tokens.add(a_token(2, user="id-bob", client=first.id))
            await store.tokens.add(a_token(3))
            assert not await store.clients.remove("id-bob", first.id)
            assert await store.clients.remove("id-ann", first.id)
            assert not await store.clients.remove("id-ann", first.id)
            assert not await store.clients.update(first)
            # What was got through it is gone, whoever's it was.
            assert await store.tokens.of_user("id-ann") == [a_token(3)]
            assert await store.tokens.of_user("id-bob") == []
            assert await store.tokens.refresh(a_refresh_token(1).digest) is None
            await store.users.remove("id-ann")
            assert await store.clients.get(second.id) is None
            assert await store.clients.of_owner("id-ann") == []

    run(work())


def test_whose_account_changed_is_told(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            for name in ("ann", "bob", "eve"):
                await store.users.add(a_user(name))
                await store.tokens.add(a_token(len(name) + ord(name[0]), user=f"id-{name}"))
            begin = store.revision()
            # What is none of an account's business, or only adds to it, makes nobody read anything again.
            await store.devices.add(a_device())
            await store.tokens.add(a_token(1))
            assert set(store.accounts_changed(begin)) == set()
            assert await store.tokens.remove(bytes([3 + ord("a")]) * 32)
            assert set(store.accounts_changed(begin)) == {"id-ann"}
            later = store.revision()
            await store.users.update(a_user("bob", password="other"))
            await store.users.remove("id-eve")
            assert set(store.accounts_changed(later)) == {"id-bob", "id-eve"}
            assert set(store.accounts_changed(store.revision())) == set()

    run(work())


def test_the_revision_grows_with_what_caches_depend_on_only(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            seen = [store.revision()]
            await store.users.add(a_user("ann", id=OWNER))
            seen.append(store.revision())
            await store.tokens.add(a_token(user=OWNER))
            seen.append(store.revision())
            await store.tokens.remove(a_token().digest)
            seen.append(store.revision())
            await store.devices.add(a_device(1, owner=OWNER))
            seen.append(store.revision())
            await store.devices.update(a_device(1, owner=None))
            seen.append(store.revision())
            await store.integrations.add(an_integration())
            seen.append(store.revision())
            assert seen == sorted(set(seen))
            await store.deliveries.settle(Settlement(attempts=(an_attempt(),), upsert=(a_delivery(),), cursor="9"))
            assert store.revision() == seen[-1]

    run(work())


async def with_hooks(store: Any, *events: str) -> None:
    await store.users.add(a_user("ann", id=OWNER))
    for event in events or ("temp",):
        await store.integrations.add(an_integration(event))


def test_a_settlement_is_stored_whole_and_once(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store)
            deliveries = store.deliveries
            assert await deliveries.cursor("dispatch") is None
            first = Settlement(
                attempts=(an_attempt(0), an_attempt(1, ok=False, final=False, status=500, why="error status 500")),
                upsert=(a_delivery(1, why="error status 500"),), cursor="17",
                remember=(("hook-temp", "token", {"a": [1]}),),
            )  # fmt: skip
            await deliveries.settle(first)
            # As after a crash between storing and telling.
            await deliveries.settle(first)
            assert await deliveries.cursor("dispatch") == "17"
            assert await deliveries.get("delivery-1") == first.upsert[0]
            assert await deliveries.recall("hook-temp", "token") == {"a": [1]}
            assert await deliveries.recall("hook-temp", "other") is None
            found = await deliveries.attempts("hook-temp", AttemptFilter(), 10)
            assert found == [first.attempts[1], first.attempts[0]]
            counts = await deliveries.counts(["hook-temp"], day(NOW))
            assert counts == {"hook-temp": [DayCount(day(NOW), success=1, error=0, retried=1)]}
            ids = [(f"delivery-{number}", "hook-temp") for number in range(3)]
            assert await deliveries.known(ids, NOW) == {"delivery-0", "delivery-1"}
            await deliveries.settle(
                Settlement(remove=("delivery-1",), attempts=(an_attempt(2, delivery="delivery-1"),))
            )
            assert await deliveries.get("delivery-1") is None
            assert await deliveries.cursor("dispatch") == "17"
        async with opener(tmp_path) as store:
            assert await store.deliveries.cursor("dispatch") == "17"

    run(work())


def test_what_belongs_to_a_removed_integration_is_left_out(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store, "temp", "hum")
            await store.integrations.remove("hook-temp")
            await store.deliveries.settle(
                Settlement(
                    attempts=(an_attempt(0), an_attempt(1, integration="hook-hum")),
                    upsert=(a_delivery(0), a_delivery(1, integration="hook-hum")),
                    remember=(("hook-temp", "a", 1),),
                )
            )
            assert await store.deliveries.get("delivery-0") is None
            assert await store.deliveries.get("delivery-1") is not None
            assert set(await store.deliveries.counts(["hook-temp", "hook-hum"], 0)) == {"hook-hum"}

    run(work())


def test_what_is_due_comes_from_every_integration(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store, "temp", "hum", "later")
            backlog = [a_delivery(number, due_at=NOW - number) for number in range(200)]
            other = a_delivery(900, integration="hook-hum", due_at=NOW)
            later = a_delivery(901, integration="hook-later", due_at=NOW + 5)
            dead = a_delivery(902, state="dead", due_at=NOW - 999)
            await store.deliveries.settle(Settlement(upsert=(*backlog, other, later, dead)))
            due = await store.deliveries.due(NOW, 20)
            assert len(due) <= 20
            assert other in due
            assert next(each for each in due if each != other) == backlog[-1]
            assert later not in due
            assert dead not in due
            assert await store.deliveries.due(NOW, 20, ["hook-temp"]) == [other]
            assert await store.deliveries.next_due() == NOW - 199

    run(work())


def test_how_integrations_stand(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store, "temp", "hum")
            deliveries = store.deliveries
            assert await deliveries.standing(["hook-temp", "gone"]) == {"hook-temp": Standing()}
            failed = an_attempt(1, ok=False, final=False, why="ENOTFOUND", started_at=NOW + 1)
            rows = tuple(a_delivery(n, due_at=NOW + n) for n in range(1, 1_201))
            await deliveries.settle(Settlement(attempts=(an_attempt(0), failed), upsert=rows))
            stands = await deliveries.standing(["hook-temp", "hook-hum"])
            # Counted so far only: what is shown of many integrations costs no more for a long backlog.
            assert stands == {"hook-temp": Standing(1_000, NOW + 1, NOW + 1, "ENOTFOUND"), "hook-hum": Standing()}
            steps = await deliveries.steps(["delivery-1", "delivery-7", "gone"])
            assert steps == {"delivery-1": Step(1, NOW + 1), "delivery-7": Step(1, NOW + 7)}
            await deliveries.hold("hook-temp")
            assert await deliveries.steps(["delivery-1"]) == {"delivery-1": Step(1, None)}
            held = (await deliveries.standing(["hook-temp"]))["hook-temp"]
            assert (held.waiting, held.due_at) == (1_000, None)
            await deliveries.settle(Settlement(attempts=(an_attempt(2, started_at=NOW + 2),)))
            assert (await deliveries.standing(["hook-temp"]))["hook-temp"].failed_at is None
            (only,) = await deliveries.attempts("hook-temp", AttemptFilter(id=failed.id), 5)
            assert only.why == "ENOTFOUND"

    run(work())


def test_integrations_are_found_by_name(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user("ann", id=OWNER))
            for event in ("a", "b", "c"):
                await store.integrations.add(an_integration(event, name="twin" if event != "c" else "other"))
            named = await store.integrations.named(OWNER, "twin", 5)
            assert [each.id for each in named] == ["hook-a", "hook-b"]
            assert len(await store.integrations.named(OWNER, "twin", 1)) == 1
            assert await store.integrations.named("somebody", "twin", 5) == []
            await store.integrations.remove("hook-a")
            assert [each.id for each in await store.integrations.named(OWNER, "twin", 5)] == ["hook-b"]

    run(work())


def test_deliveries_are_held_and_released(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store, "temp", "hum")
            deliveries = store.deliveries
            await deliveries.settle(
                Settlement(upsert=(*(a_delivery(n) for n in range(3)), a_delivery(4, state="dead")))
            )
            assert await deliveries.open_of("hook-temp") == 3
            assert await deliveries.hold("hook-hum") == 0
            assert await deliveries.hold("hook-temp") == 3
            assert await deliveries.due(NOW, 10) == []
            assert await deliveries.next_due() is None
            assert await deliveries.open_of("hook-temp") == 3
            assert await deliveries.release("hook-temp", NOW + 7) == 3
            assert await deliveries.next_due() == NOW + 7
            assert len(await deliveries.due(NOW + 7, 10)) == 3

    run(work())


def test_what_waits_is_brought_forward_when_steady_time_goes_back(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store, "temp")
            dead = a_delivery(4, state="dead", due_at=NOW + 9)
            await store.deliveries.settle(Settlement(upsert=(a_delivery(1, due_at=NOW + 7_000), dead)))
            assert await store.deliveries.bring_forward(6_000) == 1
            assert await store.deliveries.next_due() == NOW + 1_000
            assert await store.deliveries.get(dead.id) == dead

    run(work())


def test_what_is_held_for_active_integrations_is_released_together(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store, "temp", "hum", "wind")
            for name, change in (("hum", {"disabled": True}), ("wind", {"paused": "misconfigured"})):
                record = await store.integrations.get(f"hook-{name}")
                assert record is not None
                await store.integrations.update(structs.replace(record, **change))
            held = [
                a_delivery(number, integration=f"hook-{name}", state="held")
                for number, name in enumerate(("temp", "hum", "wind"))
            ]
            await store.deliveries.settle(Settlement(upsert=(*held, a_delivery(9, state="dead"))))
            assert await store.deliveries.release_active(NOW + 7) == 1
            assert [(each.integration, each.due_at) for each in await store.deliveries.due(NOW + 7, 10)] == [
                ("hook-temp", NOW + 7)
            ]

    run(work())


def test_overdue_answers(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store)
            waiting = a_delivery(0, deadline_at=NOW + 10, due_at=NOW + DAY)
            held = a_delivery(1, deadline_at=NOW + 20, state="held")
            told = a_delivery(2, deadline_at=NOW, error_told=True)
            dead = a_delivery(3, deadline_at=NOW, state="dead")
            await store.deliveries.settle(Settlement(upsert=(waiting, held, told, dead)))
            assert await store.deliveries.next_deadline() == NOW + 10
            assert await store.deliveries.overdue_answers(NOW + 9, 10) == []
            assert await store.deliveries.overdue_answers(NOW + 20, 10) == [waiting, held]
            assert await store.deliveries.overdue_answers(NOW + 20, 1) == [waiting]

    run(work())


def test_attempts_are_filtered_and_paged(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store, "temp", "hum")
            attempts = [
                an_attempt(number, ok=number % 2 == 0, device="d1" if number % 3 == 0 else None) for number in range(30)
            ]
            await store.deliveries.settle(Settlement(attempts=(*attempts, an_attempt(99, integration="hook-hum"))))
            listed = store.deliveries.attempts
            assert await listed("hook-temp", AttemptFilter(), 5) == attempts[:-6:-1]
            assert await listed("hook-temp", AttemptFilter(before=attempts[10].id), 3) == attempts[9:6:-1]
            assert await listed("hook-temp", AttemptFilter(ok=False, device="d1"), 2) == [attempts[27], attempts[21]]
            assert await listed("hook-none", AttemptFilter(), 2) == []

    run(work())


def test_retention_of_attempts(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store)
            old, newer = NOW - 40 * DAY, NOW - 2 * DAY
            attempts = (
                an_attempt(0, started_at=old, ok=False),
                *(an_attempt(number, started_at=newer) for number in range(1, 6)),
                an_attempt(6, started_at=newer, ok=False),
                an_attempt(7, started_at=NOW),
            )
            deliveries = store.deliveries
            await deliveries.settle(
                Settlement(
                    attempts=attempts, upsert=(a_delivery(1, state="dead", due_at=old), a_delivery(2, due_at=old))
                )
            )
            await deliveries.tidy(
                Retention(
                    bodies_of_newest=3, bodies_after=NOW - DAY, attempts_after=NOW - 30 * DAY,
                    counters_after=day(NOW - 30 * DAY),
                )
            )  # fmt: skip
            left = await deliveries.attempts("hook-temp", AttemptFilter(), 100)
            # The old one is gone; successes keep their detail among the newest three or when young, failures always.
            assert [(attempt.id[-1], attempt.detail is not None) for attempt in left] == [
                ("7", True), ("6", True), ("5", True), ("4", True), ("3", False), ("2", False), ("1", False),
            ]  # fmt: skip
            assert await deliveries.get("delivery-1") is None
            assert await deliveries.get("delivery-2") is not None
            assert [count.day for count in (await deliveries.counts(["hook-temp"], 0))["hook-temp"]] == [
                day(newer), day(NOW),
            ]  # fmt: skip

    run(work())


def test_many_rows_are_tidied_in_steps(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await with_hooks(store)
            attempts = tuple(an_attempt(number, started_at=NOW - DAY) for number in range(5_000))
            await store.deliveries.settle(Settlement(attempts=attempts))
            retention = Retention(bodies_of_newest=0, bodies_after=NOW, attempts_after=NOW, counters_after=0)
            changed = await store.deliveries.tidy(retention)
            assert changed >= 5_000
            assert await store.deliveries.attempts("hook-temp", AttemptFilter(), 1) == []

    run(work())
