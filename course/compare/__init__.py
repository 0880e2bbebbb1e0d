"""`rlhf compare`: several people's versions of the same weeks, side by side, for the meeting.

forks.py finds and fetches them, grade.py grades them (tape.py draws every check's inputs once, fence.py and shield.py keep
the sandbox), train.py trains with them, runs.py reads curves, code.py groups what is written alike, page.py, page.css and
page.js are the HTML file, table.py is the terminal and the JSON, command.py puts them together.
"""
