"""What `make bench` runs: each implementation timed next to a plain reference, in turn, in one process."""
