"""Provision etcd v3 clusters and Alluxio workers on bare-metal hosts over SSH."""
