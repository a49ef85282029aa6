"""Folders of the system: no service of this tool may have them as its own.

The tool owns the folders of the inventory: it sets their owner and mode, and ``destroy`` removes
what is in them. Folders of other services are not known by name: preflight looks at who owns them
(:mod:`provision.host.folders`).
"""

from __future__ import annotations

import re

#: Folders in which a service can have a folder of its own.
SYSTEM_DIRS = frozenset(
    {
        *("/bin", "/boot", "/dev", "/dev/shm", "/etc", "/etc/systemd", "/home", "/lib", "/lib64"),
        *("/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp"),
        *("/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local", "/usr/local/bin"),
        *("/usr/local/etc", "/usr/local/lib", "/usr/local/share", "/usr/sbin", "/usr/share"),
        *("/usr/src", "/var", "/var/cache", "/var/lib", "/var/lock", "/var/log", "/var/opt"),
        *("/var/run", "/var/spool", "/var/tmp"),
    }
)
#: Folders that belong to the system with all that is below them.
_ETC = (
    *("NetworkManager", "X11", "alternatives", "apparmor", "apparmor.d", "apt", "audit"),
    *("bash_completion.d", "binfmt.d", "ca-certificates", "cloud", "cron.d", "cron.daily"),
    *("cron.hourly", "cron.monthly", "cron.weekly", "crypto-policies", "dbus-1", "default"),
    *("depmod.d", "dnf", "dpkg", "dracut.conf.d", "firewalld", "fonts", "grub.d", "init.d"),
    *("initramfs-tools", "iproute2", "kernel", "ld.so.conf.d", "libvirt", "logrotate.d"),
    *("lvm", "modprobe.d", "modules-load.d", "netplan", "network", "networkd-dispatcher"),
    *("nftables", "ldap", "openldap", "pam.d", "pki", "polkit-1", "ppp", "profile.d", "rc.d"),
    *("rsyslog.d", "security", "selinux", "skel", "ssh", "ssl", "sudoers.d", "sysconfig"),
    *("sssd", "sysctl.d", "systemd", "terminfo", "tmpfiles.d", "udev", "xdg", "yum", "yum.repos.d"),
)
_VAR_LIB = ("alluxio-provision", "apt", "dbus", "dnf", "dpkg", "pam", "polkit-1", "private", "rpm")
SYSTEM_TREES = (
    *("/bin", "/boot", "/dev", "/lib", "/lib32", "/lib64", "/libx32", "/lost+found", "/proc"),
    *("/root", "/run/alluxio-provision", "/run/dbus", "/run/lock", "/run/sshd", "/run/sudo"),
    *("/run/systemd", "/run/user", "/sbin", "/usr/share/empty.sshd", "/var/empty"),
    *("/sys", "/usr/bin", "/usr/include", "/usr/lib/modules", "/usr/lib/systemd", "/usr/libexec"),
    *("/usr/local/bin", "/usr/local/sbin", "/usr/sbin", "/var/lib/systemd", "/var/lib/sudo"),
    *("/var/lock", "/var/log/journal", "/var/mail", "/var/spool/cron", "/var/spool/mail"),
    *(f"/etc/{name}" for name in _ETC),
    *(f"/var/lib/{name}" for name in _VAR_LIB),
)
#: Folders that systemd-tmpfiles empties while a service runs (tmpfiles.d(5)); a service with
#: PrivateTmp has others in their place (systemd.exec(5)).
_EMPTIED = ("/tmp", "/var/tmp")
#: A tmpfs for programs. A page store in memory is a choice that operators make.
_EXCEPT = ("/dev/shm",)
#: Folders with keys that let somebody log in, at any place.
_KEYS = re.compile(r"(^|/)(\.ssh|\.gnupg)(/|$)")


def refusal(path: str) -> str:
    """Why no service may have ``path`` as its own; empty when it may."""
    # A link on every system of today.
    path = f"/run{path[8:]}" if _is_in(path, "/var/run") and path != "/var/run" else path
    if path in SYSTEM_DIRS:
        return f"{path!r} belongs to the system; give a folder of its own below it"
    if _KEYS.search(path):
        return f"{path!r} is for the keys of a login; give a folder that only this service uses"
    for tree in _EMPTIED:
        if _is_in(path, tree):
            return f"{path!r} is in {tree}, which the system empties; give another folder"
    for tree in SYSTEM_TREES:
        if _is_in(path, tree) and not any(_is_in(path, other) for other in _EXCEPT):
            return f"{path!r} is in {tree}, which belongs to the system; give another folder"
    return ""


def _is_in(path: str, tree: str) -> bool:
    return path == tree or path.startswith(f"{tree}/")
