"""Tests on the lab's real hosts: sshd, systemd, etcd and Java, nothing in their places.

With pytest-xdist (``make integration``) every process but the first has a lab of its own.
"""

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite(f"{__name__}.lab")

_LANE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
if _LANE:
    # Before anything reads them; processes that the tests start inherit them.
    _name = f"{os.environ.get('ALXP_LAB_PREFIX', 'alxp')}{_LANE}"
    os.environ["ALXP_LAB_PREFIX"] = _name
    os.environ["ALXP_LAB_NET"] = f"10.213.{100 + _LANE}"
    os.environ["ALXP_LAB_STATE"] = str(Path(__file__).parents[2] / ".lab" / _name)
