"""Runs a command on its own pseudo terminal: its output goes to stdout unchanged, stdin is typed into it.

usage: terminal.py COLUMNS LINES COMMAND [ARG...]

The first line on stderr is the process id of the command. When it has ended, a second line says whether the terminal has its
settings (echo, line editing, signals by keys) again, `restored` or `changed`, and the exit code is that of the command.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios


def main(columns, lines, command):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    before = termios.tcgetattr(theirs)

    def take_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal)
    print(child.pid, file=sys.stderr, flush=True)
    typed = sys.stdin.fileno()
    sources = [ours, typed]
    while True:
        # The terminal is kept open here, so its end is never read: the child is polled between two waits.
        ended = child.poll() is not None
        ready, _, _ = select.select(sources, [], [], 0 if ended else 0.1)
        if ours in ready:
            os.write(sys.stdout.fileno(), os.read(ours, 65536))
        elif ended:
            break
        if typed in ready:
            keys = os.read(typed, 1024)
            if keys:
                os.write(ours, keys)
            else:
                sources.remove(typed)
    after = termios.tcgetattr(theirs)
    print("restored" if after == before else "changed", file=sys.stderr, flush=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
