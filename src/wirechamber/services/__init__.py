"""Use cases: what may be done with the cloud, whoever asks."""
