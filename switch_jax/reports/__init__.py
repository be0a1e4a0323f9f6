"""The report of finished or running runs, a page with charts and a table; and their status.

Each module uses those before it:

1 records      drops the records of metrics.jsonl that do not count
2 runs         reads a folder: the facts of the run, and its numbers over steps
3 seeds        averages the runs that differ in RANDOM_SEED alone
4 chance       says how much of a lead is chance
5 comparison   compares a run with the dense one: speed-up, lead, a sentence
6 findings     collects what a report shows: runs, comparisons, colours, notes
7 curves, routers   draw the charts       table   lists the numbers
8 page         puts all of it on a page, with the template page.html

run_status   reads how runs are doing, and prints it as text
"""
