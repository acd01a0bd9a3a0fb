"""A grid of runs from one file, on this machine or a Ray cluster."""
