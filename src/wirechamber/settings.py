"""Every setting, once: its type, default and help.

Read, later ones winning, from the default, a TOML file, the environment (`WIRECHAMBER_<NAME>`) and flags
(`--<name>`). The CLI's flags, `wirechamber config`, the docs page and the file's keys all come from this declaration.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from wirechamber import proxy
from wirechamber.errors import BadInput
from wirechamber.hosts import check_host
from wirechamber.suggest import did_you_mean, meant

ENV_PREFIX = "WIRECHAMBER_"
# Variables that other programs know too; ours go before them.
OTHER_NAMES = {
    "PUBSUB_EMULATOR_HOST": "pubsub_emulator_host",
    "GOOGLE_APPLICATION_CREDENTIALS": "google_credentials",
}
# Variables that begin as settings do, of the command line.
OTHERS = ("CONFIG", "URL", "TOKEN", "CACERT", "TRACEBACK")
_URL = re.compile(r"https?://[^\s/?#@\\]+(?:[/?#][^\s]*)?", re.IGNORECASE)
# Paths are put behind it.
_BASE_URL = re.compile(r"https?://[^\s/?#@\\]+(?:/[^\s?#]*)?", re.IGNORECASE)
Source = Literal["default", "file", "environment", "flag"]
Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Networks = tuple[str, ...]


def _help(text: str) -> Meta:
    return Meta(description=text)


class Settings(Struct, frozen=True, kw_only=True):
    """The effective configuration of one cloud."""

    data: Annotated[str, _help("Data folder: databases and keys; made on first start, mode 0700.")] = "./data"
    http_host: Annotated[str, _help("Address to listen on; `::` for every one, IPv4 and IPv6.")] = "127.0.0.1"
    http_port: Annotated[Port, _help("Port to listen on; 0 takes a free one and prints it.")] = 8080
    base_url: Annotated[str, _help("How clients reach this cloud; derived from host and port when empty.")] = ""
    tls_cert: Annotated[str, _help("PEM certificate chain for https; read again when it changes.")] = ""
    tls_key: Annotated[str, _help("PEM private key for https; read again when it changes.")] = ""
    trusted_proxies: Annotated[
        Networks, _help("Networks of reverse proxies whose X-Forwarded-For and -Proto are believed.")
    ] = ()
    outbound_allow: Annotated[
        Networks, _help("Networks that integrations may reach although they are private, loopback or link-local.")
    ] = ()
    outbound_proxy: Annotated[
        str,
        _help(
            "Proxy for outgoing requests, such as http://user:password@proxy.example.com:3128; also https, socks4, "
            "socks4a, socks5 and socks5h. The environment's proxies are ignored."
        ),
    ] = ""
    durability: Annotated[
        Literal["full", "normal"],
        _help("full: an acknowledged event survives power loss. normal: it survives a killed process only."),
    ] = "full"
    retention_days: Annotated[Positive, _help("Days that events are kept.")] = 30
    clock_settle_hours: Annotated[
        float,
        Meta(ge=0),
        _help("Hours for which the clock must have kept a time to which it was set before anything is deleted by it."),
    ] = 24.0
    retention_share: Annotated[
        int,
        Meta(ge=1),
        _help("Percent of its period by which retention may catch up in one day with a clock that was set forward."),
    ] = 25
    owner_quota_mb: Annotated[int, Meta(ge=0), _help("Megabytes of events kept per owner; 0 for no bound.")] = 1024
    disk_floor_mb: Annotated[
        int, Meta(ge=0), _help("Publishing answers 503 when less disk than this is free, in megabytes.")
    ] = 256
    max_event_bytes: Annotated[Positive, _help("Largest event data that the API takes, in bytes of UTF-8.")] = 16_384
    token_days: Annotated[Positive, _help("Life of a token when the client does not ask, in days.")] = 90
    retry_schedule: Annotated[
        tuple[Seconds, ...],
        _help("Seconds to wait before each attempt of a delivery, each varied by 20 %; the first, 0, is made at once."),
    ] = (0.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0)
    answer_deadline: Annotated[
        Seconds, _help("Seconds after which a device whose delivery still fails is told by one hook-error.")
    ] = 120.0
    request_timeout: Annotated[Seconds, _help("Seconds that one outgoing request may take as a whole.")] = 20.0
    lane_concurrency: Annotated[Positive, _help("Requests at a time of one integration to one target host.")] = 32
    outbound_concurrency: Annotated[Positive, _help("Outgoing requests at a time, all integrations together.")] = 256
    attempt_bodies: Annotated[
        int, Meta(ge=0), _help("Newest successful attempts per integration that keep their request and response.")
    ] = 1000
    attempt_body_hours: Annotated[
        int, Meta(ge=0), _help("Hours for which every successful attempt keeps its request and response.")
    ] = 24
    attempt_days: Annotated[Positive, _help("Days that attempts are kept in the log of an integration.")] = 30
    owner_attempts_mb: Annotated[
        Positive,
        _help("Megabytes of attempts, with requests and answers, kept per owner; the oldest go first."),
    ] = 64
    attempt_bodies_mb: Annotated[
        Positive, _help("Megabytes of requests and answers of attempts that are kept, all owners together.")
    ] = 512
    streams_per_address: Annotated[Positive, _help("Event streams open at a time from one address.")] = 1000
    streams_per_owner: Annotated[Positive, _help("Event streams that one user may have open at a time.")] = 20_000
    stream_buffer_kb: Annotated[
        Positive, _help("Kilobytes that may wait for a slow reader before its stream is ended.")
    ] = 1024
    keep_alive: Annotated[float, Meta(gt=0, le=9), _help("Seconds of silence after which a stream gets a comment.")] = (
        9.0
    )
    login_failures: Annotated[
        Positive, _help("Wrong passwords after which a network must wait; an account after twice as many.")
    ] = 10
    login_block: Annotated[Seconds, _help("Seconds that it must wait, and that failures are remembered.")] = 1800.0
    integrations_per_owner: Annotated[Positive, _help("Integrations that one owner may have.")] = 20_000
    owner_integrations_mb: Annotated[
        Positive, _help("Megabytes that the configurations of one owner's integrations may take together.")
    ] = 32
    pubsub_url: Annotated[str, _help("Where GoogleCloudPubSub integrations publish, such as a regional endpoint.")] = (
        "https://pubsub.googleapis.com"
    )
    pubsub_emulator_host: Annotated[
        str, _help("Host and port of a Pub/Sub emulator that is used instead; also PUBSUB_EMULATOR_HOST.")
    ] = ""
    google_token_url: Annotated[
        str,
        _help(
            "Where service accounts of Google exchange what they sign for a token, such as "
            "https://oauth2.googleapis.com/token; empty: what they sign is the token."
        ),
    ] = ""
    google_credentials: Annotated[
        str,
        _help(
            "Key file of the service account that counts for GoogleCloudPubSub integrations without credentials; also "
            "GOOGLE_APPLICATION_CREDENTIALS. Empty: the machine's own identity at Google."
        ),
    ] = ""
    geolocation_url: Annotated[str, _help("Where GoogleMaps integrations look devices up.")] = (
        "https://www.googleapis.com/geolocation/v1/geolocate"
    )
    iothub_url: Annotated[
        str, _help("Where AzureIotHub integrations send everything, in place of the host of each hub.")
    ] = ""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _help("Least level that is logged.")] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"], _help("auto: readable on a terminal, JSON otherwise.")
    ] = "auto"
    udp_host: Annotated[
        str,
        _help("Address on which devices are listened to, over UDP and TCP; `::` for every one, IPv4 and IPv6."),
    ] = "0.0.0.0"  # noqa: S104
    udp_port: Annotated[Port, _help("UDP port for devices; 0 takes a free one and prints it.")] = 5684
    tcp_port: Annotated[
        Port, _help("TCP port for devices of the older generation (Photon, Core); usually 5683. 0 for none.")
    ] = 0
    device_host: Annotated[
        str, _help("How devices reach this cloud, an IPv4 address or a name; written into their memory.")
    ] = ""
    provisioning: Annotated[
        bool,
        _help("Take unknown devices, and the first key of one that has none. Only on a network that you trust."),
    ] = False
    publish_rate: Annotated[float, Meta(gt=0), _help("Events per second that a device may publish on average.")] = 4.0
    publish_burst: Annotated[Positive, _help("Events that a device may publish at once.")] = 8
    vitals_days: Annotated[Positive, _help("Days that what devices measured of themselves is kept.")] = 30
    usage_days: Annotated[Positive, _help("Days that the hourly counts of what devices used are kept.")] = 90
    metrics_public: Annotated[bool, _help("Serve /metrics to every address; otherwise only to loopback.")] = False
    shutdown_grace: Annotated[Seconds, _help("Seconds that running requests get to finish on shutdown.")] = 3.0

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("name a folder, such as ./data - at `$.data`")
        for name in ("http_host", "udp_host", "device_host"):
            host = getattr(self, name)
            try:
                if host:
                    check_host(host, ipv6=name != "device_host")
            except ValueError as problem:
                raise ValueError(f"{problem} - at `$.{name}`") from None
        if self.base_url and _BASE_URL.fullmatch(self.base_url) is None:
            raise ValueError(
                "write scheme, host and port, such as https://cloud.example.com, without user and password"
                " - at `$.base_url`"
            )
        for name in ("outbound_allow", "trusted_proxies"):
            for network in getattr(self, name):
                try:
                    ipaddress.ip_network(network, strict=False)
                except ValueError:
                    raise ValueError(
                        f"`{network}` is no network; write 10.0.0.0/8 or ::1/128 - at `$.{name}`"
                    ) from None
        for name in ("pubsub_url", "google_token_url", "geolocation_url", "iothub_url"):
            url = getattr(self, name)
            if url and _URL.fullmatch(url) is None:
                # Not repeated: it may hold a password, and users see in the log of attempts where requests went.
                raise ValueError(
                    f"write an address such as https://host/path, without user and password - at `$.{name}`"
                )
        if self.outbound_proxy:
            try:
                proxy.read(self.outbound_proxy)
            except ValueError as problem:
                raise ValueError(f"{problem} - at `$.outbound_proxy`") from None
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("set both or neither of tls_cert and tls_key - at `$.tls_cert`")
        if not self.retry_schedule:
            raise ValueError("name at least one attempt, such as 0 - at `$.retry_schedule`")
        if self.retry_schedule[0] != 0:
            raise ValueError("begin with 0: the first attempt is made at once - at `$.retry_schedule`")

    @property
    def data_folder(self) -> Path:
        """The data folder as a path."""
        return Path(self.data)


class Sourced(Struct, frozen=True):
    """A setting's value and where it comes from."""

    name: str
    value: Any
    source: Source
    help: str

    @property
    def environment(self) -> str:
        """The environment variable that sets it."""
        return ENV_PREFIX + self.name.upper()


def described() -> dict[str, str]:
    """Each setting's help text, by name, in the order of declaration."""
    hints = _hints()
    return {name: _text(hints[name]) for name in Settings.__struct_fields__}


def load(
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> tuple[Settings, list[Sourced]]:
    """The effective settings, and each with its source.

    Args:
        file: A TOML file; None takes the one that `WIRECHAMBER_CONFIG` names, if any.
        environment: Instead of the process's own.
        flags: From the command line; None values were not given.

    Raises:
        BadInput: A setting is unknown or has a value that is not allowed; the text names it and its source.
    """
    env = os.environ if environment is None else environment
    if file is None and env.get(ENV_PREFIX + "CONFIG"):
        file = Path(env[ENV_PREFIX + "CONFIG"])
    layers: list[tuple[Source, Mapping[str, Any]]] = [
        ("file", {} if file is None else _from_file(file)),
        ("environment", _from_environment(env)),
        ("flag", {name: value for name, value in (flags or {}).items() if value is not None}),
    ]
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for source, layer in layers:
        for name, value in layer.items():
            if name not in Settings.__struct_fields__:
                hint = did_you_mean(name, Settings.__struct_fields__)
                raise BadInput(f"{source}: there is no setting {name!r}{hint}; `wirechamber config` lists them all")
            if not _is_text(value):
                raise BadInput(f"setting {name} (from {source}): it is no text in UTF-8")
            values[name] = _split(name, value)
            sources[name] = source
    try:
        # Not strict: text from the environment becomes the number or boolean that is meant.
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as problem:
        name = str(problem).rpartition("$.")[2].split("`")[0].split("[")[0]
        where = f" (from {sources[name]})" if name in sources else ""
        text = str(problem).rpartition(" - at")[0] or str(problem)
        if name in sources and text.startswith(("Expected", "Invalid")):
            # The words of the library, which speak of types.
            text = _wanted(name, values[name])
        raise BadInput(f"setting {name}{where}: {text}") from None
    helps = described()
    return settings, [
        Sourced(name, getattr(settings, name), sources.get(name, "default"), helps[name])
        for name in Settings.__struct_fields__
    ]


def unknown_in(environment: Mapping[str, str]) -> list[str]:
    """What is said of variables that look like settings and are none."""
    known = [name.upper() for name in Settings.__struct_fields__] + list(OTHERS)
    found = [name.removeprefix(ENV_PREFIX) for name in environment if name.startswith(ENV_PREFIX)]
    return [
        f"{ENV_PREFIX}{name} is no setting{_for_shell(name, known)}; it is ignored, and `wirechamber config` lists all"
        for name in found
        if name not in known
    ]


def _for_shell(name: str, known: list[str]) -> str:
    found = meant(name, known)
    return "" if found is None else f" (did you mean {ENV_PREFIX}{found}?)"


def _from_file(file: Path) -> dict[str, Any]:
    try:
        # Some editors put a mark before UTF-8.
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as problem:
        raise BadInput(f"the settings file {file} can't be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"the settings file {file} is not UTF-8; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise BadInput(f"the settings file {file} is no TOML: {problem}") from None


def _from_environment(env: Mapping[str, str]) -> dict[str, str]:
    names = {key[len(ENV_PREFIX) :].lower(): key for key in env if key.startswith(ENV_PREFIX)}
    found = {name: env[key] for name, key in names.items() if name in Settings.__struct_fields__}
    return {name: env[key] for key, name in OTHER_NAMES.items() if env.get(key)} | found


def _is_text(value: Any) -> bool:
    """Whether a value is not made of bytes that are no UTF-8, as a name of a file may be."""
    try:
        str(value).encode()
    except UnicodeError:
        return False
    return True


def _wanted(name: str, value: Any) -> str:
    """What a setting must be, in words."""
    shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    metas: list[Meta] = []
    choices: tuple[str, ...] = ()
    for part in _parts(_hints()[name]):
        if isinstance(part, Meta):
            metas.append(part)
        elif typing.get_origin(part) is Literal:
            choices = typing.get_args(part)
    if choices:
        return f"must be one of {', '.join(choices)}, not {shown!r}{did_you_mean(shown, choices)}"
    kind = {int: "a whole number", float: "a number", bool: "true or false"}.get(plain_type(name))
    if kind is None:
        kind = "numbers with commas between them" if isinstance(value, list) else "a text"
    least = next((each for meta in metas for each in (meta.ge, meta.gt) if each is not None), None)
    most = next((meta.le for meta in metas if meta.le is not None), None)
    more = next((" more than" for meta in metas if meta.gt is not None), "")
    bounds = "" if least is None else f",{more} {least:g}{' or more' if not more and most is None else ''}"
    bounds += "" if most is None else f" {'to' if least is not None else ', at most'} {most:g}"
    return f"must be {kind}{bounds}, not {shown!r}"


def _parts(hint: Any) -> list[Any]:
    """A type and everything that is said about it."""
    if typing.get_origin(hint) is Annotated:
        inner, *said = typing.get_args(hint)
        return [*_parts(inner), *said]
    if isinstance(hint, types.UnionType):
        return [part for each in typing.get_args(hint) for part in _parts(each)]
    return [hint]


def _split(name: str, value: Any) -> Any:
    if isinstance(value, str) and isinstance(getattr(_DEFAULTS, name), tuple):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


@cache
def _hints() -> dict[str, Any]:
    # Milliseconds each time, and asked for every flag of every command.
    return typing.get_type_hints(Settings, include_extras=True)


def _text(hint: Any) -> str:
    texts = [meta.description for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]
    return next((text for text in texts if text), "")


def plain_type(name: str) -> type:
    """The bare type of a setting (`str`, `int`, `float` or `bool`), tuples as text: what a flag is parsed with."""
    hint = _hints()[name]
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    origin = typing.get_origin(hint)
    if origin in (Literal, tuple) or isinstance(hint, types.UnionType):
        return str
    return typing.cast(type, hint)


_DEFAULTS = Settings()
