"""The processes of a run, and the memory of their hosts."""
