"""`python -m mlkd`, as torchrun calls it: the command `mlkd`."""

from mlkd.cli import app

if __name__ == "__main__":
    app()
