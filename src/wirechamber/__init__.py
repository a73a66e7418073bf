"""Wirechamber: a device cloud that you run yourself, and its heart is integrations."""

__version__ = "0.1.0"
# What answers call their server, and by what the command line knows one of ours.
SERVER_NAME = "Wirechamber"
