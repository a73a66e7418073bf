"""Device OS's older link over TCP: handshake and framing (device-protocol.md, section 5)."""
