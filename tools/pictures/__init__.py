"""Pictures of the docs that explain how things work, a module for each."""
