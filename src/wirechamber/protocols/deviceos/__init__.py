"""The messages of Device OS, in CoAP (device-protocol.md, sections 6 to 12)."""
