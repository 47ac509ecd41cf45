"""A version's model inside a replica: verified, loaded, tried once, called in batches where that pays. No Ray."""
