"""Whose call it is, as far as its credential says: the region; the account is the same for all."""

from dataclasses import dataclass

ACCOUNT = "123456789012"  # AWS's own example account


@dataclass(frozen=True)
class Scope:
    """Goes into messages, ARNs and links."""

    region: str
    account: str = ACCOUNT
