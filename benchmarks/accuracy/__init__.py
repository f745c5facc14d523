"""Accuracies of a list of runs, over several seeds, on a prepared data set.

    python -m benchmarks accuracy PLAN --data FOLDER --out FOLDER --select
    python -m benchmarks accuracy PLAN --data FOLDER --out FOLDER --final

PLAN is a file such as benchmarks/accuracy/ui_prmd.yaml, or the name of one in that folder; plan.py
says what it may hold. `--select` tries the plan's candidates on people held out of the training
split, and keeps the best in OUT/selected.json; clips of the test people are not even copied.
`--final` takes what was selected, or the recipe as it comes where nothing was, and asks the test
people; a folder takes one such plan only. Either can be stopped and started again: finished runs
are skipped, and others go on from their last checkpoint.
"""
