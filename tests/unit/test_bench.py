"""The benchmark's other contenders render our templates: what these want has to be there."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import Environment, meta
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
#: In ``bench/run``'s inventory, by host and for all.
GIVEN = {"cluster", "version", "tarball", "sha256", "templates", "address"}
#: Only asked for with TLS, which the benchmark leaves out.
TLS = {"pki", "client_auth", "client_security"}


@pytest.mark.parametrize("template", ["etcd.conf.yml.j2", "etcd.service.j2"])
def test_the_playbook_has_every_variable_of_the_templates(template: str) -> None:
    (play,) = YAML(typ="safe").load(ROOT / "bench" / "ansible" / "etcd.yml")
    text = (ROOT / "templates" / template).read_text(encoding="utf-8")
    wanted = meta.find_undeclared_variables(Environment().parse(text))
    assert wanted - TLS <= GIVEN | set(play["vars"])


def test_what_is_given_is_in_the_inventory() -> None:
    text = (ROOT / "bench" / "run").read_text(encoding="utf-8")
    assert [name for name in GIVEN if f'"{name}": ' not in text] == []
