"""What a store keeps of users, what they log in with, and the programs that they registered."""

from __future__ import annotations

from typing import Protocol

from wirechamber.model.accounts import OAuthClient, RefreshToken, Token, User

# Each login makes a token, and each refresh two: of one user there are so many access tokens, and refresh tokens.
MAX_TOKENS = 10_000


class Users(Protocol):
    """Who may log in. Names are compared without regard to case."""

    async def add(self, user: User) -> None:
        """Raises Conflict when the name is taken."""

    async def get(self, user_id: str) -> User | None: ...
    async def by_name(self, name: str) -> User | None: ...
    async def all(self) -> list[User]: ...

    async def update(self, user: User) -> None:
        """Stores the whole record. Raises NotFound, or Conflict when the new name is taken."""

    async def remove(self, user_id: str) -> bool:
        """Removes the user with tokens, integrations and their deliveries; devices become free. At once nobody sees the
        user any more; what there is of it is cleared away in short steps before this returns, or, if it is cut short,
        by `Deliveries.sweep`."""


class Tokens(Protocol):
    """What was handed out, by digest."""

    async def add(self, token: Token, refresh: RefreshToken | None = None) -> None:
        """Stores it, and with it what it can be refreshed by. Of a user's `MAX_TOKENS` of either sort the one goes that
        would end first, of refresh tokens a used one before any other."""

    async def by_digest(self, digest: bytes) -> Token | None: ...

    async def refresh(self, digest: bytes) -> RefreshToken | None:
        """The refresh token of that digest, used or not."""

    async def rotate(self, digest: bytes, token: Token, refresh: RefreshToken) -> bool:
        """Uses a refresh token, and stores what comes instead of it, atomically; False when it is used already, or
        gone."""

    async def end_family(self, family: str) -> int:
        """Removes all that came of one login; returns how many access tokens there were."""

    async def of_user(self, user_id: str) -> list[Token]:
        """Newest first."""

    async def remove(self, digest: bytes) -> bool:
        """Removes the access or refresh token of that digest. With a refresh token, and with the newest access token of
        a family, the family ends; an older one ends alone, for its client goes on with the newer. False when there is
        none."""

    async def remove_all(self, user_id: str, *, keep: bytes | None = None) -> int:
        """Removes all of a user's but the access token of digest `keep` and what refreshes it; returns how many access
        tokens that were."""

    async def remove_expired(self, now: int) -> int: ...


class OAuthClients(Protocol):
    """Programs that users registered."""

    async def add(self, client: OAuthClient, most: int) -> bool:
        """Stores it; False when its owner has as many as there may be."""

    async def get(self, client_id: str) -> OAuthClient | None: ...

    async def of_owner(self, owner: str) -> list[OAuthClient]:
        """Oldest first."""

    async def update(self, client: OAuthClient) -> bool:
        """Stores name and scopes; False when it is gone."""

    async def remove(self, owner: str, client_id: str) -> bool:
        """Removes the owner's client with all tokens that were got through it; False when there is none."""
