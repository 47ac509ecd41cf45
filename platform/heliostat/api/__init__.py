"""/api/v1: the platform's own HTTP interface."""
