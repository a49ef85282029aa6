"""Tests on the lab's real hosts: sshd, systemd, etcd and Java, nothing in their places."""
