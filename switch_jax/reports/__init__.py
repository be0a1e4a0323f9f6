"""The report of finished or running runs, a page with charts and a table; and their status.

Each module uses those before it:

1 records      drops the records of metrics.jsonl that do not count
2 runs         reads a folder: the facts of the run, and its numbers over steps
3 comparison   compares a sparse run with the dense one: speed-up, lead, a sentence
4 findings     collects what a report shows: runs, comparisons, colours, notes
5 curves, routers   draw the charts       table   lists the numbers
6 page         puts all of it on a page, with the template page.html

run_status   reads how runs are doing, and prints it as text
"""
