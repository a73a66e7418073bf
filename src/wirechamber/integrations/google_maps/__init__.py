"""Google Maps: finds a device by the Wi-Fi networks or cell towers that it sees."""

from wirechamber.integrations.google_maps.kind import GoogleMaps

__all__ = ["GoogleMaps"]
