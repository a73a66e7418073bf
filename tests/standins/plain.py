"""A target for webhooks that wants a token."""

from __future__ import annotations

from tests.standins.server import Asked, Said, Standin


class Plain(Standin):
    """Takes what comes with its token."""

    token = "Bearer plain-target-token"

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []

    def answer(self, asked: Asked) -> Said:
        if asked.header("Authorization") != self.token:
            return Said(401, b"who are you?")
        self.taken.append(asked.body.decode())
        return Said(200, b"fine")
