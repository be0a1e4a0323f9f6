"""The report of finished or running runs, a page with a picture and a table; and their status.

runs        reads run folders              charts             which there are, how to read them
summary     final numbers and speed-ups    downstream_charts  those of downstream scores
downstream  scores of `switch_jax eval`    task_charts        those over many held-out tasks
page        puts it all on one HTML page   figures            the drawing itself (matplotlib)

run_status  how runs are doing             status_text       the same as text
"""
