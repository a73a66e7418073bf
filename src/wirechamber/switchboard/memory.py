"""The switchboard of one process: the gateway is in it."""
