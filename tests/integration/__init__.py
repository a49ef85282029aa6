"""Tests on the lab's real hosts: sshd, systemd, etcd and Java, nothing in their places."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.lab")
