"""Media files -> clips -> samples, in a child process with limits."""
