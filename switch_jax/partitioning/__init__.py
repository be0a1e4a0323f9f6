"""The device mesh, and which array axis lies on which mesh axis."""
