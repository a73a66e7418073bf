"""The REST API: `/v1`, OAuth, event streams, OpenAPI."""
