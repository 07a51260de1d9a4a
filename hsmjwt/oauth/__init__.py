"""Spends assertions at authorization servers."""
