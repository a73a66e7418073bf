"""A delivery in memory: waiting in its lane, or being attempted."""

from __future__ import annotations

from wirechamber.delivery.index import Trigger
from wirechamber.delivery.watermark import Mark
from wirechamber.eventlog.base import Cursor
from wirechamber.integrations.base import DeviceInfo
from wirechamber.model.deliveries import Delivery, DeliveryState
from wirechamber.model.events import Event
from wirechamber.model.ids import derived_id


class Job:
    """One event for one integration.

    Attributes:
        delivery: Id of the delivery, derived from event and integration.
        mark: Holds the dispatch cursor back until this job is settled; None once a row of its own keeps it.
        stored: A row of its own exists.
        attempts: How many have been made.
        error_told: The device got its hook-error.
        created_at, deadline_at: In steady time.
        number_started_at: When the attempt under way began, wall time; `number_began` on the monotonic clock.
        fault: What its kind did wrong when it was asked for the target.
        device: What its plan was told of the device, if it asked.
    """

    __slots__ = (
        "attempts", "created_at", "cursor", "deadline_at", "delivery", "device", "error_told", "event", "fault",
        "integration", "lane", "mark", "number_began", "number_started_at", "owner", "stored", "trigger",
    )  # fmt: skip

    def __init__(
        self, trigger: Trigger, event: Event, cursor: Cursor, mark: Mark | None, created_at: int, deadline_at: int
    ) -> None:
        self.trigger = trigger
        self.integration = trigger.record.id
        self.owner = trigger.record.owner
        self.event = event
        self.cursor = cursor
        self.mark = mark
        self.delivery = delivery_id(event, self.integration)
        self.attempts = 0
        self.created_at = created_at
        self.deadline_at = deadline_at
        self.error_told = False
        self.fault: str | None = None
        self.device: DeviceInfo | None = None
        self.stored = False
        self.lane = ("", "", "")
        self.number_started_at = 0
        self.number_began = 0.0

    @classmethod
    def of_row(cls, row: Delivery, trigger: Trigger) -> Job:
        """A delivery that a row kept."""
        job = cls(trigger, row.event, Cursor(row.cursor), None, row.created_at, row.deadline_at)
        job.delivery = row.id
        job.attempts = row.attempts
        job.error_told = row.error_told
        job.stored = True
        return job

    def row(self, state: DeliveryState, due_at: int, why: str | None = None) -> Delivery:
        """What keeps this delivery beyond this process."""
        return Delivery(
            id=self.delivery,
            integration=self.integration,
            owner=self.owner,
            event=self.event,
            cursor=self.cursor,
            state=state,
            due_at=due_at,
            attempts=self.attempts,
            deadline_at=self.deadline_at,
            error_told=self.error_told,
            created_at=self.created_at,
            why=why,
        )


def delivery_id(event: Event, integration: str) -> str:
    """The id of the delivery of an event to an integration: the same each time."""
    return derived_id(event.id, integration)
