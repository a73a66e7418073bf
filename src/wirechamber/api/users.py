"""The caller's own account (cloud-api.md, section 2, User)."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from wirechamber.api.http import Call, answer
from wirechamber.api.routing import ANYONE, FULL, TOKEN, Route
from wirechamber.errors import BadInput, Forbidden
from wirechamber.model.accounts import User

MAX_ACCOUNT_INFO = 16_384


class UserChange(Struct):
    """What `PUT /v1/user` takes."""

    username: str | None = None
    password: str | None = None
    current_password: str | None = None
    account_info: dict[str, Any] | None = None
    invalidate_tokens: bool = False


async def show(call: Call) -> web.Response:
    """The caller."""
    user = await call.parts.access.user(call.owner)
    devices = await call.parts.devices.count(call.owner)
    return answer(
        {
            "username": user.name,
            "subscription_ids": [],
            "account_info": {"first_name": "", "last_name": "", "company_name": "", "business_account": False}
            | user.account_info,
            "scim_provisioned": False,
            "no_password": False,
            "mfa": {"enabled": False},
            "wifi_device_count": devices.all - devices.cellular,
            "cellular_device_count": devices.cellular,
            "memberships": [],
            "tos": {"accepted": True},
        }
    )


async def change(call: Call) -> web.Response:
    """Changes name, password or account information; the first two need the current password."""
    body = await call.body()
    access = call.parts.access
    user = await access.user(call.owner)
    name, password, info = body.get("username"), body.get("password"), body.get("account_info")
    for field, value in (("username", name), ("password", password)):
        if value is not None and not isinstance(value, str):
            raise BadInput(f"{field} must be a text")
    if info is not None and (not isinstance(info, dict) or len(msgspec.json.encode(info)) > MAX_ACCOUNT_INFO):
        raise BadInput(f"account_info must be an object of at most {MAX_ACCOUNT_INFO} bytes")
    if name is not None or password is not None:
        user = await _proved(call, user, body.get("current_password"))
    ends = _flag(body.get("invalidate_tokens"))
    # What may be refused comes first, so that a refusal changes nothing.
    if password is not None:
        access.check_password(password)
    if name is not None:
        user = await access.rename(user, name)
    if password is not None:
        keep = None if ends else call.caller.digest
        user = await access.set_password(user, password, keep=keep, address=call.address())
    if info is not None:
        await access.set_account_info(user, info)
    if ends:
        # The one that asks, too: whoever asks logs in again.
        await access.revoke_all(user.id)
    return answer({"ok": True, "message": "User was changed"})


def _flag(value: Any) -> bool:
    """A boolean, also as text or number, as forms send it. Raises BadInput when it is none."""
    word = str(value).lower()
    if value is None or word in ("", "false", "0"):
        return False
    if word in ("true", "1"):
        return True
    raise BadInput("invalidate_tokens must be true or false")


async def _proved(call: Call, user: User, password: Any) -> User:
    if not isinstance(password, str):
        raise BadInput("send current_password to change name or password")
    return await call.parts.access.verify(user.name, password, call.address())


async def identify(call: Call) -> web.Response:
    """Who the caller is, in short: what particle-cli and its libraries note beside what they count."""
    user = await call.parts.access.user(call.owner)
    return answer({"id": user.id, "email": user.name})


async def create(call: Call) -> web.Response:
    """Users are made by the operator: an open sign-up would give strangers a way in."""
    raise Forbidden("users are made by the operator of this cloud, with `wirechamber user create`")


ROUTES = (
    Route(
        method="GET", path="/v1/user", handler=show, requires=TOKEN,
        summary="Show your account", answers="{username, account_info, …}",
    ),
    Route(
        method="GET", path="/v1/user/identify", handler=identify, requires=TOKEN,
        summary="Show your id and name", answers="{id, email}",
    ),
    Route(
        method="PUT", path="/v1/user", handler=change, requires=FULL, body=UserChange,
        summary="Change your name, password or account information; invalidate_tokens ends all your tokens",
        answers="{ok, message}",
    ),
    Route(
        method="POST", path="/v1/users", handler=create, requires=ANYONE,
        summary="Sign up: closed, the operator makes users", answers="403",
    ),
)  # fmt: skip
