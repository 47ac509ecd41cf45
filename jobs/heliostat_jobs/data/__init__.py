"""Ray Data inside a lease: its GPU stages are ordinary tasks and actors, so only their number is ours to say."""
