"""What an operator relies on: health, metrics, logs, certificates, proxies, and a disk that fills up."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.cloud import Cloud, Target, cloud, eventually

DOCS = Path(__file__).parents[2] / "docs"


def test_health_and_readiness(live_shared: tuple[Cloud, str]) -> None:
    live, _ = live_shared
    for path in ("/healthz", "/readyz"):
        answer = httpx.get(live.url + path)
        assert (answer.status_code, answer.json()["ok"]) == (200, True)
        # Balancers probe with HEAD.
        answer = httpx.head(live.url + path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_browsers_may_call(live_shared: tuple[Cloud, str]) -> None:
    live, token = live_shared
    answer = httpx.options(
        f"{live.url}/v1/devices",
        headers={
            "Origin": "https://app.example.com",
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "authorization,content-type,x-particle-tool",
        },
    )
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    for header in ("authorization", "content-type", "x-particle-tool", "x-requested-with", "last-event-id"):
        assert header in allowed
    with live.client(token) as client:
        assert client.get("/v1/devices", headers={"Origin": "null"}).headers["Access-Control-Allow-Origin"] == "*"


def _samples(live: Cloud) -> dict[str, float]:
    text = httpx.get(f"{live.url}/metrics").text
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def _sum(samples: dict[str, float], name: str) -> float:
    return sum(value for key, value in samples.items() if key.split("{")[0] == name)


def test_metrics_follow_the_conventions_and_count(live: Cloud, target: Target) -> None:
    token = live.user("ann")
    with live.client(token) as client:
        hook = {"event": "temp", "url": f"{target.url}/in"}
        assert client.post("/v1/webhooks", json=hook).status_code == 201
        before = _samples(live)
        for number in range(3):
            assert client.post("/v1/devices/events", json={"name": "temp", "data": str(number)}).status_code == 200
        assert client.post("/v1/devices/events", json={"name": ""}).status_code == 400
        eventually(lambda: len(target.requests) == 3, what="three requests")
        after = eventually(
            lambda: (
                (found := _samples(live))
                and _sum(found, "wirechamber_deliveries_total") - _sum(before, "wirechamber_deliveries_total") >= 3
                and found
            )
        )
    # Prometheus: base units, one prefix, counters end in _total.
    ours = [name for name in after if name.startswith("wirechamber_")]
    assert len(ours) > 10
    for name in ours:
        assert re.fullmatch(r"wirechamber_[a-z0-9_]+", name.split("{")[0])
        assert "_ms" not in name.split("{")[0]
        assert "_kb" not in name.split("{")[0]
    name = "wirechamber_events_total"
    assert _sum(after, name) - _sum(before, name) >= 3
    name = "wirechamber_input_refused_total"
    assert _sum(after, name) - _sum(before, name) == 1
    assert not any(token in name for name in after)


def test_secrets_stay_out_of_the_log(live: Cloud, target: Target) -> None:
    token = live.user("ann", "pink elephants")
    target.answer = lambda method, path, body: (500, {}, b"no")
    with live.client(token) as client:
        client.post(
            "/v1/webhooks",
            json={"event": "temp", "url": f"{target.url}/in", "auth": {"username": "u", "password": "s3cr3t-word"}},
        )
        client.post("/v1/devices/events", json={"name": "temp"})
        httpx.get(f"{live.url}/v1/devices?access_token={token}")
        httpx.get(f"{live.url}/v1/devices?access_token={token}x")
        httpx.post(f"{live.url}/oauth/token", data={"grant_type": "password", "username": "ann", "password": "wr0ng-1"})
        eventually(lambda: len(target.requests) >= 2, what="a retry")
    assert live.stop() == 0
    text = live.log_file.read_text()
    assert "serving" in text
    for secret in (token, "pink elephants", "s3cr3t-word", "wr0ng-1"):
        assert secret not in text
    # Not on a terminal: each line is one JSON object with a time, a level and what happened.
    for line in text.splitlines():
        entry = json.loads(line)
        assert {"timestamp", "level", "event"} <= entry.keys(), line


def test_a_nearly_full_disk_refuses_events_and_says_so(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free // 2**20
    with cloud(tmp_path / "data", disk_floor_mb=str(free * 10)) as live:
        with live.client(live.user("ann")) as client:
            for _ in range(50):
                answer = client.post("/v1/devices/events", json={"name": "temp"})
                assert answer.status_code == 503
                assert "disk" in answer.json()["error_description"]
            assert client.get("/v1/devices").status_code == 200
        assert httpx.get(f"{live.url}/readyz").status_code == 503
        assert httpx.get(f"{live.url}/healthz").status_code == 200
        live.stop()
        # What refuses every event must not fill what is left with lines about it.
        assert live.log_file.read_text().count("nearly full") < 10


@contextmanager
def certified(tmp_path: Path, **settings: str) -> Iterator[tuple[Cloud, trustme.CA, Path, Path]]:
    ca = trustme.CA()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    _write(ca, cert, key)
    with cloud(tmp_path / "data", tls_cert=str(cert), tls_key=str(key), **settings) as live:
        yield live, ca, cert, key


def _write(ca: trustme.CA, cert: Path, key: Path) -> bytes:
    leaf = ca.issue_cert("127.0.0.1", "localhost")
    leaf.private_key_pem.write_to_path(key)
    cert.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


def _presented(live: Cloud, context: ssl.SSLContext) -> bytes:
    host, port = live.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        return der


def test_a_renewed_certificate_is_taken_up(tmp_path: Path) -> None:
    with certified(tmp_path) as (live, ca, cert, key):
        assert live.url.startswith("https://")
        context = ssl.create_default_context()
        ca.configure_trust(context)
        token = live.user("ann")
        with httpx.Client(base_url=live.url, verify=context, headers={"Authorization": f"Bearer {token}"}) as client:
            first = _presented(live, context)
            # The files change one after the other: until they fit, the old pair serves.
            other = ca.issue_cert("127.0.0.1")
            cert.write_bytes(b"".join(part.bytes() for part in other.cert_chain_pems))
            eventually(lambda: "certificate_not_reloaded" in live.log_file.read_text(), what="the half change")
            assert _presented(live, context) == first
            other.private_key_pem.write_to_path(key)
            second = ssl.PEM_cert_to_DER_cert(other.cert_chain_pems[0].bytes().decode())
            eventually(lambda: _presented(live, context) == second, what="the new certificate")
            # A connection from before goes on.
            assert client.get("/v1/devices").status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(live.url.replace("https", "http") + "/healthz")


def _kind(live: Cloud, context: ssl.SSLContext) -> str:
    return type(x509.load_der_x509_certificate(_presented(live, context)).public_key()).__name__


def test_a_certificate_of_another_kind_is_served_once_it_is_there(tmp_path: Path) -> None:
    with certified(tmp_path) as (live, ca, cert, key):
        context = ssl.create_default_context()
        ca.configure_trust(context)
        assert _kind(live, context) == "ECPublicKey"
        for kind, name in ((trustme.KeyType.RSA, "RSAPublicKey"), (trustme.KeyType.ECDSA, "ECPublicKey")):
            leaf = ca.issue_cert("127.0.0.1", key_type=kind)
            leaf.private_key_pem.write_to_path(key)
            cert.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
            eventually(lambda name=name: _kind(live, context) == name, what=name)


def _encrypted(key: Path) -> bytes:
    plain = load_pem_private_key(key.read_bytes(), None)
    return plain.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret phrase")
    )


def test_an_encrypted_key_is_told_and_never_asked_for(tmp_path: Path) -> None:
    with certified(tmp_path) as (live, ca, _, key):
        context = ssl.create_default_context()
        ca.configure_trust(context)
        first = _presented(live, context)
        key.write_bytes(_encrypted(key))
        eventually(lambda: "is encrypted" in live.log_file.read_text(), what="the warning")
        assert _presented(live, context) == first
        assert live.stop() == 0
        with pytest.raises(AssertionError, match="is encrypted"):
            live.start()


def test_a_certificate_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    made = Cloud(tmp_path / "data", tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "cert.pem"))
    with pytest.raises(AssertionError, match="tls_cert"):
        made.start()
    assert made.process is not None
    assert made.process.returncode != 0


def _hook_url(live: Cloud, token: str, **headers: str) -> str:
    with live.client(token) as client:
        answer = client.post("/v1/webhooks", json={"event": "x", "url": "http://127.0.0.1:1/"}, headers=headers)
        return str(answer.json()["hookUrl"])


def test_a_proxy_is_believed_where_a_setting_says_so(tmp_path: Path) -> None:
    spoof = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    with cloud(tmp_path / "one", trusted_proxies="127.0.0.0/8") as live:
        token = live.user("ann")
        assert _hook_url(live, token, **spoof).startswith("https://")
        # Metrics are for this machine; through a proxy the client is another one.
        assert httpx.get(f"{live.url}/metrics", headers=spoof).status_code == 403
        assert httpx.get(f"{live.url}/metrics").status_code == 200
        # The last address that is no proxy counts: what stands before it is anyone's word.
        twice = {"X-Forwarded-For": "127.0.0.1, 203.0.113.9, 127.0.0.2"}
        assert httpx.get(f"{live.url}/metrics", headers=twice).status_code == 403
    with cloud(tmp_path / "two") as live:
        token = live.user("ann")
        assert _hook_url(live, token, **spoof).startswith("http://")


@pytest.mark.parametrize("trusted", ["", "127.0.0.0/8"], ids=["nobody", "the proxy"])
def test_what_was_handed_on_by_an_untrusted_proxy_is_not_local(tmp_path: Path, trusted: str) -> None:
    with cloud(tmp_path / "data", trusted_proxies=trusted) as live:
        for name, value in (
            ("Forwarded", "for=203.0.113.9"),
            ("Forwarded", "for=127.0.0.1"),
            ("Via", "1.1 proxy"),
            ("X-Real-IP", "127.0.0.1"),
            ("X-Forwarded-For", "203.0.113.9:4711"),
            ("X-Forwarded-For", "nonsense"),
        ):
            assert httpx.get(f"{live.url}/metrics", headers={name: value}).status_code == 403, name
        # The word of a trusted one counts; that of anybody else only tells that there is somebody.
        told = httpx.get(f"{live.url}/metrics", headers={"X-Forwarded-For": "127.0.0.1:80"})
        assert told.status_code == (200 if trusted else 403)
        assert httpx.get(f"{live.url}/metrics").status_code == 200
        assert 1 <= live.log_file.read_text().count("forwarded_by_an_untrusted_proxy") <= 4
