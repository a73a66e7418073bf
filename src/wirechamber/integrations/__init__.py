"""Kinds of integration: one folder each, over the kit in `base`."""
