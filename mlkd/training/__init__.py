"""The training loop and what it writes: configuration, batches, devices, runs."""
