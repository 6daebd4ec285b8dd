"""Load from outside: Locust users who speak HTTP like strangers, and a report of what they felt.

`python -m loadtest` (= `make load`) runs `locustfile.py` against a server it is pointed to, or one it starts itself,
and prints the table of `report.py`. Nothing here imports the packages it measures.
"""
