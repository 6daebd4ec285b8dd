"""What holds the processes together, with LitServe underneath. It knows no API and no text.

messages         all that processes say to each other
bus              the wires they say it on
loop             a worker's life: take messages, work, answer
generation       the trade of the generation worker; tally: what it counts
classification   the trade of the classify worker
workers          the processes that hold weights
supervisor       the main process; ward: one worker under it; lifeline: no child outlives its parent
drain            the phases of an ending; in_flight: the requests it waits for
"""
