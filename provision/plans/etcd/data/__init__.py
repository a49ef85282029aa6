"""Plans for etcd's data: backups, restore, recovery, defragmentation, alarms."""
