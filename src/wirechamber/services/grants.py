"""OAuth: what a login may be continued by, and programs that log in as whoever registered them (RFC 6749).

Refresh tokens rotate (RFC 9700, section 4.14.2): each is good for one access token and the next refresh token. One that
is shown again was copied; nobody can tell by whom, so all that came of that login ends.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Sequence

import structlog
from msgspec import structs

from wirechamber.clock import SteadyClock
from wirechamber.errors import BadInput, CloudError, NotFound
from wirechamber.model.accounts import ALL_SCOPES, CLIENT_TYPES, OAuthClient, RefreshToken, Token, User
from wirechamber.model.ids import new_id
from wirechamber.model.times import DAY_MS
from wirechamber.observe.logs import Seldom
from wirechamber.services.access import TOKEN_BYTES, Access, InvalidGrant, Issued, check_scopes, digest_of, holds
from wirechamber.store.base import Store

_log = structlog.get_logger("wirechamber.api")
_seldom = Seldom(_log)

# A refresh token outlives its access token by as much (cloud-api.md, section 2).
REFRESH_MS = 14 * DAY_MS
MAX_CLIENTS = 100
MAX_CLIENT_NAME = 128
MAX_REDIRECT_URI = 2_048
CLIENT_ID_BYTES = 12
# How particle-api-js's documentation writes that a client may do everything.
_EVERYTHING = frozenset((ALL_SCOPES, "*:*"))


class InvalidClient(CloudError):
    """The client is registered here, and the secret is not its (RFC 6749, section 5.2)."""

    status = 400
    code = "invalid_client"


class InvalidScope(CloudError):
    """More is asked for than may be had (RFC 6749, section 5.2)."""

    status = 400
    code = "invalid_scope"


class Grants:
    """Logins that go on, and registered clients."""

    def __init__(self, store: Store, access: Access, clock: SteadyClock) -> None:
        self._store = store
        self._access = access
        self._clock = clock

    # --- tokens ---

    async def log_in(
        self,
        user: User,
        client: str,
        scopes: Sequence[str] | None,
        expires_in: int | None,
        registered: OAuthClient | None,
    ) -> Issued:
        """A token for somebody who showed a password, and what it can be refreshed by.

        Args:
            scopes: Asked for; None for all that may be had.
            expires_in: Seconds; 0 for never, None for the default life.
            registered: The client, if it is one that a user registered.

        Raises:
            BadInput, InvalidScope: The life, or the scopes, can't be had.
            InvalidGrant: The password was changed, or the client removed, in the meantime.
        """
        given = _granted(scopes, (ALL_SCOPES,) if registered is None else registered.scopes)
        family = new_id(self._clock.now())
        secret, token = self._access.make(user.id, client=client, scopes=given, expires_in=expires_in, family=family)
        again, refresh = self._refresh_token(token, _life(token))
        await self._store.tokens.add(token, refresh)
        await self._still_good(user, registered, family)
        return Issued(secret, token, again)

    async def _still_good(self, user: User, registered: OAuthClient | None, family: str) -> None:
        """Looking at a password takes its time, in which it may have been changed, or the client removed: what ends all
        tokens then could not see this one.

        Raises:
            InvalidGrant: It was.
        """
        now = await self._store.users.get(user.id)
        gone = registered is not None and await self._store.clients.get(registered.id) is None
        if gone or now is None or now.password != user.password:
            await self._store.tokens.end_family(family)
            raise InvalidGrant("User credentials are invalid")

    async def refresh(
        self, secret: str, client: str | None, client_secret: str, scopes: Sequence[str] | None
    ) -> Issued:
        """What a refresh token is good for, once.

        Args:
            client: Who asks, if it says so: the one that it was given to.

        Raises:
            InvalidGrant: It is unknown, used, over, or another client's.
            InvalidClient, InvalidScope: The client's secret is wrong; more is asked for than there was.
        """
        digest = digest_of(secret)
        found = await self._store.tokens.refresh(digest)
        if found is None:
            raise InvalidGrant("the refresh token is unknown or was revoked; log in again")
        registered = await self.client(found.client if client is None else client, client_secret)
        if client not in (None, found.client):
            raise InvalidGrant("the refresh token was given to another client")
        if found.used_at is not None:
            raise await self._copied(found)
        if found.expires_at <= min(self._clock.now(), self._clock.steady()):
            raise InvalidGrant("the refresh token has expired; log in again")
        most = found.scopes if registered is None else _narrowed(found.scopes, registered.scopes)
        fresh, token = self._access.make(
            found.user,
            client=found.client,
            scopes=_granted(scopes, most),
            expires_in=found.life // 1000,
            family=found.family,
        )
        # Asking for less once is not asking for less from then on (RFC 6749, section 6).
        again, refresh = self._refresh_token(structs.replace(token, scopes=found.scopes), found.life)
        if not await self._store.tokens.rotate(digest, token, refresh):
            # Two at once.
            raise await self._copied(found)
        return Issued(fresh, token, again)

    async def _copied(self, refresh: RefreshToken) -> InvalidGrant:
        ended = await self._store.tokens.end_family(refresh.family)
        _seldom.warning(
            "refresh_token_reused",
            about=refresh.family,
            user=refresh.user,
            client=refresh.client,
            access_tokens=ended,
            why="a refresh token was shown again, so it was copied: all that came of that login has ended",
        )
        return InvalidGrant("the refresh token was used before: all that came of that login has ended, log in again")

    async def by_client(self, client: str, secret: str, scopes: Sequence[str] | None, expires_in: int | None) -> Issued:
        """A token for whoever registered the client (RFC 6749, section 4.4). There is nothing to refresh it with.

        Raises:
            InvalidClient: No such client is registered, or the secret is wrong.
            InvalidScope: More is asked for than the client may have.
        """
        registered = await self.client(client, secret)
        if registered is None:
            raise InvalidClient("no such client is registered here; `wirechamber client create` registers one")
        made, token = self._access.make(
            registered.owner, client=client, scopes=_granted(scopes, registered.scopes), expires_in=expires_in
        )
        await self._store.tokens.add(token)
        return Issued(made, token)

    def _refresh_token(self, token: Token, life: int) -> tuple[str, RefreshToken]:
        assert token.family is not None
        secret = secrets.token_hex(TOKEN_BYTES)
        return secret, RefreshToken(
            digest=digest_of(secret),
            family=token.family,
            user=token.user,
            client=token.client,
            scopes=token.scopes,
            life=life,
            created_at=token.created_at,
            expires_at=token.created_at + life + REFRESH_MS,
        )

    # --- clients ---

    async def client(self, client: str, secret: str) -> OAuthClient | None:
        """The registered client that asks; None for one of any other name, which needs no registration.

        Raises:
            InvalidClient: It is registered, and the secret is not its.
        """
        if len(client) != 2 * CLIENT_ID_BYTES:
            return None
        found = await self._store.clients.get(client)
        if found is not None and not hmac.compare_digest(found.secret, digest_of(secret)):
            raise InvalidClient("the client's secret is wrong")
        return found

    async def clients_of(self, owner: str) -> list[OAuthClient]:
        """The owner's clients, oldest first."""
        return await self._store.clients.of_owner(owner)

    async def register(
        self, owner: str, name: object, kind: object, redirect_uri: object, scopes: object
    ) -> tuple[OAuthClient, str]:
        """Registers a client; returns it with its secret, which is told this once.

        Args:
            kind: One of `CLIENT_TYPES`.
            redirect_uri: For a client of type web.
            scopes: What its tokens may do at most, as a text or a list; None for everything.

        Raises:
            BadInput: Something can't be used, or the owner has as many as are allowed.
        """
        if kind not in CLIENT_TYPES:
            raise BadInput(f"type must be one of {', '.join(CLIENT_TYPES)}")
        secret = secrets.token_hex(TOKEN_BYTES)
        client = OAuthClient(
            id=secrets.token_hex(CLIENT_ID_BYTES),
            owner=owner,
            name=_name(name),
            type=str(kind),
            redirect_uri=_redirect_uri(redirect_uri, str(kind)),
            scopes=_scopes(scopes),
            secret=digest_of(secret),
            created_at=self._clock.now(),
        )
        if not await self._store.clients.add(client, MAX_CLIENTS):
            raise BadInput(f"you have {MAX_CLIENTS} OAuth clients, as many as are allowed; delete one first")
        return client, secret

    async def change(self, owner: str, client_id: str, name: object, scopes: object) -> OAuthClient:
        """Changes name or scopes; what is None stays. Tokens that are out keep what they may.

        Raises:
            NotFound: There is none, or it is another's.
            BadInput: Something can't be used.
        """
        client = await self._store.clients.get(client_id)
        if client is None or client.owner != owner:
            raise _no_client()
        if name is not None:
            client = structs.replace(client, name=_name(name))
        if scopes is not None:
            client = structs.replace(client, scopes=_scopes(scopes))
        if not await self._store.clients.update(client):
            raise _no_client()
        return client

    async def unregister(self, owner: str, client_id: str) -> None:
        """Removes a client; all tokens that were got through it end.

        Raises:
            NotFound: There is none, or it is another's.
        """
        if not await self._store.clients.remove(owner, client_id):
            raise _no_client()


def _life(token: Token) -> int:
    return 0 if token.expires_at is None else token.expires_at - token.created_at


def _granted(asked: Sequence[str] | None, most: Sequence[str]) -> tuple[str, ...]:
    """What is given of what is asked for.

    Raises:
        InvalidScope: A scope is unknown, or more than there may be.
    """
    if asked is None:
        return tuple(most)
    asked = _plain(asked)
    try:
        check_scopes(asked)
    except BadInput as problem:
        raise InvalidScope(problem.description) from None
    beyond = [scope for scope in asked if not holds(most, scope)]
    if beyond:
        raise InvalidScope(f"this client may not have the scope {' '.join(beyond)}")
    return tuple(asked)


def _narrowed(scopes: Iterable[str], most: Sequence[str]) -> tuple[str, ...]:
    """What is left of scopes when there may be no others than `most`."""
    had = tuple(scopes)
    kept = [scope for scope in had if holds(most, scope)]
    return tuple(dict.fromkeys((*kept, *(scope for scope in most if holds(had, scope)))))


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_CLIENT_NAME or not name.isprintable():
        raise BadInput(f"name must be a text of 1 to {MAX_CLIENT_NAME} printable characters")
    return name


def _redirect_uri(uri: object, kind: str) -> str | None:
    if uri in (None, "") and kind != "web":
        return None
    good = isinstance(uri, str) and len(uri) <= MAX_REDIRECT_URI and uri.isascii() and uri.isprintable()
    if not good or not str(uri).lower().startswith(("https://", "http://")) or "#" in str(uri):
        raise BadInput(f"redirect_uri must be an http or https URL of at most {MAX_REDIRECT_URI} characters, without #")
    return str(uri)


def _scopes(scopes: object) -> tuple[str, ...]:
    if scopes is None or scopes == "" or scopes == []:
        return (ALL_SCOPES,)
    listed = scopes.split() if isinstance(scopes, str) else scopes
    if not isinstance(listed, list | tuple) or not all(isinstance(scope, str) for scope in listed):
        raise BadInput("scope must be a text, scopes with blanks between them")
    found = _plain(listed)
    check_scopes(found)
    return found


def _plain(scopes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ALL_SCOPES if scope in _EVERYTHING else scope for scope in scopes))


def _no_client() -> NotFound:
    return NotFound("there is no such OAuth client of yours", error="Client not found")
