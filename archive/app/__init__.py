"""Builds everything from a Config and wires it; starts and stops in order.

``store`` opens what every process needs, ``acceptor`` is a process that serves associations, ``background`` the one
in which the workers run.

Rules that hold here: nothing is imported for somebody else's sake, so that a command loads the parts that it uses.
"""
