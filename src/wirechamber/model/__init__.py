"""Frozen records and the pure rules about them. Imports nothing but errors and the clock."""
