"""What holds of every command: no traceback, no success that it did not see, and every error says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from msgspec import Struct

from tests.cli.commands import FILES, LASTING, Command, Shell, commands
from wirechamber.cli import create, integration, output, remote, subscribe
from wirechamber.cli.output import Exit
from wirechamber.integrations.declaration import Declaration, setting
from wirechamber.integrations.registry import Registry
from wirechamber.kinds import registry

COMMANDS = commands()
REMOTE = [each for each in COMMANDS if each.speaks]
FOLDER = [each for each in COMMANDS if each.opens and each.path not in LASTING and each.path[0] != "config"]


# --- options ---


def test_there_are_commands_of_every_sort() -> None:
    assert len(COMMANDS) > 40
    assert len(REMOTE) > 12
    assert len(FOLDER) > 15
    assert {file for each in COMMANDS for file in _files(each)} >= {"--token-file", "--cacert", "--key", "--data-file"}


def test_no_option_is_there_twice() -> None:
    for each in COMMANDS:
        _check_options(str(each), each.params)


def _check_options(name: str, params: Any) -> None:
    seen = [option for param in params for option in (*param.opts, *param.secondary_opts) if option.startswith("-")]
    assert sorted(seen) == sorted(set(seen)), f"{name} has an option twice"
    assert not [option for option in seen if option.startswith("--no-no-")], name


class Awkward(Struct, frozen=True, kw_only=True):
    """A kind whose fields are called as options are."""

    json: Annotated[str, setting("A.")] = ""
    url: Annotated[str, setting("B.")] = ""
    target: Annotated[str, setting("C.")] = ""
    token_file: Annotated[str, setting("D.")] = ""
    cacert: Annotated[str, setting("E.")] = ""
    help: Annotated[str, setting("F.")] = ""
    no_limit: Annotated[bool, setting("G.")] = False


def test_a_kind_may_call_its_fields_as_options_are_called() -> None:
    class Kind:
        kind, summary, unavailable = "Awkward", "It is.", None
        declaration = Declaration(Awkward)

    group = create.group(Registry([Kind()]), lambda: None, lambda *_: None)  # type: ignore[list-item]
    made = typer.main.get_command(group)
    _check_options("Awkward", made.commands["Awkward"].params)  # type: ignore[attr-defined]


# --- who answers ---

HTML = b"<!doctype html><title>Welcome</title>"
Answer = Callable[[socket.socket], None]


def _http(status: str, body: bytes = b"", *headers: str) -> Answer:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers])

    def answer(connection: socket.socket) -> None:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)

    return answer


JSON = "Content-Type: application/json"
STRANGERS: dict[str, Answer] = {
    "object": _http("200 OK", b"{}", JSON),
    "ok": _http("200 OK", b'{"ok": true, "id": "1", "version": "1.2"}', JSON, "Server: nginx"),
    "list": _http("200 OK", b"[]", JSON),
    "null": _http("200 OK", b"null", JSON),
    "text": _http("200 OK", b'"yes"', JSON),
    "page": _http("200 OK", HTML, "Content-Type: text/html"),
    "not found": _http("404 Not Found", b'{"error": "no such page"}', JSON),
    "not found page": _http("404 Not Found", HTML, "Content-Type: text/html"),
    "forbidden": _http("403 Forbidden", b'["no"]', JSON),
    "bad gateway": _http("502 Bad Gateway", HTML, "Content-Type: text/html"),
    "redirect": _http("302 Found", b"", "Location: https://login.example.com/"),
    "lasting redirect": _http("308 Permanent Redirect", b"", "Location: /elsewhere"),
    "nothing": _http("204 No Content"),
    "empty": _http("200 OK"),
    "stream": _http("200 OK", b"data: hello\n\n", "Content-Type: text/event-stream"),
    "no text": _http("200 OK", b"\xff\xfe\x00", JSON),
    "closes": lambda connection: None,
    "no http": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "breaks off": lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
}


@contextmanager
def stranger(answer: Answer) -> Iterator[str]:
    """Somebody who is no Wirechamber; yields his address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        asked = connection.recv(65536)
                        if asked[:1] != b"\x16":
                            answer(connection)
                            connection.shutdown(socket.SHUT_WR)
                            while connection.recv(65536):
                                pass

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_told_from_a_wirechamber(here: Shell, name: str) -> None:
    with stranger(STRANGERS[name]) as url:
        for each in REMOTE:
            said = here.run(*each.arguments(here.folder), WIRECHAMBER_URL=url, WIRECHAMBER_TOKEN="t")
            _is_foreign(each, said, url)


def _is_foreign(command: Command, said: Any, url: str) -> None:
    assert (said.code, said.out) == (Exit.FAILED, ""), f"{command}: {said}"
    assert f"{url} does not answer like Wirechamber" in said.err, f"{command}: {said}"


def test_a_server_of_an_earlier_version_is_told_as_that(here: Shell) -> None:
    with stranger(_http("200 OK", b'{"ok":true,"version":"0.1.0"}', JSON)) as url:
        for each in REMOTE:
            said = here.run(*each.arguments(here.folder), WIRECHAMBER_URL=url, WIRECHAMBER_TOKEN="t")
            assert (said.code, said.out) == (Exit.FAILED, ""), f"{each}: {said}"
            assert "of an earlier version: start it again" in said.err, f"{each}: {said}"


def test_a_stranger_who_says_nothing(here: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    for module, name in ((remote, "TIMEOUT_S"), (integration, "TEST_TIMEOUT_S"), (subscribe, "TIMEOUT_S")):
        monkeypatch.setattr(module, name, 0.05)
    # He listens to nobody, so his greeting of TLS is not waited for, either.
    monkeypatch.setattr(remote, "PROBE_S", 0.05)

    def silent(connection: socket.socket) -> None:
        over.wait(30)

    with stranger(silent) as url:
        for each in REMOTE:
            said = here.run(*each.arguments(here.folder), WIRECHAMBER_URL=url, WIRECHAMBER_TOKEN="t")
            _is_foreign(each, said, url)
        over.set()


def test_nobody_answers(here: Shell) -> None:
    for each in REMOTE:
        said = here.run(*each.arguments(here.folder), WIRECHAMBER_URL="http://127.0.0.1:9", WIRECHAMBER_TOKEN="t")
        assert (said.code, said.out) == (Exit.UNREACHABLE, ""), f"{each}: {said}"
        assert "there is no server at http://127.0.0.1:9" in said.err
        assert "WIRECHAMBER_URL" in said.err


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "localhost:8080", "ftp://h/", "http://", "", "http://h:x/", "http://[::1/", "http://a b/"]
)
def test_an_address_that_is_none(here: Shell, url: str) -> None:
    for each in REMOTE[:3]:
        said = here.run(*each.arguments(here.folder), "--url", url, WIRECHAMBER_TOKEN="t")
        assert (said.code, said.out) == (Exit.FAILED, ""), f"{each}: {said}"
        assert "begin it with http:// or https://" in said.err


@pytest.mark.parametrize(
    "url", ["http://ann:secret@h:8080", "http://ann@h:8080/v1", "http://h:8080/v1/", "http://h:8080/docs#x"]
)
def test_an_address_that_says_too_much(here: Shell, url: str) -> None:
    for each in REMOTE[:3]:
        said = here.run(*each.arguments(here.folder), "--url", url, WIRECHAMBER_TOKEN="t")
        assert (said.code, said.out) == (Exit.FAILED, ""), f"{each}: {said}"
        assert said.err.endswith(" http://h:8080\n")
        assert "secret" not in said.err


@pytest.mark.parametrize("token", ["", "two words", "t\xf6ken", "a\nb"])
def test_a_token_that_is_none(here: Shell, token: str) -> None:
    for each in REMOTE:
        if each.path == ("status",) and not token:
            # It asks as nobody in particular.
            continue
        said = here.run(*each.arguments(here.folder), WIRECHAMBER_URL="http://127.0.0.1:9", WIRECHAMBER_TOKEN=token)
        assert (said.code, said.out) == (Exit.NOT_ALLOWED, ""), f"{each}: {said}"
        assert "wirechamber token create" in said.err


# --- files ---


def _files(command: Command) -> list[str]:
    """Options and places of a command that name a file to be read."""
    return [
        "" if param.param_type_name == "argument" else param.opts[0]
        for param in command.params
        if param.name in FILES or (param.name == "data" and command.path[0] == "template")
    ]


def _bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    contents = {
        "utf16": '{"event": "t"}'.encode("utf-16"),
        "latin1": b'{"event": "caf\xe9"}',
        "binary": bytes(range(256)) * 4,
    }
    found = {"missing": (folder / "missing", "can't be read"), "folder": (folder / "there", "can't be read")}
    (folder / "there").mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        found[name] = (folder / name, f"{folder / name} is not UTF-8")
    if os.geteuid():
        (folder / "unreadable").write_text("{}")
        (folder / "unreadable").chmod(0)
        found["unreadable"] = (folder / "unreadable", "can't be read")
    (folder / "empty").touch()
    found["empty"] = (folder / "empty", "")
    return found


def test_files_that_can_not_be_used(here: Shell) -> None:
    bad = _bad_files(here.folder)
    for each in COMMANDS:
        for option in _files(each) if each.path not in LASTING else ():
            for name, (file, says) in bad.items():
                arguments = each.arguments(here.folder)
                if option:
                    arguments = [*arguments, option, str(file)]
                    if option == "--data-file":
                        arguments.remove("1")
                else:
                    arguments = [str(file) if word.startswith(f"{here.folder}/") else word for word in arguments]
                env = {"WIRECHAMBER_URL": "http://127.0.0.1:9", "WIRECHAMBER_TOKEN": "t"}
                said = here.run(*arguments, **env)
                what = f"{each} {option} {name}: {said}"
                if name == "empty" and (not said.code or said.code == Exit.UNREACHABLE):
                    # An empty template, setting or event is one.
                    continue
                assert said.code in (Exit.FAILED, Exit.USAGE), what
                assert str(file) in said.err, what
                # Keys are read as they are, in whatever form.
                if option != "--key":
                    assert says in said.err, what


@pytest.mark.parametrize("folder", ["hook.json", "hook.json/data", "missing", "\udce4"])
def test_a_data_folder_that_is_none(here: Shell, folder: str) -> None:
    for each in FOLDER:
        said = here.run(*each.arguments(here.folder), "--data", folder, stdin="correct horse\n")
        if folder.startswith("hook.json"):
            assert said.code != 0, f"{each}: {said}"
            assert "hook.json" in said.err, f"{each}: {said}"
        if said.code:
            assert "wirechamber: " in said.err, f"{each}: {said}"


@pytest.mark.parametrize("damage", ["garbage", "folder", "empty", "unsealed"])
def test_a_data_folder_that_is_damaged(here: Shell, damage: str) -> None:
    assert here.run("user", "create", "ann", "--password-stdin", stdin="correct horse\n").code == 0
    state, key = here.folder / "data/state.db", here.folder / "data/secret.key"
    for file in (here.folder / "data").glob("state.db*"):
        file.unlink()
    match damage:
        case "garbage":
            state.write_bytes(b"no database " * 1000)
        case "folder":
            state.mkdir()
        case "empty":
            state.touch()
        case _:
            key.write_bytes(b"short")
    for each in FOLDER:
        said = here.run(*each.arguments(here.folder), stdin="correct horse\n")
        if said.code:
            assert said.err.splitlines()[-1].startswith("wirechamber: "), f"{each}: {said}"


def test_a_password_that_is_no_text(here: Shell) -> None:
    with here.bytes_in(b"caf\xe9\n"):
        said = here.run("user", "create", "bob", "--password-stdin", stdin=None)
    assert said.code == Exit.USAGE
    assert "standard input is not UTF-8" in said.err
    with here.bytes_in(b"\xef\xbb\xbfcorrect horse\r\n"):
        assert here.run("user", "create", "bob", "--password-stdin", stdin=None).code == 0


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_mark_before_utf8_is_no_part_of_a_file(here: Shell, mark: str) -> None:
    (here.folder / "t").write_text(mark + "{{a}}é")
    (here.folder / "d").write_text(mark + '{"a": 1}')
    said = here.run("template", "render", "t", "--data", "d")
    assert (said.code, said.out) == (0, "1é")
    assert here.run("template", "render", "t", "--data", "-", stdin=mark + '{"a": 2}').out == "2é"
    (here.folder / "t.toml").write_text(mark + "http_port = 1234\n")
    assert "1234" in here.run("config", "--config", "t.toml").out
    (here.folder / "list.csv").write_text(mark + "id\n0123456789abcdef01234567\n")
    assert here.run("device", "import", "list.csv").code == 0


# --- the terminal ---


def test_who_reads_goes_away(here: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (("config",), ("config", "--json"), ("--help",), ("template", "render", "template.mustache")):
        reader, writer = os.pipe()
        os.close(reader)
        with monkeypatch.context() as patch, os.fdopen(writer, "w") as gone:
            patch.setattr(sys, "stdout", gone)
            said = here.run(*arguments)
        assert (said.code, said.err) == (0, ""), f"{arguments}: {said}"


def test_a_pipe_that_is_closed_leaves_no_noise(tmp_path: Path) -> None:
    line = f"{sys.executable} -m wirechamber server key --out - --data data | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_disk_that_is_full_is_told(here: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, contextlib.suppress(OSError), open("/dev/full", "w") as full:
        patch.setattr(sys, "stdout", full)
        said = here.run("config")
    assert said.code == Exit.FAILED
    assert "can't be written" in said.err


def test_ctrl_c(here: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(work: Any) -> None:
        work.close()
        raise KeyboardInterrupt

    here.run("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    monkeypatch.setattr(asyncio, "run", interrupted)
    for each in COMMANDS:
        if (each.speaks or each in FOLDER) and each.path[0] not in ("backup", "restore", "server"):
            said = here.run(*each.arguments(here.folder), stdin="correct horse\n", WIRECHAMBER_TOKEN="t")
            assert said.code == 130, f"{each}: {said}"


def test_a_narrow_terminal_shows_every_cell_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    monkeypatch.setattr(output, "console", lambda: Console(width=40))
    cells = tuple(f"cell-{number}-that-is-long" for number in range(8))
    output.show_table(tuple("ABCDEFGH"), [cells, cells], empty="")
    out = capsys.readouterr().out
    assert all(out.count(cell) == 2 for cell in cells)
    assert max(map(len, out.splitlines())) < 40


def test_a_terminal_that_knows_few_characters(here: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    device = "0123456789abcdef01234567"
    assert here.run("device", "add", device, "--name", "Lämpchen").code == 0
    for arguments in (("device", "list"), ("device", "show", "Lämpchen"), ("device", "remove", "nö", "--yes")):
        raw = io.BytesIO()
        poor = io.TextIOWrapper(raw, encoding="iso8859-5", write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", poor)
            patch.setattr(sys, "stderr", poor)
            here.run(*arguments)
        assert b"L\\xe4mpchen" in raw.getvalue() or b"n\\xf6" in raw.getvalue()


def test_what_others_wrote_is_not_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]0;title\x07\x9b2J\u202eb\r"
    output.show_table(("X",), [(evil,)], empty="")
    output.show_json({"x": evil})
    with pytest.raises(typer.Exit):
        output.fail(evil)
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(out + err)


def test_what_no_command_foresaw_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wirechamber.cli import program

    def broken() -> Any:
        raise KeyError("x")

    monkeypatch.setattr(program, "program", lambda: broken)
    with pytest.raises(SystemExit) as ended:
        program.main()
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert err.count("\n") == 1
    assert "KeyError: 'x' (test_every_command.py" in err
    assert "WIRECHAMBER_TRACEBACK" in err


# --- settings and kinds ---


def test_a_variable_that_is_no_setting_is_warned_of(here: Shell) -> None:
    said = here.run("config", WIRECHAMBER_HTTP_PROT="1", WIRECHAMBER_TOKEM="t", WIRECHAMBER_COLOUR="red")
    assert said.code == 0
    assert "WIRECHAMBER_HTTP_PROT is no setting (did you mean WIRECHAMBER_HTTP_PORT?)" in said.err
    assert "did you mean WIRECHAMBER_TOKEN?" in said.err
    assert "WIRECHAMBER_COLOUR is no setting; it is ignored" in said.err
    known = {f"WIRECHAMBER_{name}": "http://h" for name in ("URL", "TOKEN", "BASE_URL")}
    assert here.run("config", **known).err == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("integration", "create", "Webhok", "--event", "x"), "did you mean Webhook?"),
        (("integration", "create", "Slack"), "the kinds are Webhook, "),
        (("integration", "kinds", "--markdown", "Webhok"), "Webhook"),
    ],
)
def test_a_kind_that_there_is_not(here: Shell, arguments: tuple[str, ...], says: str) -> None:
    said = here.run(*arguments, WIRECHAMBER_TOKEN="t")
    assert said.code == Exit.USAGE
    assert says in said.err


def test_kinds_of_commands_are_those_of_the_registry() -> None:
    assert {kind.kind for kind in registry()} <= {each.path[-1] for each in COMMANDS}
