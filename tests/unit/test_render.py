"""What is written is read back as it was meant, by the readers of the real programs' formats."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from provision.alluxio.worker import desired as workers_desired
from provision.alluxio.worker.desired import Artifacts
from provision.etcd.member import desired as etcd_desired
from provision.host.ownership import header
from provision.host.predict import after
from provision.host.resources import File, Resource
from provision.render import env_value, property_key, property_value, render, template_dir
from tests.unit import builders
from tests.unit.hosts import TARBALL, facts

# Lone surrogates cannot be in a file, so they cannot be in an inventory.
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
keys = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
HOSTILE = ["a\nb=c", "x\\", "  lead", "trail  ", "#!:=", "\t", "\r\n", "é☃😀", "\x00\x7f\u2028", ""]


def load_properties(text: str) -> dict[str, str]:
    """``java.util.Properties.load``, from its documentation."""
    found: dict[str, str] = {}
    logical = ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        line = line.lstrip(" \t\f")
        if not logical and (not line or line[0] in "#!"):
            continue
        logical += line
        if (len(logical) - len(logical.rstrip("\\"))) % 2:
            logical = logical[:-1]
            continue
        end = 0
        while end < len(logical) and logical[end] not in "=: \t\f":
            end += 2 if logical[end] == "\\" else 1
        rest = logical[end:].lstrip(" \t\f")
        if rest[:1] in ("=", ":") and rest:
            rest = rest[1:].lstrip(" \t\f")
        found[_unescape(logical[:end])] = _unescape(rest)
        logical = ""
    return found


def _unescape(text: str) -> str:
    out, i = "", 0
    while i < len(text):
        if text[i] != "\\":
            out += text[i]
        elif text[i + 1] == "u":
            out += chr(int(text[i + 2 : i + 6], 16))
            i += 5
        else:
            out += {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(text[i + 1], text[i + 1])
            i += 1
        i += 1
    return out.encode("utf-16", "surrogatepass").decode("utf-16")


@given(st.dictionaries(keys, anything, max_size=5))
def test_properties_are_read_back(properties: Mapping[str, str]) -> None:
    text = render("alluxio-site.properties", cluster="c", properties=properties).decode("ascii")
    assert load_properties(text) == properties


@pytest.mark.process
@pytest.mark.skipif(shutil.which("java") is None, reason="no java here")
def test_java_itself_reads_them_back(tmp_path: Path) -> None:
    source = tmp_path / "Read.java"
    source.write_text(
        "public class Read { public static void main(String[] a) throws Exception {"
        " var p = new java.util.Properties(); p.load(System.in);"
        " for (var k : new java.util.TreeSet<>(p.stringPropertyNames()))"
        " for (var s : new String[]{k, p.getProperty(k)}) { for (char c : s.toCharArray())"
        ' System.out.print((int) c + " "); System.out.println(); } } }'
    )
    wanted = {f"key {n}:=#!\\é": value for n, value in enumerate(HOSTILE)}
    text = render("alluxio-site.properties", cluster="c", properties=wanted)
    done = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", str(source)], input=text, capture_output=True
    )
    if done.returncode != 0 and b"compiler" in done.stderr.lower():
        pytest.skip("no Java compiler here")
    lines = [
        b"".join(int(n).to_bytes(2, "little") for n in line.split()).decode("utf-16-le")
        for line in done.stdout.decode().split("\n")[:-1]
    ]
    assert dict(zip(lines[::2], lines[1::2], strict=True)) == wanted


def test_booleans_and_numbers_are_alluxios() -> None:
    assert (property_value(True), property_value(1.5), property_value(3)) == ("true", "1.5", "3")
    assert property_key("alluxio.worker.${x}") == "alluxio.worker.${x}"


@pytest.mark.process
@given(
    st.dictionaries(
        st.from_regex("[A-Z_]{1,8}", fullmatch=True),
        anything | st.text("""'"\\\\$`nrX{}#= !\t""", max_size=12),
        max_size=4,
    )
)
def test_shell_variables_are_read_back(env: Mapping[str, str]) -> None:
    env = {f"X_{key}": value for key, value in env.items() if _has_a_form(value)}
    text = render("alluxio-env.sh", cluster="c", env=env)
    assert len(text.splitlines()) == len(env) + 1
    show = "".join(f'printf "%s\\0" "${k}"\n' for k in env)
    for shell in ("sh", "bash"):
        done = subprocess.run([shell], input=text + show.encode(), capture_output=True, timeout=10)
        assert done.stdout.decode().split("\0")[:-1] == list(env.values())


def _has_a_form(value: str) -> bool:
    try:
        env_value(value)
    except ValueError:
        return False
    return True


#: Each was given to gotenv 1.2.0 itself, which read it as bash does.
@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("-Xmx4g", "-Xmx4g"),
        ("", "''"),
        ("-Xms4g -Xmx4g", "'-Xms4g -Xmx4g'"),
        ('-Da=$HOME/`id`\\n "#', "'-Da=$HOME/`id`\\n \"#'"),
        ("-Da=it's", '"-Da=it\'s"'),
        ('-Da=it\'s "$x" \\`', '"-Da=it\'s \\"\\$x\\" \\\\\\`"'),
        ("\\$x", '"\\\\\\$x"'),
    ],
)
def test_one_form_for_bash_and_for_the_command_line(value: str, form: str) -> None:
    assert env_value(value) == form


@pytest.mark.parametrize(
    "value", ["it's C:\\new", "it's \\r", "\\$x\\n", "two\nlines", "a\rb", "\0"]
)
def test_what_the_two_would_not_read_alike_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"bash and bin/alluxio|a control character"):
        env_value(value)


def _files(resources: tuple[Resource, ...]) -> dict[str, str]:
    return {
        r.path.rsplit("/", 1)[-1]: (r.content or b"").decode()
        for r in resources
        if isinstance(r, File)
    }


@given(anything)
def test_etcds_configuration_is_read_back(value: str) -> None:
    member = builders.member(1, settings={"metrics": value, "max-txn-ops": 9, "pre-vote": True})
    cluster = builders.etcd(member, builders.member(2), token=value or "c")
    files = _files(etcd_desired.resources(cluster, member, TARBALL, None, None))
    read = YAML(typ="safe").load(files["etcd.conf.yml"])
    assert read["metrics"] == value
    assert read["initial-cluster-token"] == (value or "c")
    assert (read["max-txn-ops"], read["pre-vote"]) == (9, True)
    assert read["name"] == "infra1"
    assert read["initial-cluster"] == "infra1=http://10.0.0.1:2380,infra2=http://10.0.0.2:2380"
    assert read["listen-client-urls"] == "http://10.0.0.1:2379,http://127.0.0.1:2379"


def test_an_ipv6_member() -> None:
    member = builders.member(1, address="fd00::1")
    files = _files(etcd_desired.resources(builders.etcd(member), member, TARBALL, None, None))
    read = YAML(typ="safe").load(files["etcd.conf.yml"])
    assert read["listen-peer-urls"] == "http://[fd00::1]:2380"
    assert read["initial-cluster"] == "infra1=http://[fd00::1]:2380"


@pytest.mark.parametrize(
    ("addresses", "listens"), [({"10.0.0.1"}, "0.0.0.0"), ({"10.0.0.1", "fd00::1"}, "[::]")]
)
def test_a_member_with_a_name_listens_on_all_that_its_host_has(
    addresses: set[str], listens: str
) -> None:
    member = builders.member(1, address="infra1.example.com")
    host = facts(addresses=frozenset(addresses))
    files = _files(etcd_desired.resources(builders.etcd(member), member, TARBALL, None, host))
    read = YAML(typ="safe").load(files["etcd.conf.yml"])
    assert read["listen-peer-urls"] == f"http://{listens}:2380"
    assert read["listen-client-urls"] == f"http://{listens}:2379"


def test_a_cluster_that_has_data_keeps_what_it_was_bootstrapped_with() -> None:
    """Or else each change of the membership would restart every member for nothing."""
    from provision.host.facts import PathState
    from tests.unit import hosts

    cluster = builders.etcd()
    member = cluster.members[0]
    wanted = etcd_desired.resources(cluster, member, TARBALL, None, None)
    there = after(wanted, hosts.facts())
    data = {f"{member.data_dir}/member": PathState("dir", "etcd", "etcd", 0o700, 0)}
    there = replace(there, paths=dict(there.paths) | data)
    larger = replace(cluster, members=(*cluster.members, builders.member(4)))
    again = etcd_desired.resources(larger, member, TARBALL, None, there)
    assert _files(again)["etcd.conf.yml"] == _files(wanted)["etcd.conf.yml"]


def test_a_worker() -> None:
    worker = builders.worker("w1")._replace(
        heap="4GB",
        direct_memory="8g",
        properties={"alluxio.dora.client.ufs.root": "s3://bucket/a=b"},
        env={"X": "$(id) 'quoted'"},
    )
    alluxio = builders.alluxio(worker, builders.worker("w2"))
    files = _files(workers_desired.resources(alluxio, worker, Artifacts(TARBALL, None), None))
    site = load_properties(files["alluxio-site.properties"])
    assert site["alluxio.dora.client.ufs.root"] == "s3://bucket/a=b"
    assert site["alluxio.worker.hostname"] == "w1"
    assert site["alluxio.worker.membership.manager.type"] == "ETCD"
    assert site["alluxio.etcd.endpoints"] == "http://10.0.0.1:2379"
    assert site["alluxio.worker.failure.detection.timeout"] == "120s"
    assert "-Xmx4G -XX:MaxDirectMemorySize=8g" in files["alluxio-env.sh"]
    assert files["workers"].split("\n")[1:] == ["w1", "w2", ""]


def test_units_name_their_cluster_and_break_no_line() -> None:
    from provision.host.ownership import KEY

    cluster = builders.etcd()
    unit = _files(etcd_desired.resources(cluster, cluster.members[0], TARBALL, None, None))[
        "etcd.service"
    ]
    assert f"\n{KEY}=c\n" in unit
    assert "\nUMask=0077\n" in unit
    assert "\nType=notify\n" in unit
    for line in unit.splitlines():
        assert not line or line[0] in "[#" or "=" in line


def test_a_name_that_nobody_gave_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("workers", cluster="c")


@pytest.mark.parametrize("template", sorted(template_dir().glob("*.j2")), ids=lambda p: p.name)
def test_what_says_that_it_is_managed_says_it_as_it_is_looked_for(template: Path) -> None:
    said = [line for line in template.read_text().splitlines() if "Managed by" in line]
    assert said in ([], [header("{{ cluster }}")])


@pytest.mark.parametrize("template", sorted(template_dir().glob("*.j2")), ids=lambda p: p.name)
def test_what_is_written_names_no_file_of_this_repository(template: Path) -> None:
    """A module that gets another name would change the file on every host."""
    written = re.sub(r"\{#.*?#\}", "", template.read_text(), flags=re.DOTALL)
    assert re.findall(r"\b(?:provision|templates|tests|docs)/\S+", written) == []
