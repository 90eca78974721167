#!/usr/bin/env python3
"""An EXAMPLE agent that speaks the Agent Client Protocol (version 1). It has no model: it does
what directives in the prompt say, one per line, and answers in words to everything else.

    say: TEXT                   answer with this text
    think: TEXT                 a thought
    wait: SECONDS               work slowly; a cancel ends it
    replace FILE: OLD => NEW    replace a text in a file of the worktree
    write FILE: TEXT            write a file (\\n is a line end)
    run: COMMAND                ask for permission, then run the command and show its output
    fail: TEXT                  end the turn with this error

It shows a plan with one entry per directive, tool calls with diffs, and made-up usage figures that
follow the length of the prompt. Only the standard library; python 3.8 or newer.
"""

import json
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
import time

DIRECTIVE = re.compile(r"^\s*(say|think|wait|replace|write|run|fail)\b ?([^:]*):\s*(.*)$")
PRICE_IN, PRICE_OUT = 3e-6, 15e-6


class Cancelled(Exception):
    """The client asked to stop."""


class Failed(Exception):
    """The turn ends with an error."""


class Agent:
    def __init__(self):
        self.messages = queue.Queue()
        self.cancelled = threading.Event()
        self.answers = {}
        self.answered = threading.Condition()
        self.session = None
        self.cwd = os.getcwd()
        self.cost = 0.0
        self.next_id = 0
        self.ended = False

    # The wire.

    def send(self, message):
        message["jsonrpc"] = "2.0"
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def update(self, update, **members):
        members["sessionUpdate"] = update
        params = {"sessionId": self.session, "update": members}
        self.send({"method": "session/update", "params": params})

    def read(self):
        """Runs beside the turn, so that a cancel is heard at once."""
        for line in sys.stdin:
            message = json.loads(line)
            if message.get("method") == "session/cancel":
                self.cancelled.set()
            if "method" in message:
                self.messages.put(message)
            else:
                with self.answered:
                    self.answers[message.get("id")] = message
            with self.answered:
                self.answered.notify_all()
        self.ended = True
        self.cancelled.set()
        self.messages.put(None)
        with self.answered:
            self.answered.notify_all()

    def request(self, method, params):
        self.next_id += 1
        own_id = self.next_id
        self.send({"id": own_id, "method": method, "params": params})
        with self.answered:
            self.answered.wait_for(lambda: own_id in self.answers or self.ended)
            return self.answers.pop(own_id, {}).get("result") or {}

    def serve(self):
        threading.Thread(target=self.read, daemon=True).start()
        while True:
            message = self.messages.get()
            if message is None:
                return
            if "id" not in message:
                continue
            try:
                answer = {"result": self.handle(message["method"], message.get("params") or {})}
            except Failed as error:
                answer = {"error": {"code": -32603, "message": str(error)}}
            except KeyError:
                answer = {"error": {"code": -32601, "message": "Method not found"}}
            self.send({"id": message["id"], **answer})

    def handle(self, method, params):
        return {
            "initialize": self.initialize,
            "session/new": self.new,
            "session/load": self.load,
            "session/prompt": self.prompt,
        }[method](params)

    # The protocol.

    def initialize(self, _params):
        return {
            "protocolVersion": 1,
            "agentInfo": {"name": "scripted-acp-agent", "version": "1.0.0"},
            "agentCapabilities": {"loadSession": True},
            "authMethods": [],
        }

    def new(self, params):
        self.session = "example-%d-%d" % (os.getpid(), int(time.time()))
        return self.load(dict(params, sessionId=self.session))

    def load(self, params):
        self.session = params["sessionId"]
        self.cwd = params["cwd"]
        answer = {"sessionId": self.session}
        answer["modes"] = {
            "currentModeId": "default",
            "availableModes": [{"id": "default", "name": "Does what the prompt says"}],
        }
        return answer

    def prompt(self, params):
        self.cancelled.clear()
        text = "".join(part.get("text", "") for part in params["prompt"])
        steps = [match.groups() for match in map(DIRECTIVE.match, text.splitlines()) if match]
        written = 0
        try:
            if not steps:
                self.say("I am an example without a model. I know the directives say, think, wait, "
                         "replace, write, run and fail, one per line, and found none of them.\n")
            for number, (verb, subject, rest) in enumerate(steps):
                self.plan(steps, number)
                written += len(rest)
                self.step(number, verb, subject.strip(), rest)
            self.plan(steps, len(steps))
        except Cancelled:
            return {"stopReason": "cancelled"}
        tokens_in, tokens_out = 200 + len(text) // 4, 50 + written // 4
        self.cost += tokens_in * PRICE_IN + tokens_out * PRICE_OUT
        self.update("usage_update", used=tokens_in + tokens_out, size=128000,
                    cost={"amount": round(self.cost, 8), "currency": "USD"})
        usage = {"inputTokens": tokens_in, "outputTokens": tokens_out,
                 "totalTokens": tokens_in + tokens_out}
        return {"stopReason": "end_turn", "usage": usage}

    # The work.

    def plan(self, steps, done):
        def status(number):
            return "completed" if number < done else "in_progress" if number == done else "pending"

        entries = [{"content": ("%s %s" % (verb, subject)).strip(), "priority": "medium",
                    "status": status(number)} for number, (verb, subject, _) in enumerate(steps)]
        if entries:
            self.update("plan", entries=entries)

    def step(self, number, verb, subject, rest):
        call = "call-%d" % (number + 1)
        if verb == "say":
            self.say(rest + "\n")
        elif verb == "think":
            self.update("agent_thought_chunk", content={"type": "text", "text": rest})
        elif verb == "wait":
            self.pause(float(rest or subject or 1))
        elif verb == "fail":
            raise Failed(rest)
        elif verb == "replace":
            old, _, new = rest.partition(" => ")
            path = self.inside(subject)
            before = self.content(path)
            if before is None or old not in before:
                raise Failed("%s does not hold %r" % (subject, old))
            self.edit(call, path, before, before.replace(old, new))
        elif verb == "write":
            path = self.inside(subject)
            self.edit(call, path, self.content(path), rest.replace("\\n", "\n"))
        elif verb == "run":
            self.run(call, rest)

    def say(self, text):
        for word in re.findall(r"\S*\s*", text):
            if word:
                self.update("agent_message_chunk", content={"type": "text", "text": word})
                self.pause(0.02)

    def pause(self, seconds):
        if self.cancelled.wait(seconds):
            raise Cancelled()

    def inside(self, name):
        path = os.path.realpath(os.path.join(self.cwd, name))
        if not path.startswith(os.path.realpath(self.cwd) + os.sep):
            raise Failed("%s is outside the worktree" % name)
        return path

    @staticmethod
    def content(path):
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def edit(self, call, path, before, after):
        diff = {"type": "diff", "path": path, "oldText": before, "newText": after}
        name = os.path.relpath(path, self.cwd)
        self.update("tool_call", toolCallId=call, title="Edit " + name, kind="edit",
                    status="in_progress", content=[diff], locations=[{"path": path}])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(after)
        self.update("tool_call_update", toolCallId=call, status="completed")

    def run(self, call, command):
        tool = {"toolCallId": call, "title": command, "kind": "execute",
                "rawInput": {"command": command}}
        self.update("tool_call", status="pending", **tool)
        answer = self.request("session/request_permission", {
            "sessionId": self.session,
            "toolCall": tool,
            "options": [
                {"optionId": "once", "kind": "allow_once", "name": "Run it"},
                {"optionId": "no", "kind": "reject_once", "name": "Do not run it"},
            ],
        })
        outcome = answer.get("outcome") or {}
        if outcome.get("outcome") != "selected":
            raise Cancelled()
        if outcome.get("optionId") != "once":
            self.update("tool_call_update", toolCallId=call, status="failed")
            self.say("I was not allowed to run `%s`.\n" % command)
            return
        self.update("tool_call_update", toolCallId=call, status="in_progress")
        child = subprocess.Popen(shlex.split(command), cwd=self.cwd, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = self.watch(child)
        status = "completed" if child.returncode == 0 else "failed"
        shown = {"type": "content", "content": {"type": "text", "text": output}}
        self.update("tool_call_update", toolCallId=call, status=status, content=[shown])
        self.say("`%s` ended with exit code %d.\n" % (command, child.returncode))

    def watch(self, child):
        while True:
            try:
                output, _ = child.communicate(timeout=0.1)
                return output.decode("utf-8", "replace")
            except subprocess.TimeoutExpired:
                if self.cancelled.is_set():
                    child.kill()
                    raise Cancelled() from None


if __name__ == "__main__":
    Agent().serve()
