"""Commands that speak to a server over HTTP, with WIRECHAMBER_URL and WIRECHAMBER_TOKEN.

What answers may be anything: another server, a proxy, a page that wants a login. So a command believes nothing before
it has seen that it is Wirechamber who answers, and says otherwise what it met.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import ssl
import typing
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import typer
from msgspec import Struct

from wirechamber import SERVER_NAME
from wirechamber.cli.answers import fits
from wirechamber.cli.files import read_text
from wirechamber.cli.output import Exit, fail, harmless

if TYPE_CHECKING:
    import aiohttp

Result = TypeVar("Result")
Value = TypeVar("Value")
DEFAULT_URL = "http://127.0.0.1:8080"
TOKEN = "WIRECHAMBER_TOKEN"  # noqa: S105
# A server that is busy answers within this; one that answers to nothing is told from it.
TIMEOUT_S = 15.0
# Whether somebody speaks TLS is asked for so long.
PROBE_S = 3.0
# A list of integrations comes in pages; whatever is longer than this is no answer to what we ask.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_READS = ("GET", "HEAD")
# What to do about a certificate, by OpenSSL's code of what is wrong with it (X509_STORE_CTX_get_error(3)).
TRUST_IT = "name the file of the authority that signed it, with --cacert FILE or WIRECHAMBER_CACERT"
ADVICE = {
    9: "its time has not come yet, if this machine's clock is right",
    10: "renew it where the server runs, if this machine's clock is right",
    62: "set WIRECHAMBER_URL to a name that it holds",
    64: "set WIRECHAMBER_URL to a name that it holds",
}

Url = Annotated[str, typer.Option("--url", envvar="WIRECHAMBER_URL", help="The server.", show_default=True)]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="File that holds the token, instead of WIRECHAMBER_TOKEN.")
]
CaCert = Annotated[
    Path | None,
    typer.Option(
        "--cacert", envvar="WIRECHAMBER_CACERT",
        help="PEM file with the certificate of the authority that signed the server's; believed beside the system's.",
    ),
]  # fmt: skip


class Server(Struct, frozen=True):
    """Which server a command speaks to, and how it proves who asks."""

    url: str = DEFAULT_URL
    token_file: Path | None = None
    cacert: Path | None = None

    @property
    def anonymous(self) -> bool:
        """Whether there is no token at all."""
        return self.token_file is None and not os.environ.get(TOKEN, "").strip()

    def foreign(self, met: str) -> NoReturn:
        """Ends the command: who answers is not Wirechamber."""
        fail(f"{self.url} does not answer like Wirechamber: {met}; set WIRECHAMBER_URL to where `wirechamber serve` is")


def speaks(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command with an argument `server` the options that say which one."""
    hints = typing.get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters
    own = [each.replace(annotation=hints[each.name]) for each in given.values() if each.name != "server"]
    where = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, annotation, default in (
            ("url", Url, DEFAULT_URL), ("token_file", TokenFile, None), ("cacert", CaCert, None)
        )
    ]  # fmt: skip

    @wraps(command)
    def run(*, url: str, token_file: Path | None, cacert: Path | None, **options: Any) -> None:
        command(**options, server=Server(url.strip().rstrip("/"), token_file, cacert))

    del run.__wrapped__
    run.__annotations__ = {}
    own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    run.__signature__ = inspect.Signature([*own, *where])  # type: ignore[attr-defined]
    return run


class Answer(Struct, frozen=True):
    """What a Wirechamber answered.

    Attributes:
        value: Its JSON; None for no content.
        kind: Status and type, in words.
        count: How many there are of what the list in it shows some.
    """

    status: int
    value: Any
    kind: str
    count: int | None = None


class Remote:
    """A server, and the right to use it."""

    def __init__(self, session: aiohttp.ClientSession, server: Server) -> None:
        self.session = session
        self.server = server
        self._known = False

    async def call(
        self, method: str, path: str, body: Any = None, *, expect: type[Value], patience_s: float | None = None
    ) -> Value:
        """The answer's JSON; an error ends the command.

        Args:
            expect: What it must be; what else it holds is kept.
            patience_s: How long it may take, if not as long as usual.
        """
        return self.told(await self.ask(method, path, body, patience_s=patience_s), expect)

    async def ask(self, method: str, path: str, body: Any = None, *, patience_s: float | None = None) -> Answer:
        """The server's answer, whatever it says; ends the command when there is none of a Wirechamber."""
        import aiohttp

        patience_s = patience_s or TIMEOUT_S
        if patience_s > TIMEOUT_S and not self._known:
            # Whoever is no Wirechamber is not waited for so long.
            await self.ask("GET", "healthz")
        timeout = aiohttp.ClientTimeout(total=patience_s)
        try:
            async with self.session.request(
                method, path, json=body, timeout=timeout, allow_redirects=False
            ) as answer:  # fmt: skip
                return await self.read(answer)
        except TimeoutError as problem:
            if isinstance(problem, aiohttp.ConnectionTimeoutError):
                raise
            done = "" if method in _READS else ", and it is not known whether it did what it was asked for"
            await _stranger(self.server, f"no answer came within {patience_s:g} s{done}")

    async def read(self, answer: aiohttp.ClientResponse) -> Answer:
        """What an answer says; ends the command when it is not a Wirechamber's."""
        await self.recognise(answer)
        raw = await self._whole(answer)
        kind = f"status {answer.status}, {answer.content_type}"
        try:
            value = msgspec.json.decode(raw) if raw else None
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            self.server.foreign(f"what came is no JSON ({kind})")
        count = answer.headers.get("X-Total-Count", "")
        return Answer(answer.status, value, kind, int(count) if count.isdecimal() else None)

    def told(self, answer: Answer, expect: type[Value]) -> Value:
        """The value of an answer; an error, or something else than is expected, ends the command."""
        if answer.status >= 400:
            told = answer.value if isinstance(answer.value, dict) else {}
            text = told.get("error_description") or told.get("error") or f"the server answered status {answer.status}"
            fail(str(text), _code(answer.status))
        if not fits(answer.value, expect):
            self.server.foreign(f"something else came than was asked for ({answer.kind})")
        return typing.cast(Value, answer.value)

    async def recognise(self, answer: aiohttp.ClientResponse) -> None:
        """Ends the command unless it is Wirechamber who answers, if need be behind a proxy that answers for it."""
        if 300 <= answer.status < 400:
            to = harmless(answer.headers.get("Location", "elsewhere"))[:200]
            self.server.foreign(f"it redirects to {to}")
        if self._known or answer.headers.get("Server") == SERVER_NAME:
            self._known = True
            return
        # A proxy puts its own name there, so the server itself is asked.
        async with self.session.get("healthz", allow_redirects=False) as health:
            raw = await health.content.read(1024)
            try:
                told = msgspec.json.decode(raw)
            except (msgspec.DecodeError, RecursionError, UnicodeError):
                told = None
            if isinstance(told, dict) and told.keys() == {"ok", "version"}:
                # So it answered before it told its name.
                fail(
                    f"{self.server.url} answers like a Wirechamber of an earlier version: start it again with this "
                    "one, or set WIRECHAMBER_URL to another"
                )
            if not isinstance(told, dict) or told.get("server") != SERVER_NAME:
                await _stranger(self.server, f"what came was status {answer.status}, {answer.content_type}")
        self._known = True

    async def _whole(self, answer: aiohttp.ClientResponse) -> bytes:
        parts = bytearray()
        async for part in answer.content.iter_any():
            parts += part
            if len(parts) > MAX_ANSWER_BYTES:
                self.server.foreign(f"its answer is longer than {MAX_ANSWER_BYTES >> 20} MB")
        return bytes(parts)


def with_server(work: Callable[[Remote], Awaitable[Result]], server: Server, *, anonymous: bool = False) -> Result:
    """Does the work with a session; turns errors into one line."""
    # A fifth of a second, which commands without a server need not wait for.
    import aiohttp

    _check(server.url)
    token = "" if anonymous else _token(server.token_file)
    trust = _trust(server.cacert)

    async def run() -> Result:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(
            base_url=server.url + "/", headers=headers, timeout=timeout, connector=connector
        ) as session:
            try:
                return await work(Remote(session, server))
            except BrokenPipeError:
                # Of what is printed; one of the connection is a ClientError.
                raise
            except (aiohttp.ClientError, TimeoutError, OSError) as problem:
                await _explain(problem, server)

    try:
        return asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _explain(problem: Exception, server: Server) -> NoReturn:
    """Ends the command with what happened instead of an answer."""
    import aiohttp

    start = "start one with `wirechamber serve`, or set WIRECHAMBER_URL"
    match problem:
        case aiohttp.ClientConnectorCertificateError():
            advice = ADVICE.get(getattr(problem.certificate_error, "verify_code", 0), TRUST_IT)
            why = _why(problem.certificate_error)
            fail(f"the certificate of {server.url} is not trusted: {why}; {advice}")
        case aiohttp.ClientConnectorSSLError():
            plain = "http" + server.url[len("https") :]
            fail(f"{server.url} does not answer in TLS ({_why(problem)}); without TLS it would be {plain}")
        case aiohttp.ClientConnectorDNSError():
            fail(f"there is no server at {server.url}: its name can't be found; {start}", Exit.UNREACHABLE)
        case aiohttp.ClientConnectorError():
            # asyncio puts the address in the place of the system's words.
            why = os.strerror(problem.os_error.errno) if problem.os_error.errno else str(problem.os_error)
            fail(f"there is no server at {server.url} ({why.lower()}); {start}", Exit.UNREACHABLE)
        case aiohttp.ConnectionTimeoutError():
            fail(f"there is no server at {server.url}: no connection within {TIMEOUT_S:g} s; {start}", Exit.UNREACHABLE)
        case TimeoutError():
            met = "no answer came in time"
        case aiohttp.ClientResponseError():
            met = "what came is no HTTP"
        case aiohttp.ClientPayloadError():
            met = "its answer broke off"
        case _:
            met = "it closed the connection without an answer"
    await _stranger(server, met)


async def _stranger(server: Server, met: str) -> NoReturn:
    """Ends the command with what was met, unless it was only the wrong scheme."""
    if server.url.lower().startswith("http://") and await _speaks_tls(server.url):
        secure = "https" + server.url[len("http") :]
        fail(f"{server.url} speaks TLS; set WIRECHAMBER_URL to {secure}")
    server.foreign(met)


def _why(problem: BaseException) -> str:
    """The reason in an error of TLS, without the library's own marks."""
    found = getattr(problem, "os_error", problem)
    text = getattr(found, "verify_message", None) or getattr(found, "reason", None) or str(found)
    return str(text).replace("_", " ").lower()


async def _speaks_tls(url: str) -> bool:
    parts = urlsplit(url)
    # Nothing is sent but a greeting, so it does not matter who it is.
    trust = ssl.create_default_context()
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, ssl=trust)
    except (OSError, ValueError, TimeoutError):
        return False
    writer.close()
    return True


def _check(url: str) -> None:
    """Ends the command when no request can go there."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or not url.isascii() or any(each.isspace() or not each.isprintable() for each in url):
        shown = harmless(url)[:200] or "an empty text"
        fail(f"{shown} is no address of a server; begin it with http:// or https://, such as {DEFAULT_URL}")
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if "@" in parts.netloc:
        # Not repeated: it may be a password.
        fail(f"an address of a server holds no user and password, since a token says who asks; write {bare}")
    if parts.path.rstrip("/").endswith(("/v1", "/docs")) or parts.query or parts.fragment:
        fail(f"{harmless(url)[:200]} is a part of a server; write its address alone, such as {bare}")


def _trust(cacert: Path | None) -> ssl.SSLContext | bool:
    if cacert is None:
        return True
    text = read_text(cacert)
    trust = ssl.create_default_context()
    try:
        trust.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        fail(f"{cacert} holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----", Exit.USAGE)
    return trust


def _token(file: Path | None) -> str:
    token = os.environ.get(TOKEN, "").strip() if file is None else read_text(file).strip()
    if not token and file is not None:
        fail(f"{file} is empty; it must hold a token", Exit.USAGE)
    if not token:
        fail("set WIRECHAMBER_TOKEN, such as to what `wirechamber token create --user NAME` prints", Exit.NOT_ALLOWED)
    if not token.isascii() or not token.isprintable() or " " in token:
        where = TOKEN if file is None else str(file)
        fail(f"{where} holds no token: one is a single word, as `wirechamber token create` prints it", Exit.NOT_ALLOWED)
    return token


def quoted(text: str) -> str:
    """A part of a path, whatever it is."""
    return quote(text, safe="", errors="surrogateescape")


def _code(status: int) -> Exit:
    if status in (401, 403):
        return Exit.NOT_ALLOWED
    if status == 404:
        return Exit.NOT_FOUND
    return Exit.UNREACHABLE if status == 503 else Exit.FAILED
