"""What `make bench` runs: each part measured beside a plain reference, in turn, in one process."""
