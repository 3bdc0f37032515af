"""`python -m benchmarks gpu`: all that is worth measuring on a GPU, by one command."""

from benchmarks.gpu.run import main

__all__ = ["main"]
