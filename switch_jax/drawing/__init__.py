"""Pictures, for the pages of reports and plans."""
