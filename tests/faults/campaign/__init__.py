"""The fault campaign: every fault as a generator of tries, counted, with twins that show that its check can fail.

A fault is a function that takes a `Run` and tries until the run has enough; see run.py. Parts of the archive that
come later add a module here and name it in `faults.py`. `scripts/faults` runs the campaign; tests/faults/
test_campaign.py runs a little of each fault in every test run.
"""
