"""The report of finished or running trainings: one page, one picture, one table.

runs        reads run folders              charts             which there are, how to read them
summary     final numbers and speed-ups    downstream_charts  those of downstream scores
downstream  scores of `switch_jax eval`    figures            the drawing itself (matplotlib)
page        puts it all on one HTML page
"""
