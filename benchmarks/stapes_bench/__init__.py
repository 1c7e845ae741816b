"""Measurements of stapes, side by side with what it replaces. Nothing in stapes or its exporter imports this."""
