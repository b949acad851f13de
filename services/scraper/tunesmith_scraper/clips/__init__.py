"""Sample clips: planned, composed, painted and encoded here, so that the project ships no binaries."""
