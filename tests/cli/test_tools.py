"""`template`, `config`, completion and help."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from wirechamber.cli import main


def test_render_prints_exactly_the_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.mustache").write_text("a={{a}} {{{b}}}{{#l}}<{{.}}>{{/l}} é{{missing}}\n no end")
    (tmp_path / "d.json").write_text('{"a": true, "b": "<&>", "l": [1, 2.50, "x"]}')
    done = run("template", "render", "t.mustache", "--data", "d.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "a=true <&><1><2.5><x> é\n no end"
    assert run("template", "render", "t.mustache").stdout == "a=  é\n no end"
    assert run("template", "render", "-", "--data", "d.json", stdin="{{b}}").stdout == "&lt;&amp;&gt;"


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_errors_come_with_their_place(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "bad.mustache").write_text("one\n  {{#a}}\n{{/b}}\n")
    done = run("template", "render", "bad.mustache", *options)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("wirechamber: bad.mustache:3:1: ")


def test_check_is_silent_on_standard_output(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.mustache").write_text("{{#a}}{{/a}}")
    done = run("template", "render", "good.mustache", "--check")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(("data", "code", "says"), [("{", 2, "d.json is no JSON"), (None, 2, "d.json can't be read")])
def test_data_that_can_not_be_taken(run: Run, tmp_path: Path, data: str | None, code: int, says: str) -> None:
    (tmp_path / "t").write_text("x")
    if data is not None:
        (tmp_path / "d.json").write_text(data)
    done = run("template", "render", "t", "--data", "d.json")
    assert done.returncode == code
    assert says in done.stderr


def test_config_tells_values_and_sources(run: Run, tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_text('http_port = 1\nretention_days = 7\nlog_level = "debug"\n')
    done = run(
        "config", "--json", "--config", "w.toml", "--http-port", "3",
        WIRECHAMBER_HTTP_PORT="2", WIRECHAMBER_LOG_LEVEL="error",
        WIRECHAMBER_OUTBOUND_PROXY="http://me:s3cr3t@proxy:3128",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = {each["name"]: (each["value"], each["source"]) for each in json.loads(done.stdout)}
    assert said["http_port"] == (3, "flag")
    assert said["log_level"] == ("error", "environment")
    assert said["retention_days"] == (7, "file")
    assert said["http_host"] == ("127.0.0.1", "default")
    assert "s3cr3t" not in done.stdout
    line = next(line for line in run("config").stdout.splitlines() if line.startswith("http_port"))
    assert line.split() == ["http_port", "8080", "default"]


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (("serve",), {"WIRECHAMBER_HTTP_PORT": "http"}, "http_port"),
        (("serve", "--http-port", "70000"), {}, "http_port"),
        (("serve",), {"WIRECHAMBER_OUTBOUND_ALLOW": "home"}, "`home` is no network"),
        (("serve",), {"WIRECHAMBER_TLS_CERT": "cert.pem"}, "tls_key"),
        (("serve", "--retry-schedule", "5,10"), {}, "retry_schedule"),
        (("serve", "--durability", "ful"), {}, "must be one of full, normal, not 'ful' (did you mean full?)"),
        (("serve",), {"WIRECHAMBER_METRICS_PUBLIC": "maybe"}, "must be true or false, not 'maybe'"),
        (("serve", "--keep-alive", "10"), {}, "must be a number, more than 0 to 9, not '10.0'"),
        (("serve", "--tls-cert", "gone.pem", "--tls-key", "bad.toml"), {}, "gone.pem (tls_cert) can't be read"),
        (("serve", "--tls-cert", "bad.toml", "--tls-key", "bad.toml"), {}, "bad.toml (tls_cert) holds no certificate"),
        (("serve", "--config", "nothing.toml"), {}, "nothing.toml"),
        (("serve", "--config", "typo.toml"), {}, "'http_prot' (did you mean http_port?)"),
        (("config", "--config", "bad.toml"), {}, "bad.toml"),
    ],
)
def test_settings_that_can_not_be_used(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str], says: str
) -> None:
    (tmp_path / "typo.toml").write_text("http_prot = 1")
    (tmp_path / "bad.toml").write_text("http_port = = 1")
    done = run(*arguments, **env)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_address_that_is_taken_is_told(run: Run) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--http-port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "WIRECHAMBER_HTTP_PORT" in done.stderr


def test_an_address_that_is_not_ours_is_told(run: Run) -> None:
    done = run("serve", "--http-host", "192.0.2.1", "--http-port", "0")
    assert done.returncode == 1
    assert "WIRECHAMBER_HTTP_HOST" in done.stderr


def test_ctrl_c_before_a_command_has_begun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "wirechamber.cli.program":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "wirechamber.cli.program")
    monkeypatch.delattr("wirechamber.cli.program")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, *capsys.readouterr()) == (130, "", "")


# What only the script for this shell says.
SCRIPTS = {"bash": "complete -o default -F", "zsh": "#compdef wirechamber", "fish": "complete --command wirechamber"}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_completion(run: Run, shell: str) -> None:
    done = run("--show-completion", shell, SHELL="/bin/false")
    assert done.returncode == 0, done.stderr
    assert [each for each, mark in SCRIPTS.items() if mark in done.stdout] == [shell]
    assert "_WIRECHAMBER_COMPLETE" in done.stdout


@pytest.mark.parametrize("shell", SCRIPTS)
def test_completion_is_installed_for_the_shell_that_is_named(run: Run, tmp_path: Path, shell: str) -> None:
    done = run("--install-completion", shell, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    written = [each.read_text() for each in tmp_path.rglob("*wirechamber*") if each.is_file()]
    assert len(written) == 1
    assert SCRIPTS[shell] in written[0]


def test_a_shell_without_completion_is_told(run: Run) -> None:
    done = run("--show-completion", "csh")
    assert done.returncode == 2
    assert "'zsh'" in done.stderr


def test_help_and_version(run: Run) -> None:
    text = run("--help").stdout
    for command in (
        "serve", "demo", "config", "user", "token", "device", "template", "publish", "subscribe", "integration",
        "status",
    ):  # fmt: skip
        assert f"\n  {command} " in text
    assert run("--version").stdout.strip().count(".") >= 1
    serve = run("serve", "--help").stdout
    assert "--outbound-allow" in serve
    assert "WIRECHAMBER_OUTBOUND_ALLOW" in serve
