"""`make env`: print .env.example with a fresh random value wherever one is missing."""

import re
import secrets
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / ".env.example"

if __name__ == "__main__":
    print(re.sub(r"(?m)^(\w+)=$", lambda line: f"{line[1]}={secrets.token_hex(24)}", EXAMPLE.read_text()), end="")
