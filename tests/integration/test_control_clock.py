"""The control machine's clock is a day ahead: it dates the certificates, and no host's does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import Lab

#: libc as the control machine's processes see it.
AHEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *t) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int done = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec += 86400;
  return done;
}

int gettimeofday(struct timeval *t, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
"""
SAID = "warning: this machine: clock differs from the hosts' clocks by +86"


@pytest.fixture
def ahead(tmp_path: Path) -> dict[str, str]:
    """The environment of a command whose clock is a day ahead."""
    (tmp_path / "ahead.c").write_text(AHEAD)
    library = tmp_path / "ahead.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", library, tmp_path / "ahead.c", "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(library)}


@pytest.fixture
def inventory(lab: Lab, clean: None) -> Iterator[Path]:
    """TLS for clients, too: this tool has a certificate of its own."""
    path = lab.inventory({"etcd": {"tls": {"client": True, "plain_client_port": 2381}}})
    yield path
    lab.invoke("destroy", path, "--yes-delete", lab.name).expect(0)


def test_the_cluster_is_up_then_and_when_the_clock_is_right_again(
    lab: Lab, inventory: Path, ahead: dict[str, str]
) -> None:
    lab.invoke("deploy-etcd", inventory, env=ahead).expect(0, SAID)
    lab.invoke("deploy-etcd", inventory, "--dry-run", "--exit-code", env=ahead).expect(0)
    lab.invoke("rotate-certs", inventory, "--ca", env=ahead).expect(0)
    right = lab.invoke("deploy-etcd", inventory).expect(0, "0 changed")
    assert "clock differs from the hosts' clocks" not in right.text
