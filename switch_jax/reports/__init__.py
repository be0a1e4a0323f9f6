"""The report of finished or running trainings: one page, one picture, one table.

runs     reads run folders               charts  which charts there are, and how to read them
summary  final numbers and speed-ups     figures the drawing itself (matplotlib)
page     puts it all on one HTML page
"""
