"""The report of finished or running runs, a page with charts and a table; and their status.

Each step uses what the one before it found:

1 records      those of metrics.jsonl that count
2 runs         a folder as a run: its facts, and its numbers over steps
3 comparison   a sparse run beside the dense one: speed-up, lead, a sentence
4 findings     what a report shows: runs, comparisons, colours, notes
5 curves, routers   the charts            table   the numbers
6 page         puts it all on a page, by page.html

run_status   how runs are doing, of their records, and the same as text
"""
