"""The files of render-monitor. The lab runs them (tests/integration/test_check_nodes.py)."""

from __future__ import annotations

import configparser
import getpass
import re
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import provision
from provision.check_nodes import monitor
from provision.check_nodes.prometheus import PREFIX, exposition
from provision.errors import UsageError
from tests.unit.builders import inventory
from tests.unit.test_check import LIVE, report
from tests.unit.test_stored import backed_up, saved


def rendered(path: str = "inventory.yml", every: float = 60.0) -> monitor.Monitor:
    return monitor.render_files(inventory(path=Path(path)), every, "/var/lib/textfiles")


def unit(made: monitor.Monitor, kind: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(made.files[f"alluxio-check-c.{kind}"].decode())
    return parser


def test_the_service_looks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = rendered()
    service = unit(made, "service")["Service"]
    assert service["ExecStart"] == (
        f'"{sys.executable}" "-m" "invoke" "check-nodes" "--inventory" "{tmp_path}/inventory.yml" '
        '"--format" "prometheus" "--output" "/var/lib/textfiles/alluxio-c.prom"'
    )
    assert (Path(service["WorkingDirectory"]) / "tasks.py").exists()
    assert service["SuccessExitStatus"] == "1"
    assert str(made.output) == "/var/lib/textfiles/alluxio-c.prom"
    assert service["User"] == made.user == getpass.getuser()
    assert service["EnvironmentFile"] == "-/etc/alluxio-provision/c.env"
    assert unit(made, "service")["Unit"]["Description"] == "check-nodes of c, for Prometheus"
    assert " of c," in unit(made, "timer")["Unit"]["Description"]


def package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As if this package were in ``folder``."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(provision, "__file__", str(folder / "provision" / "__init__.py"))


def test_an_installed_program_calls_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(monkeypatch, tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bin/alluxio-provision", "render-monitor"])
    service = unit(rendered("/x.yml"), "service")["Service"]
    assert service["WorkingDirectory"] == "/"
    assert service["ExecStart"].startswith(
        f'"{tmp_path}/bin/alluxio-provision" "check-nodes" "--inventory" "/x.yml" '
    )


@pytest.mark.parametrize(("name", "shown"), [("100%h", "100%%h"), ("a b", "a b")])
def test_a_checkout_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shown: str
) -> None:
    package(monkeypatch, tmp_path / name)
    (tmp_path / name / "tasks.py").touch()
    service = unit(rendered(), "service")["Service"]
    assert service["WorkingDirectory"] == f"{tmp_path}/{shown}"
    package(monkeypatch, tmp_path / "a\nUser=root")
    (tmp_path / "a\nUser=root" / "tasks.py").touch()
    with pytest.raises(UsageError, match="systemd does not accept this path"):
        rendered()


def test_what_systemd_would_expand_is_escaped() -> None:
    command = unit(rendered('/a "b"/50%$HOME\\x.yml'), "service")["Service"]["ExecStart"]
    assert '"/a \\"b\\"/50%%$$HOME\\\\x.yml"' in command
    with pytest.raises(UsageError, match="systemd does not accept this path"):
        rendered("/a\nExecStart=/bin/evil")


def test_the_timer_waits_from_the_end_of_a_look() -> None:
    timer = unit(rendered(every=90), "timer")
    assert timer["Timer"]["OnUnitInactiveSec"] == "90"
    assert timer["Install"]["WantedBy"] == "timers.target"


def test_the_rules_are_about_metrics_that_there_are() -> None:
    made = rendered(every=100)
    rules = YAML(typ="safe").load(made.files["alluxio-check-c.rules.yml"])
    (group,) = rules["groups"]
    text = exposition(report(LIVE, stored=backed_up(saved(1))))
    there = set(re.findall(rf"^# TYPE ({PREFIX}\w+)", text, re.MULTILINE))
    there |= {f"{PREFIX}etcd_member_certificate_{x}" for x in ("valid", "expiry_timestamp_seconds")}
    for rule in group["rules"]:
        used = set(re.findall(rf"{PREFIX}\w+", rule["expr"]))
        assert used
        assert used <= there
        assert rule["expr"].count('cluster="c"') == len(re.findall(PREFIX, rule["expr"]))
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        for name in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert re.search(rf'\b{name}="', text) or name == "listener"
    assert "> 560" in group["rules"][0]["expr"]


def test_how_they_are_installed_is_said() -> None:
    said = monitor.instructions(rendered(), Path("/x y"))
    assert said[0] == "to install them, as root:"
    assert said[1] == f"  install -d -o {getpass.getuser()} -m 0755 /var/lib/textfiles"
    lines = "\n".join(said)
    assert "'/x y/alluxio-check-c.service' '/x y/alluxio-check-c.timer'" in lines
    assert "systemctl enable --now alluxio-check-c.timer" in lines
