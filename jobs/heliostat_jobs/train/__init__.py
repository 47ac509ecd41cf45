"""Ray Train inside a lease: workers in slots, orders obeyed by epoch. Imported only in processes that use ray.train."""
