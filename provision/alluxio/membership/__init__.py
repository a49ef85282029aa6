"""What Alluxio keeps in etcd: registrations, live keys, and the clusters they belong to."""
