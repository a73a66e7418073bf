"""Settings: one declaration, three ways to set them, and a page that is in step with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from wirechamber.cli.config import table
from wirechamber.errors import BadInput
from wirechamber.settings import Settings, described, load

DOCS = Path(__file__).parents[1] / "docs"


def test_every_setting_says_what_it_means() -> None:
    for name, text in described().items():
        assert len(text) > 10, name
        assert text.endswith("."), name


def test_the_page_is_in_step_with_the_declaration() -> None:
    # `wirechamber config --markdown` prints the table.
    assert table() in (DOCS / "configuration.md").read_text()


def test_flags_go_before_the_environment_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text('http_port = 1\nretention_days = 1\ntrusted_proxies = ["10.0.0.0/8"]\nretry_schedule = [0, 1.5]\n')
    env = {"WIRECHAMBER_HTTP_PORT": "2", "WIRECHAMBER_RETENTION_DAYS": "2", "WIRECHAMBER_METRICS_PUBLIC": "true"}
    settings, sourced = load(file=file, environment=env, flags={"http_port": 3, "data": None})
    assert (settings.http_port, settings.retention_days, settings.metrics_public) == (3, 2, True)
    assert settings.trusted_proxies == ("10.0.0.0/8",)
    assert settings.retry_schedule == (0, 1.5)
    sources = {each.name: each.source for each in sourced}
    assert (sources["http_port"], sources["retention_days"], sources["data"]) == ("flag", "environment", "default")
    assert sources["trusted_proxies"] == "file"
    # The file may be named by the environment too.
    assert load(environment={"WIRECHAMBER_CONFIG": str(file)})[0].http_port == 1
    assert load(environment={})[0] == Settings()


def test_lists_come_with_commas() -> None:
    settings, _ = load(environment={"WIRECHAMBER_OUTBOUND_ALLOW": "10.0.0.0/8, ::1/128,"})
    assert settings.outbound_allow == ("10.0.0.0/8", "::1/128")
    assert load(environment={"WIRECHAMBER_OUTBOUND_ALLOW": ""})[0].outbound_allow == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", ""),
        ("http_host", "localhost:80"),
        ("http_host", "1.2.3"),
        ("udp_host", "*"),
        ("base_url", "cloud.example.com"),
        ("base_url", "https://ann:password@cloud.example.com"),
        ("base_url", "https://cloud.example.com/?x=1"),
        ("http_port", "-1"),
        ("http_port", "65536"),
        ("http_port", "eighty"),
        ("durability", "perhaps"),
        ("metrics_public", "maybe"),
        ("retention_days", "0"),
        ("retry_schedule", "0,soon"),
        ("retry_schedule", "0,-1"),
        ("retry_schedule", "1,2"),
        ("retry_schedule", ""),
        ("request_timeout", "-2"),
        ("outbound_allow", "home"),
        ("trusted_proxies", "300.0.0.0/8"),
        ("log_level", "loud"),
        ("tls_cert", "cert.pem"),
    ],
)
def test_a_bad_value_is_named_with_its_source(name: str, value: str) -> None:
    with pytest.raises(BadInput) as caught:
        load(environment={f"WIRECHAMBER_{name.upper()}": value})
    assert f"setting {name}" in str(caught.value)
    assert "environment" in str(caught.value)


def test_a_typing_error_in_the_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text("retension_days = 1")
    with pytest.raises(BadInput, match="retension_days"):
        load(file=file, environment={})
