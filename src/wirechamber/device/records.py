"""A session's records: their numbers are on the disk before they are used, so that no later process uses them again."""

from __future__ import annotations

from wirechamber.device.session_file import StoredSession
from wirechamber.protocols.dtls import APPLICATION_DATA, Session

# How many record numbers are reserved at a time: one write to the disk for as many messages.
RESERVED = 64


class Records:
    """The session that there is, if any, and which of its numbers are reserved.

    Attributes:
        session: None while there is none.
        unkept: The disk must know what has changed before anything that was protected leaves.
    """

    def __init__(self, stored: StoredSession | None) -> None:
        self.session: Session | None = None
        self.unkept = False
        self._reserved = 0
        if stored is not None:
            # Nothing is reserved yet: the first record makes that up.
            self._reserved = stored.next_sequence
            self.session = Session(stored.state, stored.next_sequence, stored.next_sequence, stored.top)

    def adopt(self, session: Session) -> None:
        """A handshake has made a session, in place of what there was."""
        self.session = session
        self._reserved = 0
        session.send_limit = session.next_sequence
        self.unkept = True

    def drop(self) -> None:
        """The session is no more."""
        self.session = None
        self.unkept = True

    def give_back(self) -> None:
        """Gives unused numbers back: nothing is sent after this."""
        if self.session is not None:
            self._reserved = self.session.send_limit = self.session.next_sequence

    def protect(self, message: bytes) -> bytes:
        """One record with a message."""
        session = self.session
        assert session is not None
        if session.next_sequence >= session.send_limit:
            self._reserved = session.send_limit = session.next_sequence + RESERVED
            self.unkept = True
        return session.protect(APPLICATION_DATA, message)

    @property
    def message_id(self) -> int:
        """A message id: from the next record's number, so that it does not repeat in the next process either."""
        return 0 if self.session is None else self.session.next_sequence & 0xFFFF

    @property
    def following(self) -> int:
        """The first number that certainly was not used."""
        assert self.session is not None
        # Numbers beyond the reserved ones come from the handshake alone: its Finished message.
        return max(self._reserved, self.session.next_sequence)
