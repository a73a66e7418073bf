"""Who a device is: over a real store, without a link."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.contract.backends import run
from tests.contract.links import a_session
from tests.contract.test_store import a_device, a_user
from tests.delivery.builders import NOW
from wirechamber.errors import BadInput, Forbidden, NotFound
from wirechamber.secrets import Vault
from wirechamber.services.identity import (
    CODE_MS,
    Identity,
    Refused,
    as_pem,
    new_device_key,
    new_psk,
    read_public_key,
    survives_a_shell,
)
from wirechamber.settings import Settings
from wirechamber.store.base import Store
from wirechamber.store.sqlite import open_sqlite_store
from wirechamber.switchboard.base import Leave, Offline, Question, Value

ONE, TWO, NOBODY = f"{1:024x}", f"{2:024x}", "f" * 24


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.ms = NOW

    def now(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


class Asked:
    """Notes what is asked; half of the devices are not there."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, Question]] = []

    async def ask(self, device: str, question: Question) -> Value:
        self.questions.append((device, question))
        if device == TWO:
            raise Offline("the device is offline")
        return True


def public(key: Any) -> bytes:
    der: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


MINE, OTHER = (public(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))


class Setup:
    def __init__(self, store: Store, *, provisioning: bool) -> None:
        self.store = store
        self.clock = HandClock()
        self.asked = Asked()
        self.identity = Identity(store, self.clock, Settings(provisioning=provisioning), self.asked)

    async def refused(self, device: str, key: bytes | None) -> str:
        with pytest.raises(Refused) as problem:
            await self.identity.admit(device, key)
        return problem.value.reason


@asynccontextmanager
async def setup(folder: Path, *, provisioning: bool = False) -> AsyncIterator[Setup]:
    made = HandClock()
    async with open_sqlite_store(folder, Vault.open(folder), clock=made) as store:
        for name in ("ann", "bob"):
            await store.users.add(a_user(name))
        for number in (1, 2):
            await store.devices.add(a_device(number))
        yield Setup(store, provisioning=provisioning)


def test_a_key_is_bound_to_an_id(tmp_path: Path) -> None:
    async def work() -> None:
        async with setup(tmp_path) as made:
            assert await made.refused(ONE, MINE) == "no_key"
            assert await made.refused(NOBODY, MINE) == "unknown_id"
            for none in ("", ONE.replace("0", "x"), ONE + "0", "A" * 24):
                assert await made.refused(none, MINE) == "no_id"
            assert await made.store.devices.get(NOBODY) is None
            assert await made.identity.set_key(ONE, MINE)
            assert (await made.identity.admit(ONE, MINE)).id == ONE
            assert await made.refused(ONE, OTHER) == "other_key"
            # A public key is not a pre-shared one.
            assert await made.refused(ONE, None) == "no_key"
            assert await made.refused(TWO, MINE) == "no_key"
            with pytest.raises(NotFound):
                await made.identity.set_key(NOBODY, MINE)

    run(work())


def test_a_pre_shared_key_says_who_it_is(tmp_path: Path) -> None:
    async def work() -> None:
        async with setup(tmp_path) as made:
            assert await made.identity.set_psk(ONE, secret)
            assert await made.identity.psk(ONE.encode()) == secret
            assert await made.identity.psk(ONE.upper().encode()) == secret
            for none in (b"", b"\xff" * 24, TWO.encode(), NOBODY.encode(), ONE.encode() + b"0"):
                assert await made.identity.psk(none) is None
            assert (await made.identity.admit(ONE, None)).id == ONE
            # Who has one does not come in by a public key, whatever it is.
            assert await made.refused(ONE, MINE) == "no_key"
            for bad in (b"", bytes(15), bytes(65)):
                with pytest.raises(BadInput, match="16 to 64"):
                    await made.identity.set_psk(ONE, bad)

    secret = bytes(range(32))
    run(work())
    # At rest it is sealed.
    for file in tmp_path.iterdir():
        assert secret not in file.read_bytes()


def test_provisioning_takes_the_first_key_and_no_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with setup(tmp_path, provisioning=True) as made:
            admitted = await asyncio.gather(
                *(made.identity.admit(NOBODY, key) for key in (MINE, OTHER, MINE, OTHER)), return_exceptions=True
            )
            kinds = [type(each) for each in admitted]
            assert kinds in ([kinds[0], kinds[1]] * 2, [kinds[1], kinds[0]] * 2)
            assert {kind.__name__ for kind in kinds} == {"Device", "Refused"}
            device = await made.store.devices.get(NOBODY)
            assert device is not None
            assert (device.owner, device.key) == (None, "public")
            # Known without a key, too; but not one that has a pre-shared key, or without showing any.
            assert (await made.identity.admit(ONE, MINE)).id == ONE
            await made.identity.set_psk(TWO, bytes(16))
            assert await made.refused(TWO, MINE) == "no_key"
            assert await made.refused("e" * 24, None) == "unknown_id"

    run(work())


def test_another_key_ends_the_sessions_and_the_link(tmp_path: Path) -> None:
    async def work() -> None:
        async with setup(tmp_path) as made:
            await made.identity.set_key(ONE, MINE)
            made.asked.questions.clear()
            await made.store.sessions.add(a_session(1))
            assert not await made.identity.set_key(ONE, as_pem(MINE).encode())
            assert made.asked.questions == []
            assert len(await made.store.sessions.of_device(ONE)) == 1
            assert await made.identity.set_key(ONE, OTHER)
            assert made.asked.questions == [(ONE, Leave())]
            assert await made.store.sessions.of_device(ONE) == []
            # A link that is not there is no problem.
            assert await made.identity.set_key(TWO, MINE)
            assert await made.refused(ONE, MINE) == "other_key"
            # Lost or stolen: it has no key any more.
            assert await made.identity.remove_keys(ONE)
            assert not await made.identity.remove_keys(ONE)
            assert made.asked.questions.count((ONE, Leave())) == 2
            assert await made.refused(ONE, OTHER) == "no_key"

    run(work())


def test_an_owner_sends_a_key(tmp_path: Path) -> None:
    async def work() -> None:
        async with setup(tmp_path) as made:
            for bad in (None, 5, "", "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n", "\ud800"):
                with pytest.raises(BadInput):
                    await made.identity.provision("id-ann", ONE, bad)
            await made.identity.provision("id-ann", ONE, as_pem(MINE))
            assert (await made.identity.admit(ONE, MINE)).id == ONE
            await made.identity.provision("id-ann", ONE.upper(), as_pem(OTHER))
            assert (await made.identity.admit(ONE, OTHER)).id == ONE
            await made.store.devices.add(a_device(9, owner=None))
            for device in (ONE, NOBODY, f"{9:024x}", "lamp"):
                with pytest.raises(Forbidden):
                    await made.identity.provision("id-bob", device, as_pem(MINE))
            assert await made.store.devices.get(NOBODY) is None
            open_to = Identity(made.store, made.clock, Settings(provisioning=True))
            for free in (NOBODY, f"{9:024x}"):
                assert (await open_to.provision("id-bob", free, as_pem(MINE))).owner is None
                await open_to.provision("id-ann", free, as_pem(MINE))
                with pytest.raises(Forbidden):
                    await open_to.provision("id-bob", free, as_pem(OTHER))
            with pytest.raises(Forbidden):
                await open_to.provision("id-bob", ONE, as_pem(MINE))

    run(work())


def test_a_claim_code(tmp_path: Path) -> None:
    async def work() -> None:
        async with setup(tmp_path) as made:
            await made.store.devices.update(a_device(2, owner=None))
            code, devices = await made.identity.new_claim_code("id-bob")
            assert (len(code), devices) == (63, [])
            assert (await made.identity.new_claim_code("id-ann"))[1] == [ONE]
            for wrong in ("", code[:-1], code + "x", code.swapcase()):
                assert await made.identity.redeem(TWO, wrong) is None
            claimed = await made.identity.redeem(TWO, code)
            assert claimed is not None
            assert claimed.owner == "id-bob"
            # It did not hear the answer.
            assert await made.identity.redeem(TWO, code) == claimed
            # Nobody loses a device by a code.
            for_ann, _ = await made.identity.new_claim_code("id-ann")
            assert await made.identity.redeem(TWO, for_ann) is None
            device = await made.store.devices.get(TWO)
            assert device is not None
            assert device.owner == "id-bob"
            late, _ = await made.identity.new_claim_code("id-ann")
            await made.store.devices.add(a_device(3, owner=None))
            made.clock.ms += CODE_MS
            assert await made.identity.redeem(f"{3:024x}", late) is None

    run(work())


def test_keys_in_every_form() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    der = public(key)
    assert read_public_key(der) == read_public_key(as_pem(der).encode()) == der
    # As a device's memory holds it.
    assert read_public_key(der.ljust(192, b"\xff")) == der
    compressed = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    assert len(compressed) == 33
    for small in (rsa.generate_private_key(65537, 1024), new_device_key(tcp=True)):
        assert read_public_key(public(small)) == public(small)
        assert len(public(small)) == 162
    for bad in (
        b"", b"\x30", der[:-1], b"x" * 5000, compressed, public(ec.generate_private_key(ec.SECP384R1())),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    ):  # fmt: skip
        with pytest.raises(BadInput):
            read_public_key(bad)


@pytest.mark.parametrize("provisioning", [True, False])
def test_a_claim_drops_the_key_that_another_bound(tmp_path: Path, provisioning: bool) -> None:
    async def work() -> None:
        async with setup(tmp_path, provisioning=True) as made:
            store = made.store
            await made.identity.provision("id-ann", NOBODY, as_pem(MINE))
            assert (await made.identity.admit(NOBODY, MINE)).owner is None
            await store.sessions.add(a_session(7, device=NOBODY))
            made.identity._settings = Settings(provisioning=provisioning)
            assert await store.devices.claim(NOBODY, "id-bob")
            # Its session is gone with it, and it does not come in again, also not as the first one.
            assert await store.sessions.of_device(NOBODY) == []
            for _ in range(2):
                assert await made.refused(NOBODY, MINE) == "no_key"
                with pytest.raises(Refused):
                    await made.identity.check(NOBODY, MINE)
            await made.identity.provision("id-bob", NOBODY, as_pem(OTHER))
            assert (await made.identity.admit(NOBODY, OTHER)).owner == "id-bob"
            assert await made.refused(NOBODY, MINE) == "other_key"
            # Whoever owns it may take up that key after all.
            await made.identity.provision("id-bob", NOBODY, as_pem(MINE))
            assert (await made.identity.admit(NOBODY, MINE)).owner == "id-bob"

    run(work())


def test_a_key_that_the_device_or_the_operator_bound_stays_with_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with setup(tmp_path, provisioning=True) as made:
            await made.identity.admit(NOBODY, MINE)
            assert await made.store.devices.claim(NOBODY, "id-bob")
            assert (await made.identity.admit(NOBODY, MINE)).owner == "id-bob"
            # A device that shows its key and a code is the one that the code was given to.
            other = "e" * 24
            await made.identity.provision("id-ann", other, as_pem(OTHER))
            code, _ = await made.identity.new_claim_code("id-bob")
            assert await made.identity.redeem(other, code)
            assert (await made.identity.admit(other, OTHER)).owner == "id-bob"

    run(work())


def test_keys_that_are_made_survive_a_shell() -> None:
    keys = [new_psk() for _ in range(2_000)]
    assert {len(key) for key in keys} == {32}
    assert len(set(keys)) == len(keys)
    assert all(survives_a_shell(key) for key in keys)
    assert not survives_a_shell(b"a\0b")
    assert not survives_a_shell(b"ab\n")
    assert survives_a_shell(b"a\nb\xff")
    # A real shell, as the docs have it.
    for key in keys[:3] if shutil.which("xxd") else ():
        script = 'printf %s "$(printf %s "$1" | xxd -r -p)" | xxd -p -c 256'
        done = subprocess.run(["sh", "-c", script, "sh", key.hex()], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == key.hex()
