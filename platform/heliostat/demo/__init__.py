"""`helio demo`: two logical GPUs, two teams, one preemption and a resume, in about three minutes and a folder of its own."""
