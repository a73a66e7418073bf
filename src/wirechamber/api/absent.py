"""What Particle's cloud has and this one has not (yet): lists that are empty, and refusals that say so.

Clients ask for these lists on their way to something else, so each is answered in the shape that they read
(clients.md, section 4). What would change something is refused: nobody is told of a success that there was none of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from wirechamber.api.http import Call, answer
from wirechamber.api.routing import ANYONE, TOKEN, Route
from wirechamber.errors import CloudError, Forbidden, NotFound, TooLarge

_NO_PAGES: dict[str, Any] = {"page": 1, "per_page": 25, "total": 0, "total_pages": 0}
# By path: what it is a list of, and the empty answer.
EMPTY: dict[str, tuple[str, Any]] = {
    "/v1/products": ("products", {"products": []}),
    "/v1/user/products": ("products", {"products": []}),
    "/v1/orgs": ("organisations", {"organizations": []}),
    "/v1/sims": ("SIM cards", {"sims": [], "meta": _NO_PAGES}),
    "/v1/networks": ("mesh networks", {"networks": [], "meta": _NO_PAGES}),
    "/v1/libraries": ("libraries", {"data": []}),
    "/v1/ledgers": ("ledgers", {"ledger_definitions": [], "meta": _NO_PAGES}),
    "/v1/logic/functions": ("Logic functions", {"logic_functions": []}),
    "/v1/secrets": ("secrets", {"secrets": []}),
    "/v1/device-os/versions": ("Device OS versions", []),
    "/v1/env": (
        "environment variables",
        {
            "last_snapshot": None,
            "latest": {
                "own": {},
                "inherited": {},
                "created_at": None,
                "updated_at": None,
                "created_by": None,
                "updated_by": None,
            },
        },
    ),
}
# Asked for without a token, too.
BUILD_TARGETS: dict[str, Any] = {"targets": [], "platforms": {}, "default_versions": {}}
# What else clients ask for, by how its path begins.
AREAS: dict[str, str] = {
    "/v1/sims": "SIM cards are",
    "/v1/networks": "mesh networks are",
    "/v1/libraries": "libraries are",
    "/v1/ledgers": "ledgers are",
    "/v1/logic": "Logic functions are",
    "/v1/secrets": "secrets are",
    "/v1/env": "environment variables are",
    "/v1/device-os": "a list of Device OS versions is",
    "/v1/binaries": "compiling firmware is",
    "/v1/serial_numbers": "looking up serial numbers is",
    "/v1/user/mfa-enable": "a second factor is",
    "/v1/user/mfa-disable": "a second factor is",
}

# What a change of a device says that would bring it other firmware, beside a file.
FIRMWARE = (
    "app_id", "build_target_version", "desired_firmware_version", "firmware_updates_enabled", "firmware_updates_forced",
    "flash", "latest",
)  # fmt: skip

Handler = Callable[[Call], Awaitable[web.Response]]


class NotOffered(CloudError):
    """Particle's cloud does this, and ours does not."""

    status = 400
    code = "not_offered"


async def change_of_device(call: Call) -> dict[str, Any]:
    """What a change of a device sends.

    Raises:
        NotOffered: It would bring the device other firmware.
    """
    try:
        body = await call.body()
    except TooLarge:
        # Nobody's notes are that long in a form of parts.
        if not call.request.headers.get("Content-Type", "").lower().startswith("multipart/"):
            raise
        body = {"flash": True}
    if getattr(body, "files", ()) or any(body.get(field) is not None for field in FIRMWARE):
        raise NotOffered(
            "firmware updates are not offered yet by this cloud; flash over USB, such as with `particle flash --local`"
        )
    return body


def reason(path: str) -> str | None:
    """Why there is nothing at a path that Particle's cloud has; None for any other path."""
    what = next((what for area, what in AREAS.items() if path == area or path.startswith(area + "/")), None)
    return None if what is None else f"{what} not offered by this cloud yet"


async def no_product(call: Call) -> web.Response:
    """Products and organisations come later; until then there is none."""
    raise NotFound("Product not found.", error="Product not found.")


async def no_reset(call: Call) -> web.Response:
    """This cloud sends no e-mail; whoever forgot a password has no token either."""
    raise Forbidden("passwords are set by the operator of this cloud, with `wirechamber user password NAME`")


def _empty(value: Any) -> Handler:
    async def listed(call: Call) -> web.Response:
        return answer(value)

    return listed


ROUTES = (
    *(
        Route(
            method="GET", path=path, handler=_empty(value), requires=TOKEN,
            summary=f"List {what}: there are none yet", answers="an empty list, in the shape that clients read",
        )
        for path, (what, value) in EMPTY.items()
    ),
    Route(
        method="GET", path="/v1/build_targets", handler=_empty(BUILD_TARGETS), requires=ANYONE,
        summary="List what firmware can be compiled for: nothing", answers="{targets, platforms, default_versions}",
    ),
    *(
        Route(
            method=method, path=f"/v1/{area}{rest}", handler=no_product, requires=TOKEN,
            summary="Products and organisations: not yet", answers="404",
        )
        for area in ("products", "orgs", "user/products")
        for rest in ("", "/{rest:.+}")
        for method in ("GET", "POST", "PUT", "DELETE")
        if rest or method != "GET"
    ),
    *(
        Route(
            method=method, path="/v1/user/password-reset", handler=no_reset, requires=ANYONE,
            summary="Forgotten passwords: the operator sets them", answers="403",
        )
        for method in ("POST", "PUT")
    ),
)  # fmt: skip
