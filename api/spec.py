"""`python -m api.spec > openapi.yaml`: the API's document as a file."""

from __future__ import annotations

import sys

from api.app import create_app
from api.blank import blank_runtime
from api.document import as_yaml

if __name__ == "__main__":
    sys.stdout.write(as_yaml(create_app(blank_runtime())))
