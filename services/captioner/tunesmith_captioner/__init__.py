"""Tunesmith's captioner service."""
