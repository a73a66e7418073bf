"""Who may do what: users, logins and tokens.

A token is a secret of 40 hex digits; only its SHA-256 is stored, so comparing is a look-up by digest and leaks nothing.
What was authorised is cached, and forgotten as soon as the store says that something of its user's changed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence

from msgspec import Struct, structs

from wirechamber.clock import SteadyClock
from wirechamber.errors import BadInput, CloudError, Conflict, Forbidden, InvalidToken, NotFound
from wirechamber.model.accounts import ALL_SCOPES, PERMISSIONS, Token, User
from wirechamber.model.ids import new_id
from wirechamber.model.times import DAY_MS
from wirechamber.services.logins import Logins
from wirechamber.services.passwords import Passwords, check_length
from wirechamber.settings import Settings
from wirechamber.shares import network_of
from wirechamber.store.base import Store

TOKEN_BYTES = 20
HINT = 6
MAX_USER_NAME = 128
MAX_CACHED = 50_000
MAX_TOKEN_SECONDS = 100 * 365 * 86_400

SCOPES = frozenset(
    (
        "devices:get",
        "devices:list",
        "devices:update",
        "devices:import",
        "devices:remove",
        "devices:release",
        "devices:ping",
        "devices.function:call",
        "devices.variable:get",
        "devices.diagnostics:get",
        "devices.diagnostics:update",
        "events:get",
        "events:send",
        "integrations:create",
        "integrations:get",
        "integrations:list",
        "integrations:remove",
        "integrations:test",
        "integrations:update",
    )
)


class InvalidGrant(CloudError):
    """User name or password is wrong."""

    status = 400
    code = "invalid_grant"


class Grant(Struct, frozen=True):
    """What a caller may do, from the token it showed."""

    user: str
    name: str
    scopes: frozenset[str]
    digest: bytes
    client: str
    expires_at: int | None

    def allows(self, scope: str | None) -> bool:
        """Whether the token holds a scope; None is asked by what every token may do."""
        return scope is None or holds(self.scopes, scope)


class Issued(Struct, frozen=True):
    """A new token, the only time its secret is known; and the secret of what it can be refreshed by, if it can."""

    secret: str
    token: Token
    refresh: str | None = None


class Access:
    """Users, logins and tokens."""

    def __init__(self, store: Store, clock: SteadyClock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._passwords = Passwords()
        self._cache: dict[str, Grant] = {}
        self._cached_of: dict[str, set[str]] = {}
        self._revision = store.revision()
        self._logins = Logins(settings.login_failures, settings.login_block, clock.monotonic)

    # --- users ---

    async def create_user(self, name: str, password: str) -> User:
        """Makes a user.

        Raises:
            BadInput: Name or password can't be used.
            Conflict: The name is taken.
        """
        _check_user_name(name)
        now = self._clock.now()
        user = User(id=new_id(now), name=name, password=await self._passwords.hash(password), created_at=now)
        await self._store.users.add(user)
        return user

    async def ensure_user(self, name: str, password: str) -> User:
        """The user of that name, made if there is none."""
        found = await self._store.users.by_name(name)
        return found or await self.create_user(name, password)

    async def user(self, user_id: str) -> User:
        """The user of that id."""
        found = await self._store.users.get(user_id)
        if found is None:
            raise NotFound("there is no such user")
        return found

    async def named(self, name: str) -> User:
        """The user of that name.

        Raises:
            NotFound: There is none.
        """
        found = await self._store.users.by_name(name)
        if found is None:
            raise NotFound(f"there is no user named {name}")
        return found

    async def grant(self, user: User, permission: str) -> User:
        """Grants what only the operator may. Raises BadInput for what there is not."""
        return await self._permit(user, set(user.permissions) | {_permission(permission)})

    async def withdraw(self, user: User, permission: str) -> User:
        """Takes it back. Raises BadInput for what there is not."""
        return await self._permit(user, set(user.permissions) - {_permission(permission)})

    async def _permit(self, user: User, permissions: set[str]) -> User:
        changed = structs.replace(user, permissions=tuple(sorted(permissions)))
        await self._store.users.update(changed)
        return changed

    @staticmethod
    def check_password(password: str) -> None:
        """Raises BadInput when it can't be a user's password."""
        check_length(password)

    async def set_password(self, user: User, password: str, *, keep: bytes | None = None, address: str = "") -> User:
        """Changes the password and revokes every token but the one of digest `keep`.

        Args:
            address: Where the request comes from, if it is one.
        """
        changed = structs.replace(user, password=await self._passwords.hash(password, network_of(address)))
        await self._store.users.update(changed)
        await self._store.tokens.remove_all(user.id, keep=keep)
        return changed

    async def rename(self, user: User, name: str) -> User:
        """Changes the name that the user logs in with."""
        _check_user_name(name)
        changed = structs.replace(user, name=name)
        await self._store.users.update(changed)
        return changed

    async def set_account_info(self, user: User, info: dict[str, object]) -> User:
        """Replaces what the user says about itself."""
        changed = structs.replace(user, account_info=info)
        await self._store.users.update(changed)
        return changed

    async def verify(self, name: str, password: str, address: str) -> User:
        """The user, if the password is right.

        Raises:
            InvalidGrant: It is not, or there is no such user: the two are never told apart.
            TooMany: Too many failures from this network or at this account, or too many log in at once.
        """
        network = network_of(address)
        account = name.casefold()[:MAX_USER_NAME]
        with self._logins.attempt(network, account) as attempt:
            user = await self._store.users.by_name(name) if len(name) <= MAX_USER_NAME else None
            stored = None if user is None else user.password
            if not await self._passwords.verify(stored, password, network, known=attempt.known) or user is None:
                attempt.failed = True
                raise InvalidGrant("User credentials are invalid")
            attempt.right = True
            return user

    # --- tokens ---

    async def issue(
        self, user: User, *, client: str, scopes: Sequence[str] = (ALL_SCOPES,), expires_in: int | None = None
    ) -> Issued:
        """Makes a token.

        Args:
            expires_in: Seconds; 0 for never, None for the default life.

        Raises:
            BadInput: A scope is unknown, or the life is negative.
        """
        secret, token = self.make(user.id, client=client, scopes=scopes, expires_in=expires_in)
        await self._store.tokens.add(token)
        return Issued(secret, token)

    def make(
        self, user: str, *, client: str, scopes: Sequence[str], expires_in: int | None, family: str | None = None
    ) -> tuple[str, Token]:
        """A token that is not stored yet, with its secret; the rest as `issue`."""
        check_scopes(scopes)
        now = self._clock.now()
        life = self._settings.token_days * DAY_MS if expires_in is None else expires_in * 1000
        if not 0 <= life <= MAX_TOKEN_SECONDS * 1000:
            raise BadInput("expires_in must be a number of seconds, or 0 for never")
        secret = secrets.token_hex(TOKEN_BYTES)
        token = Token(
            digest=digest_of(secret),
            user=user,
            hint=secret[:HINT],
            client=client,
            scopes=tuple(scopes),
            created_at=now,
            expires_at=now + life if life else None,
            family=family,
        )
        return secret, token

    async def tokens_of(self, user_id: str) -> list[Token]:
        """The user's tokens, newest first."""
        return await self._store.tokens.of_user(user_id)

    async def revoke(self, secret: str) -> bool:
        """Ends an access or refresh token and what comes of it; holding it is the permission. False when it is none."""
        return await self._store.tokens.remove(digest_of(secret))

    async def revoke_all(self, user_id: str) -> int:
        """Ends all of a user's tokens."""
        return await self._store.tokens.remove_all(user_id)

    def cached(self, secret: str) -> Grant | None:
        """What a token was found to allow before, if nothing has changed since; no waiting."""
        self._follow_changes()
        grant = self._cache.get(secret)
        if grant is not None and self._is_over(grant.expires_at):
            self._drop(secret)
            return None
        return grant

    async def authorise(self, secret: str) -> Grant:
        """What a token allows.

        Raises:
            InvalidToken: It is unknown, revoked or expired.
        """
        grant = self.cached(secret)
        if grant is not None:
            return grant
        revision = self._revision
        token = await self._store.tokens.by_digest(digest_of(secret))
        if token is None:
            raise InvalidToken("The access token provided is invalid.")
        if self._is_over(token.expires_at):
            raise InvalidToken("The access token provided has expired.")
        user = await self._store.users.get(token.user)
        if user is None:
            raise InvalidToken("The access token provided is invalid.")
        grant = Grant(user.id, user.name, frozenset(token.scopes), token.digest, token.client, token.expires_at)
        # What changed while it was read may be newer than what was read.
        if grant.user not in self._store.accounts_changed(revision):
            while len(self._cache) >= MAX_CACHED:
                self._drop(next(iter(self._cache)))
            self._cache[secret] = grant
            self._cached_of.setdefault(grant.user, set()).add(secret)
        return grant

    def _is_over(self, expires_at: int | None) -> bool:
        # A clock that was just set forward throws nobody out.
        return expires_at is not None and expires_at <= min(self._clock.now(), self._clock.steady())

    def _follow_changes(self) -> None:
        revision = self._store.revision()
        if revision != self._revision:
            for user in self._store.accounts_changed(self._revision):
                for secret in self._cached_of.pop(user, ()):
                    del self._cache[secret]
            self._revision = revision

    def _drop(self, secret: str) -> None:
        grant = self._cache.pop(secret)
        secrets = self._cached_of[grant.user]
        secrets.remove(secret)
        if not secrets:
            del self._cached_of[grant.user]


def require(grant: Grant, scope: str | None) -> None:
    """Raises Forbidden when the token does not hold the scope."""
    if not grant.allows(scope):
        raise Forbidden(f"this needs a token with the scope {scope}", scope=scope)


def digest_of(secret: str) -> bytes:
    """What is stored of a token. A plain hash is enough: the secret is 160 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def holds(scopes: Collection[str], scope: str) -> bool:
    """Whether scopes allow what another one does."""
    return ALL_SCOPES in scopes or scope in scopes or f"{scope.partition(':')[0]}:*" in scopes


def check_scopes(scopes: Sequence[str]) -> None:
    """Raises BadInput when there is none of that name."""
    for scope in scopes:
        if scope != ALL_SCOPES and scope not in SCOPES and not _is_family(scope):
            raise BadInput(f"there is no scope {scope[:64]!r}; known are {', '.join(sorted(SCOPES))}")


def _is_family(scope: str) -> bool:
    return scope.endswith(":*") and any(known.startswith(scope[:-1]) for known in SCOPES)


def _permission(name: str) -> str:
    if name not in PERMISSIONS:
        raise BadInput(f"there is no permission {name[:40]!r}; there are: {', '.join(PERMISSIONS)}")
    return name


def _check_user_name(name: str) -> None:
    if not name or len(name) > MAX_USER_NAME or any(character.isspace() or ord(character) < 32 for character in name):
        raise BadInput(f"a user's name has 1 to {MAX_USER_NAME} characters and no blanks")


__all__ = ["SCOPES", "Access", "Conflict", "Grant", "InvalidGrant", "Issued", "digest_of", "require"]
