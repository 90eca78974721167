#!/usr/bin/env python3
"""An EXAMPLE of a plain program as an agent: `plain-cli-agent.py -- PROMPT`. It has no model: it
does what directives in the prompt say, one per line, and prints what it does.

    say: TEXT                   print this text
    wait: SECONDS               show a progress line for so long
    replace FILE: OLD => NEW    replace a text in a file of the working directory
    write FILE: TEXT            write a file (\\n is a line end)
    fail: TEXT                  print this to the standard error and end with exit code 1

The figures in its last line are made up from the length of the prompt. Only the standard library;
python 3.8 or newer.
"""

import os
import re
import sys
import time

DIRECTIVE = re.compile(r"^\s*(say|wait|replace|write|fail)\b ?([^:]*):\s*(.*)$")


def inside(name):
    path = os.path.realpath(name)
    if not path.startswith(os.path.realpath(".") + os.sep):
        sys.exit("%s is outside the working directory" % name)
    return path


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def step(verb, subject, rest):
    if verb == "say":
        print(rest, flush=True)
    elif verb == "wait":
        seconds = float(rest or subject or 1)
        ticks = max(1, int(seconds * 10))
        for tick in range(ticks):
            print("\rworking %3d %%" % (100 * (tick + 1) // ticks), end="", flush=True)
            time.sleep(seconds / ticks)
        print(flush=True)
    elif verb == "replace":
        old, _, new = rest.partition(" => ")
        path = inside(subject)
        with open(path, encoding="utf-8") as file:
            before = file.read()
        if old not in before:
            sys.exit("%s does not hold %r" % (subject, old))
        write(path, before.replace(old, new))
        print("edited %s" % subject, flush=True)
    elif verb == "write":
        write(inside(subject), rest.replace("\\n", "\n"))
        print("wrote %s" % subject, flush=True)
    elif verb == "fail":
        sys.exit(rest)


def main():
    args = sys.argv[1:]
    prompt = "\n".join(args[1:] if args[:1] == ["--"] else args)
    steps = [match.groups() for match in map(DIRECTIVE.match, prompt.splitlines()) if match]
    if not steps:
        print("I am an example without a model and found no directive in the prompt: say, wait, "
              "replace, write or fail, one per line.")
    for number, (verb, subject, rest) in enumerate(steps):
        print("[%d/%d] %s %s" % (number + 1, len(steps), verb, subject.strip()), flush=True)
        step(verb, subject.strip(), rest)
    print("Tokens used: %d in, %d out" % (100 + len(prompt) // 4, 20 * len(steps)), flush=True)


if __name__ == "__main__":
    main()
