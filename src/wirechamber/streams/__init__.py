"""Live event streams (Server-Sent Events): catch up from the log, then follow its tail."""
