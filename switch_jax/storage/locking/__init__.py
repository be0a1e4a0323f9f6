"""Lets one job at a time use a folder: by a lease in a bucket, by a locked file on a disk."""
