"""The report of finished or running trainings: one page, one picture, one table.

runs        reads run folders              charts             which there are, how to read them
summary     final numbers and speed-ups    downstream_charts  those of downstream scores
downstream  scores of `switch_jax eval`    task_charts        those over many held-out tasks
page        puts it all on one HTML page   figures            the drawing itself (matplotlib)
units       numbers and tables as text

And how runs are doing: status reads it from their folders, status_text writes it down.
"""
