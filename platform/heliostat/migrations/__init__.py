"""Schema history. Each file in `versions` moves the database one revision up; `heliostat.store.schema` runs them."""
