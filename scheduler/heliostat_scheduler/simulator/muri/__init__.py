"""Muri (SIGCOMM 2022) traces: rigid jobs on 8 nodes of 8 GPUs."""
