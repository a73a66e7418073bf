"""The shells around the device protocols: sockets, sessions, and what a message of a device sets in motion."""
