"""Reverse proxies for tests: the configurations of docs/reverse-proxy.md, as they stand there, on free ports."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.cloud import eventually

PAGE = Path(__file__).parents[1] / "docs" / "reverse-proxy.md"
# nginx with nothing said: it speaks HTTP/1.0 to the cloud.
BARE = "nginx's defaults"


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        url: Where clients reach it.
        ca: The file with the authority that its certificate is from; None for plain http.
    """

    name: str
    url: str
    ca: Path | None


def on_page(name: str) -> str:
    """A configuration of the page."""
    found = re.search(rf"```{name}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None, name
    return found.group(1)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """The text with addresses and file names of this machine in it."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def _nginx(folder: Path, site: str) -> list[str]:
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\nevents {{}}\n"
        f"http {{ access_log off;\n{temporary}{site}\n}}\n"
    )
    return ["-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]


def nginx(folder: Path, port: int, upstream: str) -> list[str]:
    """Writes the page's; returns the program's arguments."""
    return _nginx(
        folder,
        replaced(
            on_page("nginx"),
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/ssl/cloud.example.com.pem", str(folder / "cert.pem")),
            ("/etc/ssl/private/cloud.example.com.key", str(folder / "key.pem")),
            ("http://127.0.0.1:8080", f"http://{upstream}"),
        ),
    )


def bare_nginx(folder: Path, port: int, upstream: str) -> list[str]:
    """nginx that is told nothing but where to go."""
    return _nginx(folder, f"server {{ listen 127.0.0.1:{port};\nlocation / {{ proxy_pass http://{upstream}; }}\n}}")


def haproxy(folder: Path, port: int, upstream: str) -> list[str]:
    """The same for HAProxy."""
    both = folder / "both.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    config = replaced(
        on_page("haproxy"),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("/etc/haproxy/cloud.example.com.pem", str(both)),
        ("127.0.0.1:8080", upstream),
    )
    (folder / "haproxy.cfg").write_text(config)
    return ["-db", "-f", str(folder / "haproxy.cfg")]


def caddy(folder: Path, port: int, upstream: str) -> list[str]:
    """The same for Caddy, which is to ask nobody for a certificate."""
    site = replaced(
        on_page("caddy"),
        ("cloud.example.com {", f"https://127.0.0.1:{port} {{\n    tls {folder}/cert.pem {folder}/key.pem"),
        ("127.0.0.1:8080", upstream),
    )
    apart = f"{{\n    admin off\n    auto_https off\n    storage file_system {folder}/kept\n}}\n"
    (folder / "Caddyfile").write_text(apart + site)
    return ["run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


MAKERS: dict[str, tuple[str, Callable[[Path, int, str], list[str]]]] = {
    "nginx": ("nginx", nginx),
    "haproxy": ("haproxy", haproxy),
    "caddy": ("caddy", caddy),
    BARE: ("nginx", bare_nginx),
}


def program(name: str) -> str | None:
    """Where a proxy's program is, if it is installed here."""
    return shutil.which(MAKERS[name][0]) or shutil.which(f"/usr/sbin/{MAKERS[name][0]}")


@contextmanager
def proxy(name: str, folder: Path, upstream: str) -> Iterator[Proxy]:
    """A running proxy before `upstream`, an `http://host:port`; it must be installed."""
    found = program(name)
    assert found is not None
    folder.mkdir()
    ca = trustme.CA()
    leaf = ca.issue_cert("127.0.0.1", "localhost")
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    ca.cert_pem.write_to_path(folder / "ca.pem")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    arguments = MAKERS[name][1](folder, port, upstream.removeprefix("http://"))
    log = folder / "output.log"
    with log.open("wb") as output:
        # Caddy keeps what it was told beside the user's own settings otherwise.
        environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "kept")}
        process = subprocess.Popen([found, *arguments], stdout=output, stderr=output, env=environment)
    try:
        eventually(lambda: _answers(port) or process.poll() is not None, what=name)
        assert process.poll() is None, log.read_text()
        plain = name == BARE
        yield Proxy(name, f"{'http' if plain else 'https'}://127.0.0.1:{port}", None if plain else folder / "ca.pem")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
