"""The report of finished or running runs, a page with pictures and tables; and their status.

Four steps, each from what the one before it found:

1 records   those of metrics.jsonl that count
2 runs      a folder as a run           series          numbers over steps, means over seeds
            downstream  scores of generated text        expert_tokens   what experts take
            configurations  joins runs of several seeds, and names and colours them
3 findings  what a report shows         comparison      speed-ups and leads
            verdict     these in plain words            power_law       how a loss curve goes on
            tables      the numbers as tables, and as text for the terminal
4 page      puts it all on a page, by page.html         pictures        a module for each
            template    what pages share        drawing     what pictures share (matplotlib)
            serve       the page while runs go on

run_status  how runs are doing, of their records        status_text     the same as text
"""
