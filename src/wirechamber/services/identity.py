"""Who a device is: keys bound to device ids, and codes by which a device becomes a user's.

A public key is bound to an id by its owner, by the operator, or, in provisioning mode, by the device that comes first.
From then on, the id with another key is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from msgspec import structs

from wirechamber.clock import Clock
from wirechamber.errors import BadInput, CloudError, Conflict, Forbidden, NotFound
from wirechamber.model.devices import Device
from wirechamber.model.ids import is_device_id
from wirechamber.model.keys import ClaimCode, DeviceKeys
from wirechamber.model.keysize import TooLong, plain_der
from wirechamber.services.devices import UNKNOWN, Devices
from wirechamber.settings import Settings
from wirechamber.store.base import DeviceFilter, Store
from wirechamber.switchboard.base import Leave, Switchboard

# A PEM of RSA-4096 is under 1 KB.
MAX_KEY_BYTES = 4096
RSA_BITS = (1024, 2048, 3072, 4096)
RSA_DEVICE_BITS = 1024
# RFC 4279, section 5.3 wants 64 bytes to be taken; fewer than 16 can be guessed sooner than AES-128.
MIN_PSK = 16
MAX_PSK = 64
# Device OS keeps a code of at most 63 characters (device-protocol.md, section 10.1).
CODE_LENGTH = 63
CODE_MS = 24 * 3_600_000


# What `new_psk` makes.
PSK_BYTES = 32


class Refused(CloudError):
    """A device is not let in.

    Attributes:
        reason: One of a few short words, for counters.
    """

    status = 403
    code = "refused"

    def __init__(self, reason: str, description: str) -> None:
        super().__init__(description)
        self.reason = reason


class Identity:
    """Decides who a device is.

    Args:
        switchboard: Where a device's open link is ended when its key changes; None in a process without links.
    """

    def __init__(self, store: Store, clock: Clock, settings: Settings, switchboard: Switchboard | None = None) -> None:
        self._store = store
        self._devices = Devices(store, clock)
        self._clock = clock
        self._settings = settings
        self._switchboard = switchboard

    # --- at the link ---

    async def admit(self, device_id: str, public_key: bytes | None) -> Device:
        """The device, if it is the one it says it is.

        In provisioning mode an unknown id becomes a free device, and a device without any key gets this one.

        Args:
            device_id: As the device says, or as its pre-shared key says.
            public_key: Which it has proved to hold, DER SubjectPublicKeyInfo; None when it proved to hold the
                pre-shared key of this id.

        Raises:
            Refused: It is not, as far as can be told.
        """
        provisioning = self._settings.provisioning and public_key is not None
        device = await self._known(device_id, provisioning)
        if device is None:
            device = await self._added(device_id)
        keys = await self._store.keys.get(device_id) or self._keys(device_id)
        if keys.public_key is None and keys.psk is None and provisioning:
            # One that another owner had bound is not taken, and then there is none.
            keys = await self._store.keys.bind(self._keys(device_id, public_key=public_key))
        _compare(keys, public_key)
        return device

    async def check(self, device_id: str, public_key: bytes) -> None:
        """As `admit`, before the device has proved that it holds the key: whether to go on with it. Binds nothing.

        Raises:
            Refused: It would not be let in.
        """
        provisioning = self._settings.provisioning
        await self._known(device_id, provisioning)
        keys = await self._store.keys.get(device_id) or self._keys(device_id)
        if keys.public_key is None and keys.psk is None and provisioning and keys.refused != public_key:
            return
        _compare(keys, public_key)

    async def _known(self, device_id: str, provisioning: bool) -> Device | None:
        """The device; None when it is unknown and may become known."""
        if not is_device_id(device_id):
            raise Refused("no_id", "what it gives as its id is none")
        device = await self._store.devices.get(device_id)
        if device is None and not provisioning:
            raise Refused("unknown_id", "no device of this id is known; `wirechamber device add` makes it known")
        return device

    async def psk(self, identity: bytes) -> bytes | None:
        """The pre-shared key of the device whose id the identity is; None when there is none."""
        device_id = device_of(identity)
        keys = None if device_id is None else await self._store.keys.get(device_id)
        return None if keys is None else keys.psk

    async def psk_refusal(self, identity: bytes) -> Refused:
        """Why a device that gives this identity does not get in: it has no pre-shared key here, or has another one."""
        device_id = device_of(identity)
        if device_id is None:
            return Refused("no_id", "its identity is no device id: the identity of a pre-shared key is the device's id")
        try:
            await self._known(device_id, provisioning=False)
        except Refused as problem:
            return problem
        keys = await self._store.keys.get(device_id)
        if keys is None or keys.psk is None:
            return Refused("no_key", "no pre-shared key is bound to it; `wirechamber device keys --psk-file` binds one")
        return Refused("other_key", "it has another pre-shared key; `wirechamber device keys --psk-file` replaces ours")

    async def redeem(self, device_id: str, code: str) -> Device | None:
        """Makes the device the user's who asked for the code (event `spark/device/claim/code`).

        Returns:
            The device as it is now, also when it asks again; None when the code is not good (any more), or the
            device is somebody else's.
        """
        claimed = await self._store.claims.redeem(_digest(code), device_id, self._clock.now())
        if claimed is None:
            return None
        # It holds its key and was given the code: whoever bound that key, it is the device's.
        device = await self._store.devices.claim(device_id, claimed.owner, proved=True)
        return device if device is not None and device.owner == claimed.owner else None

    # --- for owners ---

    async def provision(self, owner: str, id_or_name: str, public_key: Any) -> Device:
        """Binds a public key to the owner's device; another that it had is good no more.

        In provisioning mode also to a device that nobody owns, or that is not known yet; one that has a key keeps it.

        Raises:
            Forbidden: The device is not the owner's.
            BadInput: The key is none.
        """
        try:
            device = await self._devices.get(owner, id_or_name)
        except Forbidden:
            if not self._settings.provisioning or not is_device_id(id_or_name.lower()):
                raise
            return await self._first_key(owner, id_or_name.lower(), _key_of(public_key))
        await self._replace(device.id, public_key=_key_of(public_key), bound_by=owner)
        return device

    async def _first_key(self, owner: str, device_id: str, key: bytes) -> Device:
        device = await self._store.devices.get(device_id) or await self._added(device_id)
        if device.owner is None:
            keys = await self._store.keys.bind(self._keys(device_id, public_key=key, bound_by=owner))
            if keys.public_key is not None and hmac.compare_digest(keys.public_key, key):
                return device
        raise Forbidden(f"{UNKNOWN}.", error="Permission Denied", info=f"{UNKNOWN}; claim the device first")

    async def new_claim_code(self, owner: str) -> tuple[str, list[str]]:
        """A code that makes the first device which sends it the owner's, within a day; and the devices they have."""
        code = secrets.token_urlsafe(CODE_LENGTH)[:CODE_LENGTH]
        now = self._clock.now()
        await self._store.claims.add(
            ClaimCode(digest=_digest(code), owner=owner, created_at=now, expires_at=now + CODE_MS)
        )
        return code, await self._store.devices.ids(DeviceFilter(owner=owner))

    # --- for the operator ---

    async def set_key(self, device_id: str, public_key: bytes) -> bool:
        """Binds a public key, PEM or DER, to a known device. Returns whether it is another than before.

        Raises:
            BadInput: It is no key that devices have.
            NotFound: The device is unknown.
        """
        return await self._replace(device_id, public_key=read_public_key(public_key))

    async def set_psk(self, device_id: str, psk: bytes) -> bool:
        """Gives a known device a pre-shared key. Returns whether it is another than before.

        Raises:
            BadInput: It is too short or too long.
            NotFound: The device is unknown.
        """
        return await self._replace(device_id, psk=check_psk(psk))

    async def remove_keys(self, device_id: str) -> bool:
        """Makes a known device one without keys, which is refused. Returns whether it had any.

        Raises:
            NotFound: The device is unknown.
        """
        if await self._store.keys.get(device_id) is None:
            return False
        return await self._set(self._keys(device_id))

    async def keys(self, device_id: str) -> DeviceKeys | None:
        """What is bound to the device."""
        return await self._store.keys.get(device_id)

    async def _replace(
        self, device_id: str, *, public_key: bytes | None = None, psk: bytes | None = None, bound_by: str | None = None
    ) -> bool:
        new = await self._store.keys.get(device_id) or self._keys(device_id)
        if public_key is not None:
            new = structs.replace(new, public_key=public_key, bound_by=bound_by, refused=None)
        if psk is not None:
            new = structs.replace(new, psk=psk)
        return await self._set(new)

    async def _set(self, keys: DeviceKeys) -> bool:
        device_id = keys.device
        changed = await self._store.keys.set(structs.replace(keys, changed_at=self._clock.now()))
        if changed and self._switchboard is not None:
            # Not linked, or gone this moment: its sessions are out of the store already.
            with contextlib.suppress(CloudError):
                await self._switchboard.ask(device_id, Leave())
        return changed

    async def _added(self, device_id: str) -> Device:
        device = Device(id=device_id, created_at=self._clock.now())
        try:
            await self._store.devices.add(device)
        except Conflict:
            # Two of its messages at once.
            known = await self._store.devices.get(device_id)
            if known is None:
                raise NotFound(f"there is no device {device_id}") from None
            return known
        return device

    def _keys(self, device_id: str, public_key: bytes | None = None, bound_by: str | None = None) -> DeviceKeys:
        return DeviceKeys(device=device_id, public_key=public_key, bound_by=bound_by, changed_at=self._clock.now())


def _compare(keys: DeviceKeys, public_key: bytes | None) -> None:
    """Raises Refused unless the key is bound; None stands for a pre-shared key, which was compared by using it."""
    bound = keys.psk if public_key is None else keys.public_key
    if bound is None:
        raise Refused("no_key", "no such key is bound to it; `wirechamber device keys` binds one")
    if public_key is not None and not hmac.compare_digest(bound, public_key):
        raise Refused("other_key", "another key is bound to it; `wirechamber device keys` replaces that")


def device_of(identity: bytes) -> str | None:
    """The device id that a pre-shared key's identity is; None when it is none."""
    try:
        text = identity.decode("ascii").lower()
    except UnicodeDecodeError:
        return None
    return text if is_device_id(text) else None


def _key_of(public_key: Any) -> bytes:
    if not isinstance(public_key, str):
        raise BadInput("send `publicKey`, the device's public key as PEM")
    return read_public_key(public_key.encode("utf-8", "replace"))


def read_public_key(data: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of a device's public key, P-256 or RSA, from PEM or DER.

    Raises:
        BadInput: It is neither, or a private key.
    """
    if len(data) > MAX_KEY_BYTES:
        raise BadInput(f"a public key has at most {MAX_KEY_BYTES} bytes")
    if data[:1] == b"\x30":
        # As a device's memory holds it.
        data = data.rstrip(b"\xff") if data.endswith(b"\xff" * 8) else data
    if b"PRIVATE KEY" in data:
        raise BadInput("that is a private key, which only the device should have; send the public key")
    try:
        key = load_der_public_key(plain_der(data.lstrip() if data.lstrip().startswith(b"-----") else data))
    except TooLong as problem:
        raise BadInput(str(problem)) from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput("that is no public key, PEM or DER (SubjectPublicKeyInfo)") from None
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise BadInput(f"devices have keys of the curve P-256, not {key.curve.name}")
    elif not isinstance(key, rsa.RSAPublicKey) or key.key_size not in RSA_BITS:
        raise BadInput("devices have a key of the curve P-256, or an RSA key of 1024 to 4096 bits")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def new_psk() -> bytes:
    """A pre-shared key that `survives_a_shell`."""
    while True:
        key = secrets.token_bytes(PSK_BYTES)
        if survives_a_shell(key):
            return key


def survives_a_shell(psk: bytes) -> bool:
    """Whether a key is the same once a shell has put it into an argument of a command.

    No argument holds a zero byte, and `$(…)` takes newlines off the end (POSIX, Shell Command Language, 2.6.3).
    """
    return b"\0" not in psk and not psk.endswith(b"\n")


def check_psk(psk: bytes) -> bytes:
    """The pre-shared key as it is.

    Raises:
        BadInput: It is too short or too long.
    """
    if not MIN_PSK <= len(psk) <= MAX_PSK:
        raise BadInput(f"a pre-shared key has {MIN_PSK} to {MAX_PSK} bytes")
    return psk


def new_device_key(*, tcp: bool = False) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    """A key pair for a device: P-256, or RSA-1024 for the older link over TCP."""
    if not tcp:
        return ec.generate_private_key(ec.SECP256R1())
    while True:
        key = rsa.generate_private_key(65537, RSA_DEVICE_BITS)
        numbers = key.private_numbers()
        # Devices read it at fixed places, so every number must fill its own (device-protocol.md, section 5.1).
        halves = (numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
        if numbers.d.bit_length() > RSA_DEVICE_BITS - 8 and all(
            half.bit_length() > RSA_DEVICE_BITS // 2 - 8 for half in halves
        ):
            return key


def as_pem(public_key: bytes) -> str:
    """A stored public key as PEM."""
    return load_der_public_key(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of the DER form: how a key is told to people."""
    return hashlib.sha256(public_key).hexdigest()


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()
