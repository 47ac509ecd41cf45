"""Load on the engine itself: latency of one decide, and the public generators of Kueue and KAI."""
