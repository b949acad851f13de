"""What signal analysis can tell of sound: tempo, key, loudness, texture."""
