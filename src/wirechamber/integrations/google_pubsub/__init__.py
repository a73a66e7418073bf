"""Google Cloud Pub/Sub: each event as a message of a topic."""

from wirechamber.integrations.google_pubsub.kind import GoogleCloudPubSub

__all__ = ["GoogleCloudPubSub"]
