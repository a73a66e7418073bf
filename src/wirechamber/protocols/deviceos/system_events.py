"""Events that are not the application's: names that the firmware publishes and listens to
(device-protocol.md, section 10)."""

from __future__ import annotations

# Whatever begins like this is between firmware and cloud. An application can't publish it.
PREFIXES = ("spark", "particle")

# --- from devices ---
UPDATES_ENABLED = "particle/device/updates/enabled"
# Also to devices: they answer with the same.
UPDATES_FORCED = "particle/device/updates/forced"
LAST_RESET = "spark/device/last_reset"
CLAIM_CODE = "spark/device/claim/code"
SAFE_MODE = "spark/device/safemode"
KEY_ERROR = "spark/device/key/error"
# Up to 6.1.
SERIAL = "spark/device/ident/0"
# Up to 2.3; in the Hello since then.
MAX_BINARY = "spark/hardware/max_binary"
CHUNK_SIZE = "spark/hardware/ota_chunk_size"

# --- to devices ---
UPDATES_PENDING = "particle/device/updates/pending"
RESET = "spark/device/reset"
RESTORE_KEY = "spark/device/key/restore"
# The firmware clears its claim code on anything below this.
CLAIMED = "spark/device/claim/claimed"

# What `RESET` takes.
REBOOT = "reboot"
ENTER_SAFE_MODE = "safe mode"
ENTER_DFU = "dfu"
RESET_NETWORK = "network"

# --- asked by applications, and answered by the same name ---
NAME_SUFFIX = "device/name"
IP_SUFFIX = "device/ip"
RANDOM_SUFFIX = "device/random"


def is_system(name: str) -> bool:
    """Whether an event is between firmware and cloud."""
    return name.startswith(PREFIXES)


def flag_text(on: bool) -> bytes:
    """The data of an event that switches something. Empty data would count as true, so it is always said."""
    return b"true" if on else b"false"


def is_true(data: bytes) -> bool:
    """What the firmware takes the data of such an event for: as much of it as there is must be of `true`."""
    return data == b"true"[: len(data)]
