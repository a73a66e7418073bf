"""CoAP: messages, exchanges, blocks, observing (RFC 7252, 7641, 7959, 7967)."""
