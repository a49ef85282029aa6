"""Alluxio and its etcd on Kubernetes, by Alluxio's own Helm chart: its values, and a look at it."""
