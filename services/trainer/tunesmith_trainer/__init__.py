"""Tunesmith's trainer service."""
