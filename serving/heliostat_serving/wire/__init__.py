"""The protocols of an endpoint, as functions from bytes to tensors and back. No Ray, no sockets."""
