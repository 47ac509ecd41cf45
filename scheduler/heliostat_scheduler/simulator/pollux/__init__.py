"""Pollux (OSDI 2021): elastic jobs on 16 nodes of 4 GPUs, driven by measured profiles."""
