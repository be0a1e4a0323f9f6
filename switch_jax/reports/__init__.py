"""The report of finished or running runs, a page with a picture and tables; and their status.

findings        reads runs and compares them
runs            reads run folders           held_out      which held-out values are compared
configurations  joins runs of several seeds, and names and colours them
comparison      speed-ups and leads         verdict       the same in plain words
downstream      scores of `switch_jax eval` summary       tables
expert_tokens   which tokens experts take     distillation  what a student keeps of the gain
config_fields   what config.gin means, whichever version wrote it

charts             which charts there are   curves        what charts of curves have in common
held_out_charts    held-out quality         study_charts  size, and speed-up over training
downstream_charts  downstream scores        task_charts   many held-out tasks
power_law          how a loss curve goes on
figures            the drawing (matplotlib) page          puts it all on one HTML page
serve              the page while runs go on  text        the numbers as lines

run_status         how runs are doing       status_text   the same as text
"""
