"""DTLS 1.2 (RFC 6347) without sockets: raw public keys, pre-shared keys, connection IDs."""
