"""Ray Tune inside a lease: trials in slots, orders obeyed by pausing trials, a search that its next attempt resumes."""
