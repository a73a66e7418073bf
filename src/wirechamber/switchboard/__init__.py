"""Asks whichever process holds a device: functions, variables, ping, signal; and who is online."""
