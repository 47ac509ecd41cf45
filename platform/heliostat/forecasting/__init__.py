"""Questions about the future and the past: estimated starts, what-if, replay, timeline, and the chain of the log."""
