"""What every store must do about device links, whatever keeps it: sessions, what devices told, keys and usage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from tests.contract.backends import STORES, StoreOpener, run
from tests.contract.links import a_session
from tests.contract.test_store import a_device, a_user
from tests.delivery.builders import NOW
from wirechamber.errors import Conflict, NotFound
from wirechamber.model.devices import Device
from wirechamber.model.keys import ClaimCode, DeviceKeys
from wirechamber.model.links import (
    CameOnline,
    Checkpoint,
    Described,
    Description,
    Greeted,
    Greeting,
    HasHad,
    KeepAlive,
    KeepAliveTold,
    KnownSession,
    LinkRecord,
    MetricsTold,
    Reservation,
    Subscribed,
    Subscription,
    SystemDescribed,
    Unsubscribed,
    Vitals,
    WentOffline,
)
from wirechamber.model.usage import Purpose, Usage
from wirechamber.store.base import DeviceCount, DeviceFilter, Store, UsageFilter

ONE, TWO = f"{1:024x}", f"{2:024x}"
NOBODY = "f" * 24
HELLO = Greeting(platform=12, product=4711, product_version=3, flags=0x36, system_version=6200, max_message=1152)


@pytest.fixture(params=STORES)
def opener(request: pytest.FixtureRequest) -> StoreOpener:
    return STORES[request.param]


@asynccontextmanager
async def two_devices(opener: StoreOpener, folder: Path) -> AsyncIterator[Store]:
    async with opener(folder) as store:
        await store.users.add(a_user("ann"))
        await store.users.add(a_user("bob"))
        for number in (1, 2):
            await store.devices.add(a_device(number))
        yield store


def test_sessions(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        one = a_session(1, top=7, mids=b"\1\2\3")
        # Without a connection id; nobody has said yet whose it is.
        bare = a_session(2, cid=b"", device=None, deviceos=False, address="")
        another = a_session(3, cid=b"", device=TWO)
        async with two_devices(opener, tmp_path) as store:
            revision = store.revision()
            await asyncio.gather(*map(store.sessions.add, (one, bare, another)))
            # Whoever is not known (any more) has no session.
            await store.sessions.add(a_session(4, device=NOBODY))
            assert store.revision() == revision
        async with opener(tmp_path) as store:
            assert [await store.sessions.get(each.id) for each in (one, bare, another)] == [one, bare, another]
            assert await store.sessions.get(f"{4:032x}") is None
            assert await store.sessions.several([one.id, f"{4:032x}", another.id]) == {one.id: one, another.id: another}
            assert await store.links.several([ONE, TWO]) == {}
            assert await store.sessions.known() == [
                KnownSession(each.id, each.cid, each.device, each.deviceos, each.address)
                for each in (one, bare, another)
            ]
            assert await store.sessions.of_device(TWO) == [another]
            assert await store.sessions.remove([one.id, bare.id, f"{9:032x}"]) == 2
            assert await store.sessions.known() == [KnownSession(another.id, b"", TWO, True, another.address)]

    run(work())


def test_accounts_never_go_back(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            assert await store.sessions.cursor() is None
            for number in (1, 2):
                await store.sessions.add(a_session(number))
            one, two = f"{1:032x}", f"{2:032x}"
            await store.sessions.account(
                [Checkpoint(one, 10, b"\xff\0", "::1 1"), Checkpoint(two, 5, b"", "::1 2"),
                 Checkpoint(f"{9:032x}", 5, b"", "")],
                [Reservation(two, 2048), Reservation(f"{9:032x}", 1)],
                "0007",
            )  # fmt: skip
            await store.sessions.account(
                [Checkpoint(one, 9, b"", "late"), Checkpoint(two, 5, b"\7", "::1 3")], [], None
            )
            await store.sessions.account([], [Reservation(one, 512), Reservation(two, 1024)], None)
            await store.sessions.account([], [], None)
        async with opener(tmp_path) as store:
            assert await store.sessions.cursor() == "0007"
            assert await store.sessions.get(one) == a_session(1, top=10, mids=b"\xff\0", address="::1 1")
            assert await store.sessions.get(two) == a_session(2, top=5, mids=b"\7", address="::1 3", send_limit=2048)
            assert len(await store.sessions.known()) == 2

    run(work())


def test_what_a_device_told(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            revision = store.revision()
            assert await store.links.get(ONE) is None
            assert await store.links.description(ONE) == Description()
            await store.links.apply(
                [
                    Greeted(device=ONE, at=NOW, address="192.0.2.7 5000", greeting=HELLO, session=a_session(1)),
                    Described(ONE, ("on", "öff"), {"t": "double", "s": "string"}),
                    SystemDescribed(ONE, NOW + 1, {"modules": [{"version": 6200}]}),
                    MetricsTold(ONE, NOW + 2, {"mem:free": 140, "app:0": -5.5}),
                    Subscribed(ONE, Subscription("spark")),
                    Subscribed(ONE, Subscription("particle")),
                    # In another form, for a handler of its own.
                    Subscribed(ONE, Subscription("particle", binary=True, cbor=True)),
                    Subscribed(ONE, Subscription("t/", device=TWO)),
                    Unsubscribed(ONE, "spark"),
                    Unsubscribed(ONE, "t/"),
                    KeepAliveTold(ONE, KeepAlive(ping=600)),
                    KeepAliveTold(ONE, KeepAlive(lifetime=86_400, queue=True)),
                    CameOnline(ONE, NOW + 3, "192.0.2.7 5001"),
                    Greeted(device=NOBODY, at=NOW, address="", greeting=HELLO, session=a_session(9, device=NOBODY)),
                    Subscribed(NOBODY, Subscription("x")),
                    MetricsTold(NOBODY, NOW, {}),
                    CameOnline(TWO, NOW, "::1 9"),
                ]
            )
            assert store.revision() == revision
        told = LinkRecord(
            device=ONE, online=True, last_heard=NOW + 3, last_handshake_at=NOW, address="192.0.2.7 5001",
            greeting=HELLO, functions=("on", "öff"), variables={"t": "double", "s": "string"},
            subscriptions=(
                    Subscription("particle"), Subscription("particle", binary=True, cbor=True),
                    Subscription("t/", device=TWO),
                ),
            keep_alive=KeepAlive(lifetime=86_400, queue=True),
        )  # fmt: skip
        async with opener(tmp_path) as store:
            assert await store.links.get(ONE) == told
            assert await store.links.get(NOBODY) is None
            assert await store.sessions.of_device(ONE) == [a_session(1)]
            assert await store.links.online() == [
                told, LinkRecord(device=TWO, online=True, last_heard=NOW, address="::1 9"),
            ]  # fmt: skip
            assert await store.links.description(ONE) == Description(
                system={"modules": [{"version": 6200}]}, system_at=NOW + 1, metrics={"mem:free": 140, "app:0": -5.5},
                metrics_at=NOW + 2,
            )  # fmt: skip
            await store.links.heard({ONE: NOW + 50, TWO: NOW - 1, NOBODY: NOW})
            await store.links.apply([WentOffline(ONE, NOW + 60, "000a"), HasHad(TWO, "000b"), WentOffline(TWO, NOW)])
            assert await store.links.get(ONE) == structs.replace(
                told, online=False, last_heard=NOW + 50, resume_from="000a"
            )
            two = await store.links.get(TWO)
            assert two == LinkRecord(device=TWO, last_heard=NOW, address="::1 9", resume_from="000b")
            assert await store.links.online() == []
            await store.links.refused({ONE: 3, NOBODY: 1})
            await store.links.refused({ONE: 4})
            counted = await store.devices.get(ONE)
            assert counted is not None
            assert counted.publishes_refused == 7
            await store.links.apply([WentOffline(ONE, NOW + 60)])
            one = await store.links.get(ONE)
            assert one is not None
            assert one.resume_from == "000a"

    run(work())


def test_a_device_that_greets_tells_its_wishes_anew_and_its_description_holds_until_the_next(
    opener: StoreOpener, tmp_path: Path
) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            for device, number in ((ONE, 1), (TWO, 2)):
                await store.links.apply(
                    [
                        Greeted(device=device, at=NOW, address="a 1", greeting=HELLO, session=a_session(number)),
                        Described(device, ("f",), {"v": "int32"}),
                        KeepAliveTold(device, KeepAlive(queue=True)),
                        SystemDescribed(device, NOW, {"a": 1}),
                        MetricsTold(device, NOW, {"mem:free": 2}),
                        Subscribed(device, Subscription("old")),
                        CameOnline(device, NOW, "a 1"),
                    ]
                )
            other = structs.replace(HELLO, product_version=4)
            # Within the session that it has …
            await store.links.apply(
                [
                    Subscribed(ONE, Subscription("forgotten")),
                    Greeted(device=ONE, at=NOW + 9, address="b 2", greeting=other),
                    Subscribed(ONE, Subscription("new")),
                ]
            )
            assert await store.links.get(ONE) == LinkRecord(
                device=ONE, online=True, last_heard=NOW + 9, last_handshake_at=NOW, address="b 2", greeting=other,
                functions=("f",), variables={"v": "int32"}, subscriptions=(Subscription("new"),),
            )  # fmt: skip
            assert await store.links.description(ONE) == Description(
                system={"a": 1}, system_at=NOW, metrics={"mem:free": 2}, metrics_at=NOW
            )
            # What it describes in the same moment counts, before its Hello or behind it.
            await store.links.apply(
                [
                    Described(ONE, ("g",), {}),
                    Greeted(device=ONE, at=NOW + 9, address="b 2", greeting=other),
                    SystemDescribed(ONE, NOW + 9, {"a": 2}),
                ]
            )
            described = await store.links.get(ONE)
            assert described is not None
            assert (described.functions, described.variables) == (("g",), {})
            assert (await store.links.description(ONE)).system == {"a": 2}
            assert await store.sessions.of_device(ONE) == [a_session(1)]
            # … or with a new one, which replaces those before.
            await store.links.apply([Greeted(device=ONE, at=NOW + 20, address="b 2", session=a_session(5, device=ONE))])
            assert await store.sessions.of_device(ONE) == [a_session(5, device=ONE)]
            one = await store.links.get(ONE)
            assert one is not None
            # Without a Hello, it is no device that describes itself.
            assert (one.greeting, one.functions, one.subscriptions, one.last_handshake_at) == (None, (), (), NOW + 20)
            # Nothing of it touched the other one.
            assert await store.sessions.of_device(TWO) == [a_session(2)]
            two = await store.links.get(TWO)
            assert two is not None
            assert (two.functions, two.subscriptions) == (("f",), (Subscription("old"),))
            assert await store.links.remove(TWO)
            assert not await store.links.remove(TWO)
            assert await store.links.get(TWO) is None
            assert await store.links.description(TWO) == Description()
            assert await store.sessions.of_device(TWO) == []

    run(work())


def test_the_registry_shows_what_links_told_and_does_not_write_it(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            await store.links.apply(
                [
                    Greeted(device=ONE, at=NOW, address="2001:db8::1 5000", greeting=HELLO, session=a_session(1)),
                    Described(ONE, ("f",), {"v": "bool"}),
                    CameOnline(ONE, NOW, "2001:db8::1 5000"),
                ]
            )
            shown = a_device(
                1, platform_id=12, product_id=4711, online=True, last_heard=NOW, last_handshake_at=NOW,
                last_ip_address="2001:db8::1", greeting=HELLO, functions=("f",), variables={"v": "bool"},
            )  # fmt: skip
            assert (shown.firmware_product_id, shown.firmware_version, shown.system_version) == (4711, 3, 6200)
            assert await store.devices.get(ONE) == shown
            # A stale record that is written back takes nothing away.
            await store.devices.update(a_device(1, name="lamp", functions=("x",), online=False, last_heard=1))
            assert await store.devices.get(ONE) == structs.replace(shown, name="lamp")
            await store.devices.update(structs.replace(shown, owner=None))
            await store.links.apply([WentOffline(ONE, NOW)])
            assert await store.devices.claim(ONE, "id-bob") == structs.replace(shown, owner="id-bob", online=False)
            assert (await store.devices.find(DeviceFilter(owner="id-bob")))[0] == [
                structs.replace(shown, owner="id-bob", online=False)
            ]
            # A product that it was put into stays, whatever its firmware says.
            await store.devices.update(structs.replace(shown, platform_id=32, product_id=99))
            device = await store.devices.get(ONE)
            assert device is not None
            assert (device.platform_id, device.product_id) == (12, 99)

    run(work())


def test_changes_of_the_registry(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            everything = await store.devices.changes(0)
            assert {device.id for device in everything.changed} == {ONE, TWO}
            assert (everything.removed, everything.rekeyed) == ([], [])
            assert everything.revision == store.revision()
            none = await store.devices.changes(everything.revision)
            assert (none.changed, none.removed, none.rekeyed) == ([], [], [])
            await store.links.apply([CameOnline(ONE, NOW, "a 1")])
            assert (await store.devices.changes(everything.revision)).changed == []
            await store.devices.update(a_device(1, name="lamp"))
            await store.keys.set(DeviceKeys(device=TWO, changed_at=NOW, psk=b"x" * 16))
            changes = await store.devices.changes(everything.revision)
            assert [device.name for device in changes.changed] == ["lamp"]
            assert changes.rekeyed == [TWO]
            await store.users.remove("id-ann")
            changes = await store.devices.changes(changes.revision)
            assert [(device.id, device.owner) for device in changes.changed] == [(ONE, None), (TWO, None)]
            await store.devices.remove(TWO)
            changes = await store.devices.changes(changes.revision)
            assert (changes.changed, changes.removed) == ([], [TWO])
            await store.devices.add(a_device(2, owner=None))
            changes = await store.devices.changes(changes.revision)
            assert ([device.id for device in changes.changed], changes.removed) == ([TWO], [])

    run(work())


def test_keys(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        keys = DeviceKeys(device=ONE, public_key=b"\x30\x59" + bytes(89), changed_at=NOW)
        async with two_devices(opener, tmp_path) as store:
            assert await store.keys.get(ONE) is None
            revision = store.revision()
            assert await store.keys.bind(keys) == keys
            # The first one stays.
            assert await store.keys.bind(structs.replace(keys, public_key=b"other")) == keys
            assert store.revision() > revision
            await store.sessions.add(a_session(1))
            await store.sessions.add(a_session(2))
            # The same again changes nothing, and ends nothing.
            assert not await store.keys.set(structs.replace(keys, changed_at=NOW + 5))
            assert await store.sessions.of_device(ONE) == [a_session(1)]
            both = structs.replace(keys, psk=b"p" * 32, changed_at=NOW + 9)
            assert await store.keys.set(both)
            assert await store.sessions.of_device(ONE) == []
            assert await store.sessions.of_device(TWO) == [a_session(2)]
            for unknown in (store.keys.set, store.keys.bind):
                with pytest.raises(NotFound):
                    await unknown(structs.replace(keys, device=NOBODY))
            assert await store.keys.set(DeviceKeys(device=TWO, psk=b"two", changed_at=NOW))
        async with opener(tmp_path) as store:
            assert await store.keys.get(ONE) == both
            kinds = [(await store.devices.find(DeviceFilter()))[0][number].key for number in (0, 1)]
            assert kinds == ["psk", "both"]
            # One with a pre-shared key has a key.
            bound = await store.keys.bind(DeviceKeys(device=TWO, public_key=b"k", changed_at=NOW + 1))
            assert (bound.psk, bound.public_key) == (b"two", None)
            await store.devices.remove(ONE)
            await store.devices.add(a_device(1))
            assert await store.keys.get(ONE) is None

    run(work())


def test_a_claim_code_is_for_one_device_and_for_a_while(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            codes = [
                ClaimCode(digest=bytes([number]) * 32, owner="id-ann", created_at=NOW, expires_at=NOW + 100 * number)
                for number in (1, 2)
            ]
            for code in codes:
                await store.claims.add(code)
            one, two = codes
            used = structs.replace(one, device=ONE)
            assert await store.claims.redeem(one.digest, ONE, NOW + 99) == used
            # A device that did not hear the answer asks again.
            assert await store.claims.redeem(one.digest, ONE, NOW + 99) == used
            assert await store.claims.redeem(one.digest, TWO, NOW + 99) is None
            assert await store.claims.redeem(one.digest, ONE, NOW + 100) is None
            assert await store.claims.redeem(b"x" * 32, ONE, NOW) is None
            assert await store.claims.remove_expired(NOW + 100) == 1
            assert await store.claims.remove_expired(NOW + 100) == 0
            taken = await asyncio.gather(*(store.claims.redeem(two.digest, id, NOW) for id in (ONE, TWO)))
            assert sum(code is not None for code in taken) == 1
            await store.users.remove("id-ann")
            assert await store.claims.redeem(two.digest, ONE, NOW) is None

    run(work())


def test_a_device_goes_with_its_sessions_and_what_it_told(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            for device, number in ((ONE, 1), (TWO, 2)):
                await store.links.apply(
                    [
                        Greeted(device=device, at=NOW, address="a 1", greeting=HELLO, session=a_session(number)),
                        Subscribed(device, Subscription("s")),
                        MetricsTold(device, NOW, {}),
                        CameOnline(device, NOW, "a 1"),
                    ]
                )
                await store.usage.add([Usage(device, 5, Purpose.PUBLISH, 1, 1, 1, 1, 1, 1)])
            await store.devices.remove(ONE)
            await store.devices.add(a_device(1))
            assert await store.links.get(ONE) is None
            assert await store.links.description(ONE) == Description()
            assert [known.device for known in await store.sessions.known()] == [TWO]
            assert [row.device for row in await store.usage.hours(UsageFilter())] == [TWO]

    run(work())


def test_usage_adds_up(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            await store.devices.update(a_device(2, owner="id-bob"))
            row = Usage(ONE, 100, Purpose.PUBLISH, 10, 1, 20, 2, 3, 30)
            await store.usage.add([row, structs.replace(row, hour=101), Usage(NOBODY, 100, 0, 1, 1, 1, 1, 1, 1)])
            await store.usage.add([row, Usage(ONE, 100, Purpose.HANDSHAKE, 600, 3, 400, 3), Usage(TWO, 101, 4, 1)])
            twice = Usage(ONE, 100, Purpose.PUBLISH, 20, 2, 40, 4, 6, 60)
            handshake = Usage(ONE, 100, Purpose.HANDSHAKE, 600, 3, 400, 3)
            hours = [handshake, twice, structs.replace(row, hour=101)]
            assert await store.usage.hours(UsageFilter(device=ONE)) == hours
            assert await store.usage.hours(UsageFilter(owner="id-ann")) == hours
            assert await store.usage.hours(UsageFilter(owner="id-bob")) == [Usage(TWO, 101, 4, 1)]
            assert await store.usage.hours(UsageFilter(since=101, device=ONE)) == hours[2:]
            assert await store.usage.hours(UsageFilter(until=101)) == hours[:2]
            assert await store.usage.totals(UsageFilter(device=ONE)) == [
                handshake, Usage(ONE, 100, Purpose.PUBLISH, 30, 3, 60, 6, 9, 90),
            ]  # fmt: skip
            assert await store.usage.tidy(101) == 2
            assert await store.usage.tidy(101) == 0
            assert await store.usage.hours(UsageFilter(device=ONE)) == hours[2:]

    run(work())


def test_many_at_a_time(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as store:
            await store.users.add(a_user("ann"))
            count = 300
            for number in range(count):
                await store.devices.add(a_device(number))
            await asyncio.gather(
                *(
                    store.links.apply(
                        [
                            Greeted(device=f"{number:024x}", at=NOW, address="a 1", session=a_session(number)),
                            Subscribed(f"{number:024x}", Subscription(f"p{number}")),
                        ]
                    )
                    for number in range(count)
                )
            )
            assert len(await store.sessions.known()) == count
            for number in range(count):
                link = await store.links.get(f"{number:024x}")
                assert link is not None
                assert link.subscriptions == (Subscription(f"p{number}"),)

    run(work())


@pytest.mark.parametrize("door", ["given up", "handed over", "the user is removed"])
def test_what_was_the_old_owners_does_not_go_along(opener: StoreOpener, tmp_path: Path, door: str) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            await store.users.add(a_user("eve"))
            await store.devices.update(a_device(1, name="door", notes="door code 4711"))
            await store.devices.update(a_device(2, name="lamp", notes="kept"))
            await store.usage.add([a_usage(ONE), a_usage(TWO)])
            mine = await store.devices.get(ONE)
            assert mine is not None
            if door == "the user is removed":
                await store.devices.update(a_device(2, owner="id-bob"))
                await store.devices.update(a_device(2, owner="id-bob", name="lamp", notes="kept"))
                await store.usage.add([a_usage(TWO)])
                await store.users.remove("id-ann")
            elif door == "given up":
                await store.devices.update(structs.replace(mine, owner=None))
            if door == "handed over":
                await store.devices.update(structs.replace(mine, owner="id-eve"))
            else:
                assert await store.devices.claim(ONE, "id-eve")
            given = await _of(store, ONE)
            assert (given.owner, given.name, given.notes) == ("id-eve", None, None)
            assert await store.usage.hours(UsageFilter(device=ONE)) == []
            # Nobody else's goes with it, and the new owner's stays.
            other = await _of(store, TWO)
            assert (other.name, other.notes) == ("lamp", "kept")
            assert len(await store.usage.hours(UsageFilter(device=TWO))) == 1
            await store.devices.update(structs.replace(given, name="mine", notes="too"))
            assert (await _of(store, ONE)).notes == "too"

    run(work())


def a_usage(device: str) -> Usage:
    return Usage(device, 5, 0, 9, 1, 9, 1, 1, 1)


async def _of(store: Store, device_id: str) -> Device:
    device = await store.devices.get(device_id)
    assert device is not None
    return device


def test_pages_and_counts_follow_what_devices_tell(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            where = DeviceFilter(owner="id-ann")
            assert await store.devices.ids(where) == [TWO, ONE]
            assert (await store.devices.count("id-ann")).cellular == 0
            boron = structs.replace(HELLO, platform=13)
            await store.links.apply(
                [
                    Greeted(device=ONE, at=NOW, address="::1 1", greeting=boron, session=a_session(1)),
                    CameOnline(ONE, NOW, "::1 1"),
                ]
            )
            assert await store.devices.ids(where) == [ONE, TWO]
            assert await store.devices.ids(DeviceFilter(owner="id-ann", online=True)) == [ONE]
            assert await store.devices.count("id-ann") == DeviceCount(2, 1)
            await store.links.apply([WentOffline(ONE, NOW)])
            assert await store.devices.ids(DeviceFilter(owner="id-ann", online=True)) == []
            assert [device.id for device in await store.devices.some([TWO, "f" * 24, ONE])] == [TWO, ONE]
            await store.links.remove(ONE)
            assert await store.devices.ids(where) == [TWO, ONE]
            assert await store.devices.count("id-nobody") == DeviceCount(0, 0)

    run(work())


def test_many_devices_are_added_at_once_or_not_at_all(opener: StoreOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            new = [a_device(number, name=f"n{number}") for number in range(1, 6)]
            assert sorted(await store.devices.add_new(new)) == [ONE, TWO]
            assert await store.devices.count("id-ann") == DeviceCount(5, 0)
            with pytest.raises(Conflict):
                await store.devices.add_new([a_device(8), a_device(9, name="N3")])
            with pytest.raises(NotFound):
                await store.devices.add_new([a_device(8, owner="id-nobody")])
            assert await store.devices.get(f"{8:024x}") is None
            assert await store.devices.add_new([]) == []

    run(work())


def test_the_claim_codes_of_an_owner_are_bounded(
    opener: StoreOpener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wirechamber.store.sqlite.keys.MAX_CLAIM_CODES", 2)

    async def work() -> None:
        async with two_devices(opener, tmp_path) as store:
            for number in range(4):
                at = NOW + number
                await store.claims.add(
                    ClaimCode(digest=bytes([number]), owner="id-ann", created_at=at, expires_at=at + 9)
                )
            good = [await store.claims.redeem(bytes([number]), ONE, NOW) is not None for number in range(4)]
            assert good == [False, False, True, True]

    run(work())


def test_what_devices_measured_is_kept_for_a_while(
    opener: StoreOpener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wirechamber.store.sqlite.links.MAX_VITALS", 4)

    async def work() -> None:
        async with opener(tmp_path) as store:
            for device in (ONE, TWO):
                await store.devices.add(Device(id=device, created_at=NOW))
            told = [MetricsTold(ONE, NOW + number, {"n": number, "e": {"err": -5}, "x": None}) for number in range(7)]
            # Several of a batch, too.
            await store.links.apply([*told[:3], MetricsTold(TWO, NOW, {"n": 2.5}), MetricsTold(NOBODY, NOW, {})])
            await store.links.apply(told[3:])
            kept = [Vitals(each.at, each.metrics) for each in told[:2:-1]]
            assert await store.links.vitals(ONE) == kept
            assert await store.links.vitals(ONE, limit=1) == kept[:1]
            assert await store.links.vitals(ONE, since=NOW + 4, until=NOW + 6) == kept[1:3]
            assert await store.links.vitals(TWO) == [Vitals(NOW, {"n": 2.5})]
            assert await store.links.vitals(NOBODY) == []
            assert await store.links.forget_vitals(NOW + 5) == 3
            assert await store.links.vitals(ONE) == kept[:2]
            assert await store.links.vitals(TWO) == []
            assert (await store.links.description(ONE)).metrics_at == NOW + 6

    run(work())
