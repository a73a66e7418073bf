"""CoAP (RFC 7252) without sockets: messages, exchanges, blockwise transfers (RFC 7959)."""
