"""Installs etcd and Alluxio workers on bare-metal hosts over SSH."""

__version__ = "1.0.0"
