"""The event log: every accepted event, durably, in the order it was accepted."""
