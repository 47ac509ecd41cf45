"""Ray's Jobs REST API on our own port: unmodified Ray clients queue their jobs here."""
