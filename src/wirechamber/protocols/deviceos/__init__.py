"""What Device OS and its cloud say to each other in CoAP (device-protocol.md, sections 7, 8 and 10)."""
