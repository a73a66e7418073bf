"""DTLS with OpenSSL and GnuTLS, which speak the RFCs, on real sockets; in both roles."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.interop.dtls_peers import (
    IDENTITY,
    KEY,
    EchoServer,
    Program,
    free_port,
    talk_to_server,
    wait_until,
    write_keys,
)
from wirechamber.protocols.dtls import ClientHandshake, PreSharedKey, PublicKeys
from wirechamber.protocols.dtls.messages import write_spki

PSK_CCM_8, ECDHE_PSK_CHACHA20, ECDHE_ECDSA_CCM_8 = 0xC0A8, 0xCCAC, 0xC0AE
OPENSSL_NAMES = {PSK_CCM_8: "PSK-AES128-CCM8", ECDHE_PSK_CHACHA20: "ECDHE-PSK-CHACHA20-POLY1305"}
GNUTLS = "NONE:+VERS-DTLS1.2:+MAC-ALL:+COMP-NULL:+SIGN-ALL:+GROUP-ALL:+CTYPE-ALL:"
GNUTLS_NAMES = {
    PSK_CCM_8: GNUTLS + "+PSK:+AES-128-CCM-8",
    ECDHE_ECDSA_CCM_8: GNUTLS + "+ECDHE-ECDSA:+AES-128-CCM-8:+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK",
}

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl: apt-get install openssl")
gnutls = pytest.mark.skipif(
    shutil.which("gnutls-cli") is None or shutil.which("gnutls-serv") is None,
    reason="there is no gnutls-cli: apt-get install gnutls-bin",
)

StartServer = Callable[..., EchoServer]
Start = Callable[..., Program]


@pytest.fixture
def serve() -> Iterator[StartServer]:
    """Starts our server."""
    servers: list[EchoServer] = []

    def start(**how: object) -> EchoServer:
        servers.append(EchoServer(**how))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def run() -> Iterator[Start]:
    """Starts a program."""
    programs: list[Program] = []

    def start(*command: str) -> Program:
        programs.append(Program(*command))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


def converse(server: EchoServer, program: Program) -> None:
    """The program's line comes back."""
    wait_until(lambda: server.session is not None)
    # Not before: OpenSSL takes what is typed during a handshake for commands.
    program.say(b"hello")
    wait_until(lambda: b"echo hello" in program.output)
    assert b"hello\n" in b"".join(server.received)
    assert server.failed == []


def openssl_client(run: Start, server: EchoServer, suite: int, *more: str) -> Program:
    return run(
        "openssl", "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{server.port}", "-quiet",
        "-psk", KEY.hex(), "-psk_identity", IDENTITY.decode(), "-cipher", OPENSSL_NAMES[suite], *more,
    )  # fmt: skip


@openssl
@pytest.mark.parametrize("suite", OPENSSL_NAMES)
@pytest.mark.parametrize("mtu", [1200, 120, 60])
def test_openssl_s_client(serve: StartServer, run: Start, suite: int, mtu: int) -> None:
    server = serve(mtu=mtu)
    converse(server, openssl_client(run, server, suite, "-mtu", "256"))
    assert server.session is not None
    assert server.session.state.suite == suite
    assert server.session.state.psk_identity == IDENTITY
    if mtu < 100:
        # So the client put our fragments together.
        assert sum(len(datagram) > 25 for datagram in server.sent) > 4


@openssl
@pytest.mark.parametrize(("lost", "what"), [(0, "the cookie"), (1, "our offer"), (2, "our end")])
def test_openssl_s_client_and_a_lost_datagram(serve: StartServer, run: Start, lost: int, what: str) -> None:
    server = serve(lose=frozenset((lost,)))
    converse(server, openssl_client(run, server, ECDHE_PSK_CHACHA20))
    assert len(server.sent) > 4, what


@openssl
def test_openssl_s_client_chooses_our_favourite(serve: StartServer, run: Start) -> None:
    server = serve()
    program = run(
        "openssl", "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{server.port}", "-quiet",
        "-psk", KEY.hex(), "-psk_identity", IDENTITY.decode(), "-cipher", "ALL",
    )  # fmt: skip
    converse(server, program)
    assert server.session is not None
    assert server.session.state.suite == ECDHE_PSK_CHACHA20


@openssl
def test_openssl_s_client_without_anything_in_common_is_told(serve: StartServer, run: Start) -> None:
    server = serve()
    program = run(
        "openssl", "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{server.port}", "-cipher", "ECDHE-ECDSA-AES128-SHA"
    )
    wait_until(lambda: b"handshake failure" in program.output)
    assert [failed.alert for failed in server.failed] == [40]


@openssl
@pytest.mark.parametrize("suite", OPENSSL_NAMES)
def test_openssl_s_server(run: Start, suite: int) -> None:
    port = free_port()
    program = run(
        "openssl", "s_server", "-dtls1_2", "-accept", f"127.0.0.1:{port}", "-nocert", "-quiet",
        "-psk", KEY.hex(), "-psk_identity", IDENTITY.decode(), "-cipher", OPENSSL_NAMES[suite],
    )  # fmt: skip
    client = ClientHandshake(PreSharedKey(IDENTITY, KEY), time.monotonic(), "rfc", b"", suites=[suite])
    session, answer = talk_to_server(client, port, b"hello\n", lambda: program.say(b"back"))
    assert answer == b"back\n"
    # OpenSSL 3.0 knows no connection ids.
    assert (session.state.suite, session.state.cid_form) == (suite, "none")
    wait_until(lambda: b"hello" in program.output)


@gnutls
def test_gnutls_cli_with_a_pre_shared_key(serve: StartServer, run: Start) -> None:
    server = serve()
    program = run(
        "gnutls-cli", "--udp", "-p", str(server.port), "127.0.0.1", "--priority", GNUTLS_NAMES[PSK_CCM_8],
        "--pskusername", IDENTITY.decode(), "--pskkey", KEY.hex(),
    )  # fmt: skip
    converse(server, program)
    assert b"extended master secret, safe renegotiation" in program.output


@gnutls
@pytest.mark.parametrize("mtu", [1200, 200])
def test_gnutls_cli_with_raw_public_keys(serve: StartServer, run: Start, tmp_path: Path, mtu: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = write_keys(tmp_path, key)
    server = serve(mtu=mtu)
    program = run(
        "gnutls-cli", "--udp", "-p", str(server.port), "127.0.0.1", "--priority", GNUTLS_NAMES[ECDHE_ECDSA_CCM_8],
        "--rawpkkeyfile", private, "--rawpkfile", public, "--no-ca-verification",
    )  # fmt: skip
    converse(server, program)
    assert server.session is not None
    assert server.session.state.peer_public_key == write_spki(key.public_key())
    assert b"(ECDHE-SECP256R1)-(ECDSA-SHA256)-(AES-128-CCM-8)" in program.output


@gnutls
def test_gnutls_serv_with_raw_public_keys(run: Start, tmp_path: Path) -> None:
    server_key = ec.generate_private_key(ec.SECP256R1())
    private, public = write_keys(tmp_path, server_key)
    port = free_port()
    run(
        "gnutls-serv", "--udp", "-p", str(port), "--priority", GNUTLS_NAMES[ECDHE_ECDSA_CCM_8], "--echo",
        "--rawpkkeyfile", private, "--rawpkfile", public,
    )  # fmt: skip
    keys = PublicKeys(ec.generate_private_key(ec.SECP256R1()), server_key.public_key())
    client = ClientHandshake(keys, time.monotonic(), "rfc")
    session, answer = talk_to_server(client, port, b"hello\n")
    assert answer == b"hello\n"
    assert session.state.suite == ECDHE_ECDSA_CCM_8
