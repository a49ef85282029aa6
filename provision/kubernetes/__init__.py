"""Alluxio and its etcd on Kubernetes, with Alluxio's own Helm chart: its values, and a check."""
