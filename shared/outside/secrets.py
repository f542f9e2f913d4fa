"""API keys and webhook secrets: their format, and the form in which they are stored."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import zlib

from cryptography.fernet import Fernet, InvalidToken

from shared.errors import Unavailable

KEY_PREFIX = "btl"
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(BASE62[digit])
    return "".join(reversed(digits))


def new_api_key() -> str:
    """`btl_<8 public>_<43 secret>_<6 checksum>`. The checksum finds typing errors without the database."""
    body = f"{KEY_PREFIX}_{_base62(secrets.randbits(47), 8)}_{_base62(secrets.randbits(256), 43)}"
    return f"{body}_{_base62(zlib.crc32(body.encode()), 6)}"


def api_key_prefix(key: str) -> str | None:
    """The public part, by which a key is found. None if the text is not an API key."""
    body, _, checksum = key.rpartition("_")
    parts = body.split("_")
    if len(parts) != 3 or parts[0] != KEY_PREFIX or _base62(zlib.crc32(body.encode()), 6) != checksum:
        return None
    return f"{parts[0]}_{parts[1]}"


def digest(secret_key: str, text: str) -> str:
    """HMAC-SHA-256 under the installation's key. A slow hash is not needed for 256 random bits."""
    return hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()


def new_webhook_secret() -> str:
    """`whsec_` and 32 random bytes in base64 (Standard Webhooks 1.0.0)."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Vault:
    """Encrypts secrets that must be read again, with a key derived from the installation's."""

    def __init__(self, secret_key: str):
        key = hmac.new(secret_key.encode(), b"bootlora webhook secrets", hashlib.sha256).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except (InvalidToken, UnicodeEncodeError):
            raise Unavailable(
                "a stored secret was encrypted with another BOOTLORA_SECRET_KEY; set the former one"
            ) from None
