"""What saving an integration may not do: send a secret elsewhere, act as the server, or hold everybody up."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.cloud import Cloud, Target, cloud, eventually
from tests.delivery.builders import an_integration
from tests.sse import stream, take
from tests.standins.pubsub import TOPIC, Account, PubSub
from wirechamber.errors import BadInput
from wirechamber.integrations.base import MASK
from wirechamber.integrations.registry import Registry
from wirechamber.integrations.webhook import Webhook
from wirechamber.model.keysize import MAX_RSA_BITS, TooLong, longest_number, plain_der
from wirechamber.services.identity import read_public_key
from wirechamber.services.integrations import Integrations

URL = "https://example.com/in"


@pytest.fixture
def client(live_shared: tuple[Cloud, str]) -> Iterator[httpx.Client]:
    live, token = live_shared
    client = live.client(token)
    yield client
    for each in client.get("/v1/integrations").json():
        client.delete(f"/v1/integrations/{each['id']}")


def saved(client: httpx.Client, **settings: Any) -> dict[str, Any]:
    made = client.post("/v1/integrations", json={"event": "saved"} | settings)
    assert made.status_code == 201, made.text
    return dict(made.json())


MASKED = {"headers": {"Authorization": MASK}}
SECRET = {"headers": {"Authorization": "Bearer s3cr3t"}}


@pytest.mark.parametrize(
    ("before", "after", "keeps"),
    [
        (URL, "https://example.com/other?x={{y}}", True),
        (URL, "HTTPS://EXAMPLE.com:443/{{a}}", True),
        (URL, "https://evil.example/in", False),
        (URL, "http://example.com/in", False),
        (URL, "https://example.com:444/in", False),
        (URL, "https://example.com.evil.example/in", False),
        (URL, "https://example.com{{#a}}.evil.example{{/a}}/in", False),
        (URL, "https://example.com{{! / }}.evil.example/in", False),
        (URL, "https://example.com@evil.example/in", False),
        (URL, "{{{url}}}", False),
        (URL, "{{=<% %>=}}https://example.com/in", False),
        ("https://{{{host}}}/in", "https://{{{host}}}/in", True),
        ("https://{{{host}}}/in", "https://{{{other}}}/in", False),
        ("https://{{a/b}}.example.com/", "https://{{a/c}}evil.example/", False),
        ("{{{url}}}/a", "{{{url}}}/b", False),
    ],
)
def test_a_mask_keeps_a_secret_only_for_the_same_target(
    client: httpx.Client, before: str, after: str, keeps: bool
) -> None:
    made = saved(client, url=before, **SECRET)
    changed = client.put(f"/v1/integrations/{made['id']}", json={"event": "saved", "url": after, **MASKED})
    if keeps:
        assert changed.status_code == 200, changed.text
        return
    assert changed.status_code == 400
    assert "only while scheme, host and port of the target stay the same" in changed.json()["error"]
    assert changed.json()["error"].startswith(("headers.Authorization: ", "auth.password: "))
    # Sent again, it may go anywhere.
    changed = client.put(f"/v1/integrations/{made['id']}", json={"event": "saved", "url": after, **SECRET})
    assert changed.status_code in (200, 400), changed.text
    assert "stay the same" not in changed.text


def test_a_mask_keeps_a_key_only_for_the_same_hub(client: httpx.Client) -> None:
    key = base64.b64encode(bytes(32)).decode()
    settings = {"integration_type": "AzureIotHub", "hub_name": "my-hub", "policy_name": "owner"}
    made = saved(client, policy_key=key, **settings)
    where = f"/v1/integrations/{made['id']}"
    sent = {"event": "saved", **settings, "policy_key": MASK}
    assert client.put(where, json=sent | {"hub_name": "MY-HUB"}).status_code == 200
    refused = client.put(where, json=sent | {"hub_name": "evil-hub"})
    assert refused.status_code == 400
    assert refused.json()["error"].startswith(f"policy_key: is {MASK}, which keeps")


@pytest.mark.parametrize(
    ("url", "shown", "user"),
    [
        ("{{{x}}}http://user:PA55@host/", "{{{x}}}http://host/", "user"),
        ("{{{proto}}}user:PA55@host/", "{{{proto}}}host/", "user"),
        ("{{{scheme}}}://user:PA55@host/{{y}}", "{{{scheme}}}://host/{{y}}", "user"),
        ("http://{{u}}:PA55@host/a@b", "http://host/a@b", "{{u}}"),
        ("http://us%40er:PA%355@host/", "http://host/", "us@er"),
    ],
)
def test_a_password_in_any_url_is_moved_and_told(client: httpx.Client, url: str, shown: str, user: str) -> None:
    made = saved(client, url=url)
    assert (made["url"], made["auth"]) == (shown, {"username": user, "password": MASK})
    assert made["warnings"] == ["url: its user name and password were moved to auth"]
    assert "PA55" not in client.get("/v1/integrations").text


@pytest.mark.parametrize(
    "url", ["{{#a}}http://u:PA55@h1/{{/a}}{{^a}}http://u:PA55@h2/{{/a}}", "{{{a}}}{{{b}}}:PA55@host/"]
)
def test_a_password_that_can_not_be_moved_is_refused(client: httpx.Client, url: str) -> None:
    refused = client.post("/v1/integrations", json={"event": "saved", "url": url})
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("url: holds a password")
    assert "PA55" not in refused.text


@pytest.mark.parametrize("url", ["https://host/a:b@c", "https://host?u=http://a:b@c/", "{{{base}}}/users/a:b@c"])
def test_what_is_no_password_stays(client: httpx.Client, url: str) -> None:
    made = saved(client, url=url)
    assert (made["url"], made["warnings"]) == (url, [])


def test_a_configuration_of_many_values_is_refused(client: httpx.Client) -> None:
    refused = client.post("/v1/integrations", json={"event": "saved", "url": URL, "note": [[0]] * 20_000})
    assert refused.status_code == 400
    assert "more than 20000 values" in refused.text


# --- the server's own identity ---


def test_the_servers_identity_is_nobodys_until_it_is_granted(tmp_path: Path, target: Target) -> None:
    account = Account()
    (tmp_path / "operator.json").write_text(account.text)
    token = "ya29.the-operators-token"

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path == "/token":
            return 200, {}, json.dumps({"access_token": token, "expires_in": 3600}).encode()
        # A target that echoes.
        return 403, {"X-Echo": token}, json.dumps({"error": {"message": token}}).encode()

    target.answer = answer
    settings = {
        "pubsub_url": target.url, "google_token_url": target.url + "/token",
        "google_credentials": str(tmp_path / "operator.json"),
    }  # fmt: skip
    with cloud(tmp_path / "data", retry_schedule="0,0.1", **settings) as live:
        client = live.client(live.user("ann"))
        sent = {"integration_type": "GoogleCloudPubSub", "event": "temp", "topic": TOPIC}
        refused = client.post("/v1/integrations", json=sent)
        assert refused.status_code == 403
        assert "wirechamber user grant NAME google-identity" in refused.text

        assert "google-identity" in live.command("user", "grant", "ann", "google-identity")
        assert "google-identity" in live.command("user", "list")
        made = client.post("/v1/integrations", json=sent)
        assert made.status_code == 201, made.text
        hook = f"/v1/integrations/{made.json()['id']}"
        with stream(client, "/v1/devices/events/hook-") as source:
            client.post("/v1/devices/events", json={"name": "temp", "data": "1"}).raise_for_status()
            (told,) = take(source, 1)
        (attempt,) = eventually(lambda: client.get(f"{hook}/logs").json()["logs"])
        # The host and how it ended, and nothing of what was said.
        (earlier,) = attempt["earlier"]
        assert earlier["request"] == {"method": "POST", "url": target.url, "headers": []}
        assert earlier["response"]["status"] == 200
        assert earlier["response"]["body"] == ""
        everything = "".join(
            [json.dumps(attempt), told.data, client.get(hook).text, live.log_file.read_text(),
             client.post(f"{hook}/test").text]
        )  # fmt: skip
        assertion = target.requests[0][3].decode().partition("assertion=")[2]
        assert assertion
        for secret in (token, assertion, assertion.rpartition(".")[2]):
            assert secret not in everything

        # Taken back, it pauses at the next event, and can't be saved again.
        target.answer = lambda method, path, body: (
            200, {}, b'{"access_token":"other"}' if path == "/token" else b'{"messageIds":["1"]}'
        )  # fmt: skip
        with stream(client, "/v1/devices/events/hook-sent") as source:
            client.put(hook, json={"disabled": False}).raise_for_status()
            take(source, 1)
        live.command("user", "revoke", "ann", "google-identity")
        before = len(target.requests)
        client.post("/v1/devices/events", json={"name": "temp", "data": "2"}).raise_for_status()
        paused = eventually(lambda: client.get(hook).json()["integration"]["paused"])
        assert "not yours to use" in paused
        assert len(target.requests) == before
        assert client.put(hook, json={"disabled": False}).status_code == 403


# --- keys ---


def pem(bits: int) -> str:
    key = rsa.generate_private_key(65537, bits)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def der_number(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1)
    return _value(0x02, body)


def _value(tag: int, body: bytes) -> bytes:
    length = len(body)
    size = (
        bytes([length])
        if length < 128
        else bytes([0x80 | (length.bit_length() + 7) // 8]) + length.to_bytes((length.bit_length() + 7) // 8)
    )
    return bytes([tag]) + size + body


def long_key(bits: int) -> str:
    """What looks like an RSA key of that length; making a true one of 8,192 bits would take minutes."""
    numbers = [0, (1 << bits) - 1, 65537, (1 << bits) - 3, *[(1 << bits // 2) - 1] * 5]
    inner = _value(0x30, b"".join(map(der_number, numbers)))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    whole = _value(0x30, der_number(0) + algorithm + _value(0x04, inner))
    text = base64.encodebytes(whole).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (long_key(5_000), "an RSA key has at most 4096 bits, not 5000"),
        (long_key(8_192), "an RSA key has at most 4096 bits, not 8192"),
        (long_key(16_384), "an RSA key has at most 4096 bits, not 16384"),
        ("-----BEGIN PRIVATE KEY-----\n" + "A" * 15_000 + "\n-----END PRIVATE KEY-----\n", "can't be read"),
        (pem(1024) + long_key(4_400), "can't be read"),
        ("nonsense", "can't be read"),
    ],
)
def test_a_key_that_is_too_long_is_refused_before_it_is_read(client: httpx.Client, key: str, why: str) -> None:
    credentials = Account().file | {"private_key": key}
    sent = {"integration_type": "GoogleCloudPubSub", "event": "saved", "topic": TOPIC, "credentials": credentials}
    refused = client.post("/v1/integrations", json=sent)
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("credentials: ")
    assert why in refused.json()["error"]


def test_a_file_that_is_too_long_is_refused_before_it_is_read(client: httpx.Client) -> None:
    for credentials in ("[" * 20_000, json.dumps(Account().file | {"note": "x" * 20_000})):
        sent = {"integration_type": "GoogleCloudPubSub", "event": "saved", "topic": TOPIC, "credentials": credentials}
        refused = client.post("/v1/integrations", json=sent)
        assert refused.status_code == 400
        assert "at most 16384 characters" in refused.json()["error"]


def test_the_longest_key_there_may_be_is_read_and_signs(tmp_path: Path) -> None:
    account = Account()
    account.key = rsa.generate_private_key(65537, MAX_RSA_BITS)
    account.file["private_key"] = account.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with PubSub(account) as google, cloud(tmp_path / "data", pubsub_url=google.url) as live:
        client = live.client(live.user("ann"))
        saved(client, integration_type="GoogleCloudPubSub", topic=TOPIC, credentials=account.text)
        with stream(client, "/v1/devices/events/hook-sent") as source:
            client.post("/v1/devices/events", json={"name": "saved", "data": "1"}).raise_for_status()
            take(source, 1)
        assert google.data == ["1"]


@pytest.mark.parametrize("bits", [1024, 2048, 4096])
def test_the_length_of_a_key_is_told_from_its_bytes(bits: int) -> None:
    key = rsa.generate_private_key(65537, bits)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        for encoding in (Encoding.PEM, Encoding.DER):
            assert longest_number(plain_der(key.private_bytes(encoding, form, NoEncryption()))) == bits
    public = key.public_key()
    for public_form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
        for encoding in (Encoding.PEM, Encoding.DER):
            assert longest_number(plain_der(public.public_bytes(encoding, public_form))) == bits


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x05\x02", b"\x30\x80", b"0" * 4_000, b"\x30\x84\xff\xff\xff\xff"]
)
def test_what_is_no_key_is_told_so(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        longest_number(plain_der(data))


def test_a_key_as_long_as_may_be_is_no_error_and_one_bit_more_is() -> None:
    plain_der(long_key(4_096).encode())
    with pytest.raises(TooLong):
        plain_der(long_key(4_097).encode())


def test_a_password_that_was_saved_in_a_url_is_not_shown() -> None:
    record = an_integration(settings={"url": "{{{x}}}http://user:PA55@host/", "body": "http://a:b@c/"})
    service = Integrations(None, None, Registry([Webhook()]), None, None, None)  # type: ignore[arg-type]
    shown = service.view(record)
    assert (shown["url"], shown["body"]) == ("{{{x}}}http://user:[[SENSITIVE]]@host/", "http://a:b@c/")


@pytest.mark.parametrize("key", [long_key(4_097), "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"])
def test_a_devices_key_is_measured_before_it_is_read(key: str) -> None:
    whole = key.replace("PRIVATE", "PUBLIC").encode()
    with pytest.raises(BadInput, match=r"at most 4096|no public key"):
        read_public_key(whole)
