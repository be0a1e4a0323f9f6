"""One job for each folder: leases in buckets, locks on disks, writing what nobody has changed."""
