"""What a chip has, and what it is called."""
