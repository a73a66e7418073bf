"""Azure IoT Hub: each event as a device-to-cloud message of its device."""

from wirechamber.integrations.azure_iot_hub.kind import AzureIotHub

__all__ = ["AzureIotHub"]
