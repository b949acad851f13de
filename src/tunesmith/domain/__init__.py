"""The words of Tunesmith as frozen values; only the standard library is imported here."""
