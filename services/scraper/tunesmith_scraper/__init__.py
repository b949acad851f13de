"""Tunesmith's scraper service."""
