"""Keeps access tokens."""
