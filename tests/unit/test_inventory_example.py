"""The example and the JSON schema say what the model says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

import provision.inventory
from provision.errors import UsageError
from provision.inventory import EXAMPLE, InventoryFile, json_schema, read, write_example
from provision.inventory.model import HOST_NAME, Model
from provision.inventory.schema import as_text

INVENTORY = Path(__file__).parents[2] / "inventory"


def models(annotation: Any) -> Iterator[type[Model]]:
    """The model classes within an annotation, and within their fields."""
    inner_types = get_args(annotation)  # Python 3.10 takes list[str] for a type, too
    if not inner_types and isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    for inner in inner_types:
        yield from models(inner)


FIELDS = sorted({(m.__name__, field) for m in models(InventoryFile) for field in m.model_fields})


def test_the_example_loads_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    write_example(path)
    assert read(path).warnings == ()


def test_the_example_is_the_committed_file() -> None:
    remedy = "python -m provision.inventory.example > inventory/example.yml"
    committed = (INVENTORY / "example.yml").read_text(encoding="utf-8")
    assert committed == EXAMPLE, f"make it again: {remedy}"


@pytest.mark.parametrize("key", sorted({field for _, field in FIELDS}))
def test_the_example_has_every_key(key: str) -> None:
    assert re.search(rf"(?m)^[ #]*([a-z_]+: )?[{{ ].*\b{key}:|^[ #]*{key}:", EXAMPLE)


def test_every_key_is_described() -> None:
    for model in models(InventoryFile):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_a_name_that_the_package_has_not() -> None:
    with pytest.raises(AttributeError, match=r"'provision.inventory' has no attribute 'nothing'"):
        provision.inventory.nothing  # noqa: B018


def test_it_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text("mine")
    with pytest.raises(UsageError) as caught:
        write_example(path)
    assert path.read_text() == "mine"
    assert caught.value.message == "no inventory was written"
    assert [str(p) for p in caught.value.problems] == [
        f"{path}: this file exists already (name another, or move it away)"
    ]
    assert caught.value.id == caught.value.problems[0].id == "file-exists"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    write_example(tmp_path / "made" / "too" / "inventory.yml")
    assert (tmp_path / "made" / "too" / "inventory.yml").read_text() == EXAMPLE
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        write_example(tmp_path / "file" / "inventory.yml")
    assert [str(p) for p in caught.value.problems] == [
        f"{tmp_path}/file/inventory.yml: cannot be written: Not a directory"
    ]
    assert caught.value.id == caught.value.problems[0].id == "file-unwritable"
    with pytest.raises(UsageError, match="no inventory was written") as caught:
        write_example(tmp_path / "a\0b")
    assert re.fullmatch(
        "cannot be written: .*embedded null (byte|character.*)", caught.value.problems[0].what
    )


def test_the_schema_is_current() -> None:
    committed = (INVENTORY / "schema.json").read_text(encoding="utf-8")
    remedy = "python -m provision.inventory.schema > inventory/schema.json"
    assert committed == as_text(), f"make it again: {remedy}"


def test_the_schema_s_structure() -> None:
    schema = json_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["title"]
    assert schema["required"] == ["etcd"]
    assert schema["additionalProperties"] is False
    for name, field in FIELDS:
        part = schema if name == "InventoryFile" else schema["$defs"][name]
        assert field in part["properties"], (name, field)
    assert HOST_NAME not in as_text()


@pytest.mark.parametrize("group", [("Etcd", "members"), ("Alluxio", "workers")])
def test_the_schema_takes_ranges(group: tuple[str, str]) -> None:
    hosts = json_schema()["$defs"][group[0]]["properties"][group[1]]
    (pattern,) = hosts["patternProperties"]
    for name in ("infra0", "worker[001-200]", "w[1-3,7]-x"):
        assert re.search(pattern, name)
    for name in ("a b", "w[a-b]", "w[1-2"):
        assert not re.search(pattern, name)
