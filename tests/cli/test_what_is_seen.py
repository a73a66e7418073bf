"""What owners see of their integrations: flags as people write them, what fails and why, names in place of ids."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.cli.commands import Said
from tests.cli.conftest import Run
from tests.cloud import Cloud, Target, cloud, eventually
from wirechamber.cli import complete

DEVICE = "0123456789abcdef0123aaaa"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, str]]:
    """A cloud that tries again after a while only, and a user's token."""
    with cloud(tmp_path_factory.mktemp("patient") / "data", retry_schedule="0,600,600") as running:
        token = running.user("ann")
        running.command("device", "add", DEVICE, "--owner", "ann", "--name", "Kitchen lamp")
        yield running, token


@pytest.fixture
def ours(run: Run, patient: tuple[Cloud, str]) -> Run:
    live, token = patient

    def ours(*arguments: str, stdin: str = "", **env: str) -> Said:
        known = {"WIRECHAMBER_URL": live.url, "WIRECHAMBER_TOKEN": token, "WIRECHAMBER_DATA": str(live.folder)}
        return run(*arguments, stdin=stdin, **(known | env))

    return ours


def ok(said: Said) -> str:
    assert said.code == 0, said
    return said.out


def made(ours: Run, *arguments: str) -> dict[str, Any]:
    """Creates a webhook; returns it as the API shows it."""
    return dict(json.loads(ok(ours("integration", "create", "Webhook", *arguments, "--print-json"))))


# --- flags ---


def test_json_is_the_body_of_a_webhook(ours: Run, target: Target) -> None:
    hook = made(ours, "--event", "flag/j", "--target", target.url, "--json", '{"a":"{{PARTICLE_EVENT_VALUE}}"}')
    assert hook["json"] == {"a": "{{PARTICLE_EVENT_VALUE}}"}
    ok(ours("integration", "test", hook["id"], "--data", "7"))
    assert json.loads(target.requests[0][3])["a"] in ("7", 7)
    text = ok(ours("integration", "create", "Webhook", "--event", "flag/k", "--target", target.url))
    assert text.startswith("integration ")


def test_plain_forms_are_taken(ours: Run, target: Target, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("X-Third: three\nX-Fourth: f:4\n")
    hook = made(
        ours, "--event", "flag/p", "--target", target.url, "--auth", "ann:p:w", "--headers", "X-One: 1",
        "--headers", "X-Two=2", "--secret-headers", "X-Key: s3cr3t", "--secret-headers", "@secret",
        "--query", "a=b:c", "--defaults", "--no-reject-unauthorized", "--device", "kitchen LAMP",
    )  # fmt: skip
    assert hook["headers"]["X-One"] == "1"
    assert hook["secretHeaders"] == ["X-Key", "X-Third", "X-Fourth"]
    assert (hook["noDefaults"], hook["rejectUnauthorized"], hook["query"]) == (False, False, {"a": "b:c"})
    assert hook["deviceID"] == DEVICE
    assert "s3cr3t" not in json.dumps(hook)
    ok(ours("integration", "test", hook["id"]))
    _, path, headers, _ = target.requests[0]
    assert path == "/?a=b%3Ac"
    assert [headers[name] for name in ("X-One", "X-Two", "X-Key", "X-Third", "X-Fourth")] == [
        "1", "2", "s3cr3t", "three", "f:4",
    ]  # fmt: skip
    assert headers["Authorization"] == "Basic YW5uOnA6dw=="


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--auth", "ann"), "--auth must be USER:PASSWORD"),
        (("--headers", "X-Key"), "--headers must be 'NAME: VALUE'"),
        (("--secret-headers", "@missing"), "missing can't be read"),
    ],
)
def test_plain_forms_that_are_none(ours: Run, arguments: tuple[str, ...], says: str) -> None:
    said = ours("integration", "create", "Webhook", "--event", "x", "--target", "http://h/", *arguments)
    assert said.code == 2
    assert says in said.err


def test_a_field_that_is_misspelled_is_told(ours: Run) -> None:
    said = ours("integration", "create", "-", stdin='{"event":"x/y","url":"http://h.example/","requestTyp":"GET"}')
    assert said.code == 0
    assert "requestTyp: is not known (did you mean requestType?)" in said.err


def test_a_definition_in_another_encoding_is_refused(ours: Run, tmp_path: Path) -> None:
    text = '{"event": "utf/8", "url": "http://h.example/", "json": {"ä": 1}}'
    (tmp_path / "mark.json").write_bytes(text.encode("utf-8-sig"))
    assert ours("integration", "create", "mark.json").code == 0
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "other.json").write_bytes(text.encode(encoding))
        said = ours("integration", "create", "other.json")
        assert (said.code, said.out) == (2, "")
        assert "other.json is not UTF-8" in said.err


# --- what fails ---


def test_a_target_that_is_not_there_is_seen_from_its_first_failure(ours: Run, patient: tuple[Cloud, str]) -> None:
    live, token = patient
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        gone = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
    hook = made(ours, "--event", "gone", "--target", gone, "--name", "Nobody is there")
    client = live.client(token)

    def listed() -> dict[str, Any]:
        return next(each for each in client.get("/v1/integrations").json() if each["id"] == hook["id"])

    before = listed()
    assert (before["waiting"], before["failing"], before["next_try_at"], before["last_error"]) == (0, False, None, None)
    for _ in range(3):
        ok(ours("publish", "gone", "1"))
    found = eventually(lambda: (each := listed())["waiting"] == 3 and each, what="three that wait")
    assert found["failing"] is True
    assert "ECONNREFUSED" in found["last_error"]
    assert found["failed_at"] < found["next_try_at"]
    shown = client.get(f"/v1/integrations/{hook['id']}").json()["integration"]
    assert [shown[key] for key in ("waiting", "failing")] == [3, True]
    assert shown["next_try_at"] is not None
    assert shown["last_error"] == found["last_error"]
    assert client.get("/v1/webhooks").json()[0].keys() >= {"waiting", "failing", "next_try_at", "last_error"}

    rows = ok(ours("integration", "list")).splitlines()
    assert [word for word in ("STATE", "WAITING", "NEXT TRY", "LAST ERROR") if word not in rows[0]] == []
    row = next(row for row in rows if hook["id"] in row)
    assert " failing " in row
    assert "ECONNREFUSED: nobody listens on the target's port" in row
    assert json.loads(ok(ours("integration", "show", "Nobody is there")))["failing"] is True
    log = ok(ours("integration", "log", hook["id"]))
    assert "next try" in log
    assert "nobody listens" in log
    # What is shown can be sent back.
    assert "warning" not in ours("integration", "edit", hook["id"], "-", stdin=json.dumps(shown)).err


def test_the_reason_in_an_answer_is_seen(ours: Run, target: Target) -> None:
    evil = "\x1b[2J no field \u202e"
    answers = {"json": json.dumps({"error": "no field json", "echo": "s3cr3t", "evil": evil}, indent=1)}
    answers["page"] = "<html><head><style>p{}</style><title>no field page</title></head><body>\n<p>Sorry</p></body>"
    answers["text"] = f"\n{evil} text at line 3\nand more"
    hook = made(ours, "--event", "why", "--target", target.url, "--secret-headers", "X-Key: s3cr3t")

    def told(name: str) -> str:
        rows = ok(ours("integration", "log", hook["id"])).splitlines()
        return rows[1] if len(rows) > 1 and name in rows[1] and "; final" in rows[1] else ""

    for name, body in answers.items():
        target.answer = lambda method, path, sent, body=body: (400, {"Content-Type": "text/plain"}, body.encode())
        ok(ours("publish", "why", name))
        row = eventually(lambda name=name: told(name), what=name)
        assert "error status 400 from 127.0.0.1: " in row
        assert "no field" in row
        assert not {"\x1b", "\u202e"} & set(row)
        newest = json.loads(ok(ours("integration", "log", hook["id"], "--json")))[0]["id"]
        for wanted in (row.split()[0], newest):
            whole = ok(ours("integration", "log", hook["id"], wanted))
            assert "POST http://127.0.0.1" in whole
            assert "status 400" in whole
            assert "no field" in whole
            assert "s3cr3t" not in whole
            assert not {"\x1b", "\u202e"} & set(whole)
    assert ours("integration", "log", hook["id"], "0" * 32).code == 3
    assert ours("integration", "log", hook["id"], "zzzz").code == 3


def test_who_reads_a_stream_may_go_away(ours: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ok(ours("publish", "piped", "1"))
    reader, writer = os.pipe()
    os.close(reader)
    with monkeypatch.context() as patch, os.fdopen(writer, "w") as gone:
        patch.setattr(sys, "stdout", gone)
        said = ours("subscribe", "piped", "--last-event-id", "0")
    assert (said.code, said.err) == (0, "")


# --- names ---


def test_names_are_taken_where_ids_are(ours: Run, target: Target, patient: tuple[Cloud, str]) -> None:
    name = "My hook / ü"
    hook = made(ours, "--event", "named", "--target", target.url, "--name", name)
    for command in ("show", "disable", "enable", "log", "test"):
        ok(ours("integration", command, name))
    ok(ours("integration", "log", name, "--device", "kitchen lamp"))
    ok(ours("integration", "edit", name, "-", stdin=json.dumps({"event": "named", "url": target.url, "name": name})))
    twin = made(ours, "--event", "named", "--target", target.url, "--name", name)
    said = ours("integration", "show", name)
    assert said.code == 1
    assert hook["id"] in said.err
    assert twin["id"] in said.err
    ok(ours("integration", "delete", twin["id"], "--yes"))
    ok(ours("integration", "delete", name, "--yes"))
    assert ours("integration", "show", hook["id"]).code == 3
    assert json.loads(ok(ours("device", "show", "KITCHEN lamp")))["id"] == DEVICE
    ok(ours("device", "keys", "Kitchen lamp"))
    ok(ours("usage", "Kitchen lamp"))
    assert ours("device", "show", "Kitchen").code == 3


def test_completion_asks_the_server(patient: tuple[Cloud, str], ours: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    live, token = patient
    hook = made(ours, "--event", "complete", "--target", "http://h.example/", "--name", "Completed")
    monkeypatch.setenv("WIRECHAMBER_URL", live.url)
    monkeypatch.setenv("WIRECHAMBER_TOKEN", token)
    assert [name for name, _ in complete.integrations("Comp")] == ["Completed"]
    assert hook["id"] in [name for name, _ in complete.integrations(hook["id"][:20])]
    assert [name for name, _ in complete.kinds("web")] == ["Webhook"]
    assert [name for name, _ in complete.devices_of_server("kit")] == ["Kitchen lamp"]
    monkeypatch.setenv("WIRECHAMBER_DATA", str(live.folder))
    assert DEVICE in [name for name, _ in complete.devices(DEVICE[:22])]
    assert [name for name, _ in complete.devices("Kitchen")] == ["Kitchen lamp"]
    # Bash puts what it gets into the line as it is.
    with monkeypatch.context() as bash:
        bash.setenv("_WIRECHAMBER_COMPLETE", "complete_bash")
        for begun, typed in (("kit", "Kitchen\\ lamp"), ("'Kit", "Kitchen lamp")):
            bash.setenv("COMP_WORDS", f"wirechamber\ndevice\nshow\n{begun}")
            bash.setenv("COMP_CWORD", "3")
            assert [name for name, _ in complete.devices_of_server("kit")] == [typed]
    shell = {
        "_WIRECHAMBER_COMPLETE": "complete_bash",
        "COMP_WORDS": "wirechamber integration show Comp",
        "COMP_CWORD": "3",
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WIRECHAMBER_")}
    environment["WIRECHAMBER_TOKEN"] = token
    code = "from wirechamber.cli import main; import sys; sys.argv = ['wirechamber']; main()"
    for url, said in ((live.url, "Completed"), ("http://127.0.0.1:9", ""), ("nonsense", "")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | shell | {"WIRECHAMBER_URL": url},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.stdout.strip(), done.stderr) == (said, "")


# --- certificates ---


@contextmanager
def serving(context: ssl.SSLContext | None, answer: bytes) -> Iterator[int]:
    """Answers everybody the same, with TLS or without; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                try:
                    with connection if context is None else context.wrap_socket(connection, server_side=True) as speaks:
                        speaks.recv(65536)
                        speaks.sendall(answer)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


PROPER = json.dumps({"ok": True, "server": "Wirechamber", "version": "1", "username": "ann"}).encode()
HEALTHY = b"HTTP/1.1 200 OK\r\nServer: Wirechamber\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
HEALTHY %= len(PROPER), PROPER


def test_certificates(run: Run, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    (tmp_path / "text.pem").write_text("no certificate")
    with serving(context, HEALTHY) as port:
        url = f"https://localhost:{port}"
        for more in ((), ("--cacert", "other.pem")):
            said = run("status", "--url", url, *more)
            assert (said.code, said.out) == (1, "")
            assert f"the certificate of {url} is not trusted" in said.err
            assert "--cacert" in said.err
        assert "healthy" in ok(run("status", "--url", url, "--cacert", "ca.pem"))
        assert "healthy" in ok(run("status", "--url", url, WIRECHAMBER_CACERT=str(file)))
        said = run("status", "--url", f"https://127.0.0.1:{port}", "--cacert", "ca.pem")
        assert "is not trusted" in said.err
        assert "set WIRECHAMBER_URL to a name that it holds" in said.err
        said = run("status", "--url", url, "--cacert", "text.pem")
        assert said.code == 2
        assert "text.pem holds no certificate" in said.err
        said = run("status", "--url", f"http://localhost:{port}")
        assert said.code == 1
        assert f"set WIRECHAMBER_URL to https://localhost:{port}" in said.err
    with serving(None, HEALTHY) as port:
        said = run("status", "--url", f"https://localhost:{port}")
        assert said.code == 1
        assert f"without TLS it would be http://localhost:{port}" in said.err


# --- what nobody needs to know ---


def test_no_answer_tells_versions(patient: tuple[Cloud, str]) -> None:
    live, token = patient
    headers = {"Authorization": f"Bearer {token}"}
    for method, path in (
        ("GET", "/healthz"), ("GET", "/docs"), ("GET", "/metrics"), ("GET", "/nothing"), ("PUT", "/healthz"),
        ("OPTIONS", "/v1/devices"), ("GET", "/v1/devices"), ("GET", "/v1/user"), ("GET", "/v1/openapi.json"),
    ):  # fmt: skip
        assert httpx.request(method, live.url + path, headers=headers).headers["Server"] == "Wirechamber"
    with httpx.stream("GET", f"{live.url}/v1/events", headers=headers) as stream:
        assert stream.headers["Server"] == "Wirechamber"
    port = int(live.url.rpartition(":")[2])
    for raw in (b"nonsense\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /\xff HTTP/9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(raw)
            said = connection.recv(65536).decode("latin-1").lower()
        assert "aiohttp" not in said
        assert "python/" not in said
