"""What an SSH configuration says of one host."""

from __future__ import annotations

from provision.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Values with all tokens expanded; None is what the configuration does not say.

    ``unsupported``: keywords in force that this tool does not follow.
    """

    hostname: str | None = None
    user: str | None = None
    port: int | None = None
    identity_files: tuple[str, ...] | None = None
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str | None = None
    proxy_jump: str | None = None
    proxy_command: str | None = None
    user_known_hosts: tuple[str, ...] | None = None
    global_known_hosts: tuple[str, ...] | None = None
    host_key_alias: str | None = None
    unsupported: tuple[str, ...] = ()
