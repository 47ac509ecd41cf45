"""The control plane: one process that owns the queue. It never imports ray."""
