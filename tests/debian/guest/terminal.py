"""Logs in with login(1) on a terminal that names no size, as a serial line is one: terminal.py [-f] USER WORDS=>KEYS...

Waits until the terminal shows WORDS, then types KEYS, for each pair; prints what comes after the last, until the terminal is closed. A pair
without KEYS is the last, and hangs up.
"""
import os, pty, re, select, sys, time

words = sys.argv[1:]
login = ["login"] + [words.pop(0) for _ in range(2 if words[0] == "-f" else 1)]
steps = [step.split("=>") for step in words]
child, terminal = pty.fork()
if child == 0:
    os.environ["TERM"] = "vt100"
    os.execvp("login", login)
seen, end = "", time.monotonic() + 300


def wait(words):
    global seen
    while words not in seen:
        if time.monotonic() > end:
            sys.exit("never seen: %s\n%s" % (words, seen))
        if select.select([terminal], [], [], 1)[0]:
            try:
                seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", os.read(terminal, 65536).decode(errors="replace"))
            except OSError:
                sys.exit("the terminal was closed before: %s\n%s" % (words, seen))


for words, keys in steps:
    wait(words)
    if not keys:
        os.close(terminal)
        os.waitpid(child, 0)
        sys.exit()
    seen = ""
    os.write(terminal, keys.encode().decode("unicode_escape").encode())
try:
    while True:
        data = os.read(terminal, 65536).decode(errors="replace")
        # A line of what is said begins where the shell's words to the terminal end.
        sys.stdout.write(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", data).replace("\r", ""))
except OSError:
    pass
os.waitpid(child, 0)
