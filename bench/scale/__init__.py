"""How cost grows: `python -m bench scale`.

Each program measures one or several *curves* at three sizes: mostly the CPU time of the server per operation, in the
median of three, which says the same on a busy machine; and the longest hold of the event loop, as the most CPU time
that its thread took while another client waited for one answer.
"""
