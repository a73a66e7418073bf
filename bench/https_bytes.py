"""What one HTTPS POST of 20 bytes costs on the wire when its connection is new: the counterpart of a publish.

A real TLS 1.3 connection on this machine, TCP's segments limited to 1,460 bytes as on Ethernet. Counted are all bytes
of both directions, headers of IP and TCP, SYN and FIN included. Method: the TLS records are counted where they are
written and read; the segments are those of Linux's TCP_INFO, read after the last FIN was acknowledged, each with its
header of IPv4 (20 bytes) and TCP (20, and 12 of timestamps where the connection has them; those of the SYNs have 8 more
for segment size, selective acknowledgements and window scale). Nothing is resumed: the connection is the first.

python -m bench.https_bytes prints the certificates and the counts.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from bench.harness import Result, Size, wirechamber
from wirechamber.device import Device
from wirechamber.device.keys import new_key
from wirechamber.services.serverkeys import ServerKeys

DATA = b'{"celsius": 21.5678}'
MSS = 1460
HOST_NAME = "device-api.example.com"
REQUEST = (
    b"POST /v1/devices/events HTTP/1.1\r\n"
    b"Host: " + HOST_NAME.encode() + b"\r\n"
    b"Authorization: Bearer 0123456789abcdef0123456789abcdef01234567\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: " + str(len(DATA)).encode() + b"\r\n"
    b"Connection: close\r\n\r\n" + DATA
)
KEPT_REQUEST = REQUEST.replace(b"Connection: close\r\n", b"")
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 11\r\n"
    b"Date: Wed, 01 Jan 2025 00:00:00 GMT\r\nConnection: close\r\n\r\n"
    b'{"ok":true}'
)
KEPT_ANSWER = ANSWER.replace(b"Connection: close\r\n", b"")

# linux/tcp.h, struct tcp_info: eight single bytes, 24 words of 32 bits, then 64-bit words and the segment counts.
TCP_INFO_BYTES = 256
OPTIONS_AT, HAS_TIMESTAMPS = 5, 1
SEGMENTS_AT = 136
IPV4, TCP, TIMESTAMPS, SYN_EXTRA = 20, 20, 12, 8
TIMEOUT_S = 10

CERTIFICATE_TIMESTAMPS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass
class Chain:
    """A server's certificates, leaf first, and its key, as files."""

    name: str
    folder: Path
    sizes: tuple[int, int]


@dataclass
class Cost:
    """What one POST took."""

    up: int
    down: int
    segments_up: int
    segments_down: int
    tls_up: int
    tls_down: int

    @property
    def total(self) -> int:
        return self.up + self.down

    def since(self, before: Cost) -> Cost:
        """What was added since then."""
        return Cost(**{name: value - getattr(before, name) for name, value in vars(self).items()})


# Acknowledgements that are delayed by chance add a segment or three: the least of so many is what it takes at least.
ROUNDS = 5


def measure(kind: str) -> tuple[Chain, Cost]:
    """One POST over a new connection: the least of some.

    Args:
        kind: `P-256` or `RSA-2048`: the keys of leaf and intermediate.
    """
    with tempfile.TemporaryDirectory(prefix="https-") as name:
        chain = make_chain(kind, Path(name))
        return chain, min((_post(chain) for _ in range(ROUNDS)), key=lambda cost: cost.total)


def measure_kept() -> Cost:
    """One POST over a connection that was used before and stays open. Its certificates were sent before."""
    with tempfile.TemporaryDirectory(prefix="https-") as name:
        return _post(make_chain("P-256", Path(name)), kept=True)


def run(size: Size) -> Iterator[Result]:
    """As `make bench` shows it: a confirmed publish over the device link beside both. It has one size."""
    publish = _publish()
    for kind, share in (("P-256", 20), ("RSA-2048", 25)):
        chain, cost = measure(kind)
        counterpart = f"new HTTPS connection, {kind} certificates of {chain.sizes[0]} + {chain.sizes[1]} bytes: "
        counterpart += f"{cost.total} in {cost.segments_up} + {cost.segments_down} segments"
        goal = f"<= {1 / share:g}"
        name = "confirmed publish of 20 bytes, both directions"
        yield Result(name, publish, "bytes", counterpart, publish / cost.total, goal)
    kept = measure_kept().total
    yield Result(name, publish, "bytes", f"HTTPS connection that is kept open: {kept}", publish / kept)


def _publish() -> int:
    """Bytes of a confirmed publish of a device that is connected, counted at its socket, headers added."""

    async def work(port: int, server_key: bytes) -> int:
        device = Device("0123456789abcdef01234567", key=new_key(), server_key=server_key, host="127.0.0.1", port=port)
        async with device:
            await device.settle()
            before = device.traffic.copy()
            await device.publish("temperature", DATA.decode())
            return device.traffic.since(before).total

    with wirechamber(provisioning="true", udp_port="0") as server:
        return asyncio.run(work(server.udp_port, ServerKeys(server.folder).public(tcp=False)))


# --- the connection ---


class Counted:
    """TLS over a socket, record bytes counted."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, *, server: bool) -> None:
        self._raw = raw
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._in, self._out, server_side=server, server_hostname=None if server else HOST_NAME
        )
        self.sent = self.received = 0

    def do(self, name: str, *arguments: Any) -> Any:
        """Calls a method of the TLS object until it needs nothing more from the network."""
        while True:
            try:
                result = getattr(self._tls, name)(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                data = self._raw.recv(65536)
                self.received += len(data)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()
                continue
            self._flush()
            return result

    def last(self) -> None:
        """close_notify, FIN, and whatever still comes until the other's FIN."""
        # The other side's close_notify has not come yet: an error, but ours is written.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self._raw.shutdown(socket.SHUT_WR)
        while data := self._raw.recv(65536):
            self.received += len(data)

    def _flush(self) -> None:
        data = self._out.read()
        if data:
            self._raw.sendall(data)
            self.sent += len(data)


def _post(chain: Chain, *, kept: bool = False) -> Cost:
    with socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MSS)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = threading.Thread(target=_serve, args=(listener, chain), daemon=True)
        server.start()
        context = ssl.create_default_context(cafile=str(chain.folder / "root.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        with socket.socket() as raw:
            raw.settimeout(TIMEOUT_S)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MSS)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.connect(listener.getsockname())
            client = Counted(raw, context, server=False)
            client.do("do_handshake")
            before: Cost | None = None
            if kept:
                _exchange(client, KEPT_REQUEST, KEPT_ANSWER)
                before = _settled(raw, client)
                _exchange(client, KEPT_REQUEST, KEPT_ANSWER)
                cost = _settled(raw, client).since(before)
            _exchange(client, REQUEST, ANSWER)
            client.last()
            if before is None:
                cost = _cost(raw, client)
        server.join(TIMEOUT_S)
        return cost


def _exchange(client: Counted, request: bytes, answer: bytes) -> None:
    client.do("write", request)
    came = b""
    while not came.endswith(b"}"):
        came += client.do("read", 4096)
    assert came == answer


def _settled(raw: socket.socket, client: Counted) -> Cost:
    """What was used so far, once the last acknowledgement is out: Linux holds it back for 40 ms."""
    cost = _cost(raw, client)
    while True:
        time.sleep(0.1)
        now = _cost(raw, client)
        if now == cost:
            return cost
        cost = now


def _serve(listener: socket.socket, chain: Chain) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain.folder / "chain.pem", chain.folder / "key.pem")
    raw, _ = listener.accept()
    with raw:
        raw.settimeout(TIMEOUT_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = Counted(raw, context, server=True)
        server.do("do_handshake")
        closes = False
        while not closes:
            request = b""
            while not request.endswith(DATA):
                request += server.do("read", 4096)
            closes = request == REQUEST
            server.do("write", ANSWER if closes else KEPT_ANSWER)
        server.last()


def _cost(raw: socket.socket, client: Counted) -> Cost:
    info = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    out, into = struct.unpack_from("II", info, SEGMENTS_AT)
    header = IPV4 + TCP + (TIMESTAMPS if info[OPTIONS_AT] & HAS_TIMESTAMPS else 0)
    return Cost(
        up=client.sent + out * header + SYN_EXTRA,
        down=client.received + into * header + SYN_EXTRA,
        segments_up=out,
        segments_down=into,
        tls_up=client.sent,
        tls_down=client.received,
    )


# --- certificates as large as those of a public authority ---


def make_chain(kind: str, folder: Path) -> Chain:
    """A root, an intermediate and a leaf with the extensions that public authorities put into theirs."""
    root_key, middle_key, leaf_key = (_key(kind) for _ in range(3))
    root_name = _name("Example Trust Services Root R4")
    middle_name = _name("Example Trust Services WE1" if kind == "P-256" else "Example Trust Services WR1")
    root = _builder(root_name, root_name, root_key).add_extension(x509.BasicConstraints(True, None), True)
    middle = _authority(_builder(middle_name, root_name, middle_key), middle_key, root_key)
    leaf = _server(
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST_NAME)]), middle_name, leaf_key), leaf_key,
        middle_key,
    )  # fmt: skip
    signed_root = root.sign(root_key, hashes.SHA256())
    signed_middle = middle.sign(root_key, hashes.SHA256())
    signed_leaf = leaf.sign(middle_key, hashes.SHA256())
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    (folder / "root.pem").write_bytes(signed_root.public_bytes(pem))
    (folder / "chain.pem").write_bytes(signed_leaf.public_bytes(pem) + signed_middle.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Chain(kind, folder, (len(signed_leaf.public_bytes(der)), len(signed_middle.public_bytes(der))))


def _key(kind: str) -> Key:
    return ec.generate_private_key(ec.SECP256R1()) if kind == "P-256" else rsa.generate_private_key(65537, 2048)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Trust Services"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: Key) -> x509.CertificateBuilder:
    today = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=89))
    )


def _authority(builder: x509.CertificateBuilder, key: Key, issuer: Key) -> x509.CertificateBuilder:
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(_usage(signs=True), True).add_extension(uses, False)
    builder = builder.add_extension(x509.BasicConstraints(True, 0), True)
    return _links(builder, key, issuer, ocsp=False)


def _server(builder: x509.CertificateBuilder, key: Key, issuer: Key) -> x509.CertificateBuilder:
    names = x509.SubjectAlternativeName([x509.DNSName(HOST_NAME), x509.DNSName("*." + HOST_NAME)])
    builder = builder.add_extension(_usage(signs=False), True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    builder = builder.add_extension(x509.BasicConstraints(False, None), True).add_extension(names, False)
    # Two timestamps of certificate transparency logs (RFC 6962, section 3.3), as browsers ask for: random here.
    entries = b"".join(struct.pack("!H", 119) + os.urandom(119) for _ in range(2))
    both = struct.pack("!H", len(entries)) + entries
    builder = builder.add_extension(
        x509.UnrecognizedExtension(CERTIFICATE_TIMESTAMPS, b"\x04\x81" + bytes((len(both),)) + both), False
    )
    return _links(builder, key, issuer, ocsp=True)


def _links(builder: x509.CertificateBuilder, key: Key, issuer: Key, *, ocsp: bool) -> x509.CertificateBuilder:
    """Key identifiers, policies, and where to ask about the issuer."""
    policy = x509.PolicyInformation(ObjectIdentifier("2.23.140.1.2.1"), None)
    address = x509.UniformResourceIdentifier
    asked = [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, address("http://i.example.com/we1.crt"))]
    if ocsp:
        asked.insert(
            0, x509.AccessDescription(AuthorityInformationAccessOID.OCSP, address("http://o.example.com/s/we1"))
        )
    lists = [x509.DistributionPoint([address("http://c.example.com/we1/4pQ0cGmXs8Y.crl")], None, None, None)]
    return (
        builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), False)
        .add_extension(x509.AuthorityInformationAccess(asked), False)
        .add_extension(x509.CertificatePolicies([policy]), False)
        .add_extension(x509.CRLDistributionPoints(lists), False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def main() -> int:
    """Prints both counts."""
    print(f"request {len(REQUEST)} bytes ({len(DATA)} of data), answer {len(ANSWER)} bytes, segments of {MSS}")
    for kind in ("P-256", "RSA-2048"):
        chain, cost = measure(kind)
        print(f"{kind}: leaf {chain.sizes[0]}, intermediate {chain.sizes[1]} bytes (DER)")
        print(f"  up    {cost.up:5} bytes in {cost.segments_up} segments (TLS {cost.tls_up})")
        print(f"  down  {cost.down:5} bytes in {cost.segments_down} segments (TLS {cost.tls_down})")
        print(f"  total {cost.total:5}")
    kept = measure_kept()
    print(f"the next one over the same connection: up {kept.up}, down {kept.down}, total {kept.total}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
