"""Wirechamber: a device cloud that you run yourself, and its heart is integrations."""

__version__ = "0.1.0"
