"""`rlhf compare`: several people's versions of the same weeks, side by side, for the meeting.

command.py puts it together. forks.py finds and fetches the forks; grade.py grades them (tape.py draws every check's
inputs once, fence.py and shield.py keep the sandbox); train.py trains with them, and runs.py reads curves; code.py
groups what is written alike; gather.py makes one table of it all, which is the JSON; table.py prints it; page.py,
week_page.py, markup.py, page.css and page.js are the HTML file.
"""
