"""Plans for Alluxio's workers, masters and clients."""
