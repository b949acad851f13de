"""Tunesmith's generator service."""
