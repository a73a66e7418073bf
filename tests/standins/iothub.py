"""A stand-in of Azure IoT Hub over HTTPS: it refuses what Azure would (external-services.md, section 3.3).

Signature, expiry, resource (by path segments) and the rights of policies are verified; identities have etags and keys;
messages count against a quota. Microsoft's own clients work against it, which tests/interop shows.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import os
import re
import time
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus

from tests.standins.server import Asked, Said, Standin, in_json

REGISTRY_READ, REGISTRY_WRITE, SERVICE, DEVICE = "RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"
ALL = frozenset((REGISTRY_READ, REGISTRY_WRITE, SERVICE, DEVICE))
MAX_MESSAGE = 256 * 1024
_PROPERTY = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]*")
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-.+%_#*?!(),:=@$']{1,128}")


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


class IotHub(Standin):
    """The service.

    Args:
        host: The hub's own name, for which tokens must be signed.
        policies: Rights of each shared access policy.
    """

    def __init__(self, host: str = "test-hub.azure-devices.net", **server: Any) -> None:
        super().__init__(**server)
        self.host = host
        self.keys = {"iothubowner": new_key(), "readonly": new_key(), "noservice": new_key()}
        self.rights = {
            "iothubowner": ALL, "readonly": frozenset((REGISTRY_READ,)), "noservice": ALL - {SERVICE},
        }  # fmt: skip
        self.identities: dict[str, dict[str, Any]] = {}
        self.twins: dict[str, dict[str, Any]] = {}
        self.messages: list[tuple[str, dict[str, str], Any]] = []
        self.quota = 10**9
        self._etags = itertools.count(1)

    def answer(self, asked: Asked) -> Said:
        if not asked.query.get("api-version"):
            return problem(400, 400004, "ArgumentInvalid")
        segments = [unquote(part) for part in asked.path.strip("/").split("/")]
        match asked.method, segments:
            case "PUT", ["devices", device]:
                return self._needs(asked, REGISTRY_WRITE, device) or self._put(asked, device)
            case "GET", ["devices", device]:
                return self._needs(asked, REGISTRY_READ, device) or self._get(device)
            case "DELETE", ["devices", device]:
                return self._needs(asked, REGISTRY_WRITE, device) or self._delete(asked, device)
            case "PATCH", ["twins", device]:
                return self._needs(asked, SERVICE, device) or self._patch(asked, device)
            case "GET", ["twins", device]:
                return self._needs(asked, SERVICE, device) or self._twin(device)
            case "POST", ["devices", device, "messages", "events"]:
                return self._needs(asked, DEVICE, device) or self._take(asked, device)
        return problem(404, 404000, "NotFound")

    # --- who may ---

    def _needs(self, asked: Asked, right: str, device: str) -> Said | None:
        why = self._refuses(asked.header("Authorization"), asked.path, right, device)
        return None if why is None else problem(401, 401003, "IotHubUnauthorizedAccess", why)

    def _refuses(self, token: str, path: str, right: str, device: str) -> str | None:
        """Why a token does not give a right on a path."""
        scheme, _, rest = token.partition(" ")
        fields = {name: values[0] for name, values in parse_qs(rest, strict_parsing=False).items()}
        raw = dict(part.partition("=")[::2] for part in rest.split("&"))
        if scheme != "SharedAccessSignature" or not {"sr", "sig", "se"} <= set(fields):
            return "no token"
        if not fields["se"].isdigit() or int(fields["se"]) <= time.time():
            return "expired"
        policy = fields.get("skn")
        keys = [self.keys[policy]] if policy in self.keys else [] if policy else self._keys_of(device)
        if policy is not None and right not in self.rights.get(policy, frozenset()):
            return f"the policy lacks {right}"
        if policy is None and right != DEVICE:
            return "a device's key gives DeviceConnect only"
        signed = f"{raw['sr']}\n{raw['se']}".encode()
        good = [
            base64.b64encode(hmac.new(base64.b64decode(key), signed, hashlib.sha256).digest()).decode() for key in keys
        ]
        if unquote_plus(raw["sig"]) not in good:
            return "bad signature"
        if not _covers(unquote_plus(raw["sr"]), self.host + path):
            return "another resource"
        if right == DEVICE and self.identities.get(device, {}).get("status") == "disabled":
            return "the device is disabled"
        return None

    def _keys_of(self, device: str) -> list[str]:
        keys = self.identities.get(device, {}).get("authentication", {}).get("symmetricKey", {})
        return [key for key in keys.values() if key]

    # --- what is done ---

    def _put(self, asked: Asked, device: str) -> Said:
        try:
            wanted = asked.json()
            if wanted["deviceId"] != device or not _DEVICE_ID.fullmatch(device):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            return problem(400, 400006, "InvalidFormat")
        if device in self.identities:
            if not asked.header("If-Match"):
                return problem(409, 409001, "DeviceAlreadyExists")
            if asked.header("If-Match").strip('"') not in ("*", self.identities[device]["etag"]):
                return problem(412, 412001, "PreconditionFailed")
        authentication = wanted.get("authentication") or {"type": "sas"}
        if authentication.get("type", "sas") == "sas":
            given = authentication.get("symmetricKey") or {}
            authentication["symmetricKey"] = {
                name: given.get(name) or new_key() for name in ("primaryKey", "secondaryKey")
            }
        identity = {
            "deviceId": device, "generationId": "638", "etag": str(next(self._etags)),
            "connectionState": "Disconnected", "status": wanted.get("status", "enabled"),
            "authentication": authentication, "cloudToDeviceMessageCount": 0,
        }  # fmt: skip
        self.identities[device] = identity
        self.twins.setdefault(device, {"deviceId": device, "etag": "AA", "properties": {"desired": {}}})
        return in_json(200, identity)

    def _get(self, device: str) -> Said:
        if device not in self.identities:
            return problem(404, 404001, "DeviceNotFound")
        return in_json(200, self.identities[device])

    def _delete(self, asked: Asked, device: str) -> Said:
        if device not in self.identities:
            return problem(404, 404001, "DeviceNotFound")
        if not asked.header("If-Match"):
            return problem(412, 412001, "PreconditionFailed")
        del self.identities[device], self.twins[device]
        return Said(204)

    def _patch(self, asked: Asked, device: str) -> Said:
        if device not in self.twins:
            return problem(404, 404001, "DeviceNotFound")
        self.twins[device]["properties"]["desired"] |= asked.json()["properties"]["desired"]
        return in_json(200, self.twins[device])

    def _twin(self, device: str) -> Said:
        return in_json(200, self.twins[device]) if device in self.twins else problem(404, 404001, "DeviceNotFound")

    def _take(self, asked: Asked, device: str) -> Said:
        if device not in self.identities:
            return problem(404, 404001, "DeviceNotFound")
        size = len(asked.body) + sum(
            len(name) + len(value) for name, value in asked.headers.items() if name.lower().startswith("iothub-")
        )
        if size > MAX_MESSAGE:
            return problem(413, 413001, "MessageTooLarge")
        for name, value in asked.headers.items():
            if name.lower().startswith("iothub-app-") and not _PROPERTY.fullmatch(value):
                return problem(400, 400004, "ArgumentInvalid")
        if len(self.messages) >= self.quota:
            return problem(403, 403002, "IotHubQuotaExceeded")
        # As routes see it: a body of no said type and encoding is binary, and shown in Base64.
        readable = asked.header("iothub-contenttype") == "application/json" and (
            asked.header("iothub-contentencoding").lower() == "utf-8"
        )
        body = json.loads(asked.body) if readable else base64.b64encode(asked.body).decode()
        self.messages.append((device, {name.lower(): value for name, value in asked.headers.items()}, body))
        return Said(204)


def _covers(resource: str, wanted: str) -> bool:
    """Whether a token's resource is the wanted one or stands above it, segment by segment."""
    have, want = resource.lower().rstrip("/").split("/"), wanted.lower().rstrip("/").split("/")
    return want[: len(have)] == have


def problem(status: int, code: int, name: str, more: str = "", *headers: tuple[str, str]) -> Said:
    text = f"ErrorCode:{name};{more or name}"
    body = {"Message": text, "ExceptionMessage": f"Tracking ID:{os.urandom(8).hex()}", "code": code}
    return in_json(status, body, ("iothub-errorcode", name), *headers)
