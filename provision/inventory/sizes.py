"""Sizes in the notations of Alluxio and the JVM."""

from __future__ import annotations


def size_bytes(size: str) -> int:
    """An Alluxio or Java size in bytes: ``64MB`` is 64 x 2^20 (class ``FormatUtils``)."""
    number = int("".join(c for c in size if c.isdigit()))
    unit = size.lstrip("0123456789").lower().rstrip("b")
    return number << 10 * " kmgt".index(unit or " ")


def jvm_size(size: str) -> str:
    """``size`` as the JVM reads it: it knows ``4g``, but not ``4GB``."""
    return size.rstrip("bB")
