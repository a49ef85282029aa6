"""Installs etcd and Alluxio workers on bare-metal hosts over SSH."""

__version__ = "0.1.0"
