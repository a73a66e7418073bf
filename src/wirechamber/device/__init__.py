"""A device in Python: the same protocol cores as the gateway, in the client role."""
