"""Delivery: what runs in every Python process of a job before the user's own code."""
