"""One small file per command or family of commands; imported only when invoked."""
