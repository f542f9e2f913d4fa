"""A client for Bootlora: typed Python, and the `bootlora` command line. It speaks public HTTP and nothing else."""

from bootlora.client import Bootlora
from bootlora.http import ApiError

__all__ = ["ApiError", "Bootlora"]
