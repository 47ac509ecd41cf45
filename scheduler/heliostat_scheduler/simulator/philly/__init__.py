"""Philly (ATC 2019): eleven tenants on 91 nodes of 8 GPUs."""
