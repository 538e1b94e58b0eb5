"""Is what a job delivers better than its base, whatever the data? `make bench-stability`.

Hundreds of short jobs on good and deliberately bad data, each judged by an evaluation that no job has a part
in. `plan.py` fixes every run before the first is made; `worker.py` makes one run after another in a process
of its own, with any build's engine; `report.py` turns the results into tables and holds them to the bars.
"""
