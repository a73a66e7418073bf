"""The store: users, tokens, devices, integrations, deliveries and their attempts."""
