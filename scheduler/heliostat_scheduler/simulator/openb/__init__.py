"""openb (FGD, ATC 2023): placement of fractional and whole GPUs on 1,213 nodes."""
