"""Pub/Sub for tests: Google's own emulator where it is installed, and a stand-in in front of it that checks who asks.

The emulator asks nobody for credentials (external-services.md, section 1.4), so the stand-in verifies the signed
statement of a service account and the bearer token itself, with nothing of google-auth, and counts tokens. Without an
emulator behind it, it keeps the messages itself.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.cloud import eventually
from tests.standins.server import Asked, Said, Standin, in_json

JAR = "WIRECHAMBER_TEST_PUBSUB_EMULATOR_JAR"
TOPIC = "projects/test-project/topics/events"
EMAIL = "publisher@test-project.iam.gserviceaccount.com"
AUDIENCE = "https://pubsub.googleapis.com/"
TOKEN_AUDIENCE = "https://oauth2.googleapis.com/token"


def emulator_jar() -> Path | None:
    """Google's emulator: named by a variable, or below the Google Cloud CLI."""
    if os.environ.get(JAR):
        return Path(os.environ[JAR])
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return None
    root = Path(gcloud).resolve().parents[1]
    return next((root / "platform" / "pubsub-emulator" / "lib").glob("cloud-pubsub-emulator-*-all.jar"), None)


def emulator(folder: Path) -> AbstractContextManager[str]:
    """Google's emulator, running: its host and port."""
    jar = emulator_jar()
    java = shutil.which("java")
    assert jar is not None
    assert java is not None
    return _running(folder, java, "-Xmx128m", "-jar", str(jar), "--host=127.0.0.1", "--port={port}")


def pure_emulator(folder: Path) -> AbstractContextManager[str]:
    """`drongo`, which speaks REST and needs Python only, running: its host and port."""
    program = "from drongo.cli import main; main()"
    return _running(folder, sys.executable, "-c", program, "server", "--host=127.0.0.1", "--port={port}")


@contextmanager
def _running(folder: Path, *command: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "emulator.log").open("wb") as log:
        process = subprocess.Popen([each.format(port=port) for each in command], stdout=log, stderr=log, cwd=folder)
    try:
        eventually(lambda: _answers(port), 60, "the emulator")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


class Account:
    """A service account with a key of its own."""

    def __init__(self, token_uri: str = "http://127.0.0.1:1/never") -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        # As Google's console makes the file; the address in it is one that must never be called.
        self.file = {
            "type": "service_account", "project_id": "test-project", "private_key_id": "abc123", "private_key": pem,
            "client_email": EMAIL, "client_id": "1", "token_uri": token_uri, "universe_domain": "googleapis.com",
        }  # fmt: skip

    @property
    def text(self) -> str:
        return json.dumps(self.file)


class PubSub(Standin):
    """The service.

    Args:
        account: Whose statements are believed.
        behind: Host and port of an emulator that takes what may pass.
    """

    def __init__(self, account: Account, behind: str | None = None) -> None:
        super().__init__()
        self.account = account
        self.behind = behind
        self.topics = {TOPIC}
        self.messages: list[dict[str, Any]] = []
        self.batches: list[int] = []
        self.tokens: dict[str, float] = {}
        self.bearers: set[str] = set()
        self.token_life = 3600.0
        self.revoked = False
        self.poison: str | None = None

    def answer(self, asked: Asked) -> Said:
        if asked.path == "/token":
            return self._token(asked)
        bearer = asked.header("Authorization").removeprefix("Bearer ")
        if not self._believes(bearer):
            return problem(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        self.bearers.add(bearer)
        if self.behind is not None:
            return self._forward(asked)
        topic, _, verb = asked.path.removeprefix("/v1/").rpartition(":")
        if (asked.method, verb) != ("POST", "publish"):
            return problem(404, "NOT_FOUND", "no such method")
        if topic not in self.topics:
            return problem(404, "NOT_FOUND", "Resource not found (resource=events).")
        return self._publish(asked.json()["messages"])

    def _publish(self, messages: list[dict[str, Any]]) -> Said:
        self.batches.append(len(messages))
        keys = {message.get("orderingKey") for message in messages}
        if not 0 < len(messages) <= 1000 or len(keys) > 1:
            return problem(400, "INVALID_ARGUMENT", "one ordering key in a request")
        for message in messages:
            data = base64.b64decode(message.get("data", ""), validate=True)
            attributes = message.get("attributes", {})
            if set(message) - {"data", "attributes", "orderingKey"} or not (data or attributes):
                return problem(400, "INVALID_ARGUMENT", "an empty or unknown message")
            if len(attributes) > 100 or any(
                len(key.encode()) > 256 or len(value.encode()) > 1024 or key.startswith("goog")
                for key, value in attributes.items()
            ):
                return problem(400, "INVALID_ARGUMENT", "attributes")
            if self.poison is not None and data.decode() == self.poison:
                return problem(400, "INVALID_ARGUMENT", "a message can't be taken")
        first = len(self.messages) + 1
        self.messages += messages
        return in_json(200, {"messageIds": [str(first + index) for index in range(len(messages))]})

    @property
    def data(self) -> list[str]:
        return [base64.b64decode(message.get("data", "")).decode() for message in self.messages]

    # --- who may ---

    def _token(self, asked: Asked) -> Said:
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        claims = self._statement(form.get("assertion", ""))
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" or claims is None or self.revoked:
            why = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return in_json(400, why)
        if claims.get("aud") not in (TOKEN_AUDIENCE, f"{self.url}/token") or "pubsub" not in claims.get("scope", ""):
            return in_json(400, {"error": "invalid_scope", "error_description": "Invalid OAuth scope or audience."})
        token = f"ya29.{base64.urlsafe_b64encode(os.urandom(24)).decode()}"
        self.tokens[token] = time.time() + self.token_life
        return in_json(200, {"access_token": token, "expires_in": int(self.token_life), "token_type": "Bearer"})

    def _believes(self, bearer: str) -> bool:
        if self.revoked:
            return False
        if bearer in self.tokens:
            return self.tokens[bearer] > time.time()
        claims = self._statement(bearer)
        return claims is not None and claims.get("aud") == AUDIENCE and claims.get("sub") == EMAIL

    def _statement(self, jwt: str) -> dict[str, Any] | None:
        """The claims of a JWT that the account signed and that counts now."""
        try:
            head, claims, signature = (
                base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in jwt.split(".")
            )
            signed = jwt.rpartition(".")[0].encode()
            self.account.key.public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            header, found = json.loads(head), json.loads(claims)
        except (ValueError, InvalidSignature):
            return None
        now = time.time()
        good = header == {"alg": "RS256", "typ": "JWT", "kid": "abc123"} and found["iss"] == EMAIL
        timely = found["iat"] <= now + 5 and now < found["exp"] <= found["iat"] + 3600
        return found if good and timely else None

    def _forward(self, asked: Asked) -> Said:
        connection = http.client.HTTPConnection(self.behind or "", timeout=30)
        try:
            connection.request(asked.method, asked.path, asked.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        return Said(answer.status, body, (("Content-Type", "application/json"),))


def problem(status: int, name: str, message: str, *headers: tuple[str, str], reason: str | None = None) -> Said:
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    if reason is not None:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]
    return in_json(status, {"error": error}, *headers)
