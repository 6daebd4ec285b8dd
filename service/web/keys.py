"""API keys: whose a key is, and what it may be used for. Compared by digest, in constant time."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.settings import ServiceSettings
from service.web.errors import MissingApiKey, WrongApiKey
from service.web.quotas import Quota


@dataclass(frozen=True, slots=True)
class Key:
    """One key, or everybody where no key is asked for."""

    name: str | None = None
    """For logs."""
    digest: bytes = b""
    """SHA-256 of the key."""
    models: frozenset[str] | None = None
    """Served ids it may use, and know of; None: all."""
    quota: Quota = field(default_factory=Quota)

    def may_use(self, model_id: str) -> bool:
        """Say whether a model is for this key."""
        return self.models is None or model_id in self.models


class Keys:
    """All of them."""

    def __init__(self, keys: Sequence[Key], everybody: Key) -> None:
        self._keys = keys
        self._everybody = everybody

    def find(self, sent: str) -> Key:
        """Return the key that a client sent.

        Raises:
            MissingApiKey: it sent none, and one is asked for.
            WrongApiKey: there is no such key.
        """
        if not self._keys:
            return self._everybody
        if not sent:
            raise MissingApiKey
        matches = [key for key in self._keys if hmac.compare_digest(_digest(sent), key.digest)]
        if not matches:
            raise WrongApiKey
        return matches[0]

    def knows(self, sent: str) -> bool:
        """Whether it is one of the keys."""
        return any(hmac.compare_digest(_digest(sent), key.digest) for key in self._keys)


def _digest(sent: str) -> bytes:
    return hashlib.sha256(sent.encode("latin-1")).digest()


def make_keys(settings: ServiceSettings) -> Keys:
    """Build the keys that the settings name, each with limits of its own."""
    common = Quota(settings.requests_per_minute, settings.tokens_per_minute)
    keys = []
    for name, digest in settings.api_key_hashes.items():
        limits = settings.limits_of(name)
        quota = Quota(limits.requests_per_minute, limits.tokens_per_minute)
        keys.append(Key(name, digest, None if limits.models is None else frozenset(limits.models), quota))
    return Keys(keys, Key(quota=common))


def make_admin_keys(settings: ServiceSettings) -> Keys | None:
    """Build the keys of the admin routes; None where there are no such routes."""
    keys = [Key(name, digest) for name, digest in settings.admin_key_hashes.items()]
    return Keys(keys, Key()) if keys else None
