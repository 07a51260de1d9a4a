"""Decides whether something may be signed."""
