"""Alluxio's data in etcd: registrations, live keys, and the clusters they belong to."""
