"""`helio demo`: four logical GPUs, two teams, a preemption with resume, a live shrink and growth; minutes, in a folder of its own."""
