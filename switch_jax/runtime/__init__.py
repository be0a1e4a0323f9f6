"""Connects the processes of a run, and sets up the memory and the open files of their hosts."""
