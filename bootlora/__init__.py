"""A client for Bootlora: typed Python, and the `bootlora` command line. It uses the public HTTP API only."""

from bootlora.client import Bootlora
from bootlora.http import ApiError

__all__ = ["ApiError", "Bootlora"]
