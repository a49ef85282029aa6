"""Reads a POSIX shell script without running it: which commands root runs, on which paths.

It follows constants in variables, loops over words, functions and subshells. What it cannot know
(the output of commands, lines that are read) is an empty text. It is no shell: it is as exact as
the scripts of this tool need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_OPERATORS = ("<<", ";;", "&&", "||", ">>", "<>", "<&", ">&", ">|", "\n", *";&|()<>")
_SKIPPED = frozenset({"then", "else", "elif", "fi", "while", "until", "do", "done", "if", "!", "{"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Word:
    """A word as it is written."""

    text: str


@dataclass(frozen=True)
class Operator:
    text: str


Token = Word | Operator


@dataclass(frozen=True)
class Command:
    """A simple command: its words, the targets of its redirections, where root walked to, and the
    functions that the script has up to there."""

    words: tuple[str, ...]
    opened: tuple[str, ...]
    walked: str | None
    functions: frozenset[str] = frozenset()


@dataclass
class _State:
    values: dict[str, str] = field(default_factory=dict)
    functions: dict[str, tuple[Token, ...]] = field(default_factory=dict)
    walked: str | None = None

    def inner(self) -> _State:
        return _State(dict(self.values), dict(self.functions), self.walked)


def commands(script: str, known: Sequence[str] = ()) -> list[Command]:
    """Every simple command. The functions ``known`` are taken for commands."""
    found: list[Command] = []
    _run(tuple(_tokens(script)), _State(), found.append, frozenset(known), 0)
    return found


def _tokens(script: str) -> Iterator[Token]:
    at, documents = 0, []
    script = script.replace("\\\n", " ")
    while at < len(script):
        c = script[at]
        if c in " \t":
            at += 1
        elif c == "#" and (at == 0 or script[at - 1] in " \t\n;("):
            at = script.find("\n", at) if "\n" in script[at:] else len(script)
        elif (op := next((o for o in _OPERATORS if script.startswith(o, at)), None)) is not None:
            at += len(op)
            if op == "<<":
                end = _end_of_word(script, at := _blank(script, at))
                documents.append(script[at:end].strip("'\""))
                at = end
                continue
            yield Operator(op)
            if op == "\n":
                for document in documents:
                    end = script.find(f"\n{document}\n", at - 1)
                    at = len(script) if end < 0 else end + len(document) + 2
                documents = []
        else:
            end = _end_of_word(script, at)
            yield Word(script[at:end])
            at = end


def _blank(script: str, at: int) -> int:
    while script[at : at + 1] in (" ", "\t"):
        at += 1
    return at


def _end_of_word(script: str, at: int) -> int:
    while at < len(script) and script[at] not in " \t\n;&|()<>":
        at = _after(script, at)
    return at


def _after(script: str, at: int) -> int:
    """The position after the character, quoted text or expansion at ``at``."""
    c = script[at]
    if c == "\\":
        return at + 2
    if c == "'":
        return script.index("'", at + 1) + 1
    if c == '"':
        at += 1
        while script[at] != '"':
            at = _after(script, at) if script[at] in "\\$`" else at + 1
        return at + 1
    for begin, end in (("$(", ")"), ("${", "}")):
        if script.startswith(begin, at):
            depth = 0
            at += 2
            while depth or script[at] != end:
                depth += (script[at] == begin[1]) - (script[at] == end)
                at = _after(script, at) if script[at] in "\\'\"$" else at + 1
            return at + 1
    return at + 1


def _run(
    tokens: tuple[Token, ...],
    state: _State,
    note: Callable[[Command], None],
    known: frozenset[str],
    depth: int,
) -> None:
    """Note the commands of a list."""
    if depth > 40:
        raise RecursionError("a function of the script calls itself")

    def expand(text: str) -> str:
        return _expand(text, state, lambda body: _run_text(body, state.inner()))

    def _run_text(body: str, inner: _State) -> list[Command]:
        seen: list[Command] = []
        _run(tuple(_tokens(body)), inner, seen.append, known, depth + 1)
        for command in seen:
            note(command)
        return seen

    at = 0
    while at < len(tokens):
        token = tokens[at]
        if isinstance(token, Operator):
            if token.text == "(":
                end = _matching(tokens, at)
                _run(tokens[at + 1 : end], state.inner(), note, known, depth + 1)
                at = end
            elif token.text in (">", ">>", "<", "<>", ">|"):  # after a group
                target = tokens[at + 1]
                if target == Operator("<") and tokens[at + 2] == Operator("("):
                    end = _matching(tokens, at + 2)  # bash: the output of commands
                    _run(tokens[at + 3 : end], state.inner(), note, known, depth + 1)
                    at = end + 1
                    continue
                assert isinstance(target, Word)
                note(Command((), (expand(target.text),), state.walked))
                at += 1
            at += 1
            continue
        if token.text in _SKIPPED or token.text == "}":
            at += 1
            continue
        if token.text == "for":
            at = _loop(tokens, at, state, expand, note, known, depth)
            continue
        if token.text == "case":
            at = _case(tokens, at, expand)
            continue
        if token.text == "esac":
            at += 1
            continue
        if tokens[at + 1 : at + 3] == (Operator("("), Operator(")")):
            end = _body(tokens, at + 3)
            state.functions[token.text] = tokens[at + 3 : end]
            at = end
            continue
        at = _simple(tokens, at, state, expand, note, known, depth)


def _matching(tokens: Sequence[Token], at: int) -> int:
    """The position of the ``)`` of the ``(`` at ``at``. Patterns of ``case`` have a ``)`` alone."""
    depth, patterns = 0, 0
    for i in range(at, len(tokens)):
        token = tokens[i]
        if token == Word("case"):
            patterns += 1
        elif token == Word("esac"):
            patterns -= 1
        elif token == Operator("("):
            depth += 1
        elif token == Operator(")"):
            if patterns and depth and _is_pattern(tokens, i):
                continue
            depth -= 1
            if depth == 0:
                return i
    raise ValueError("a ( without its )")


def _is_pattern(tokens: Sequence[Token], at: int) -> bool:
    """Whether the ``)`` at ``at`` ends the patterns of a ``case``."""
    at -= 1
    while at >= 0 and (isinstance(tokens[at], Word) or tokens[at] == Operator("|")):
        if tokens[at] == Word("in") and at >= 2 and tokens[at - 2] == Word("case"):
            return True
        at -= 1
    while at >= 0 and tokens[at] == Operator("\n"):
        at -= 1
    if at < 0:
        return False
    return tokens[at] == Operator(";;") or (
        tokens[at] == Word("in") and tokens[at - 2] == Word("case")
    )


def _body(tokens: Sequence[Token], at: int) -> int:
    """The end of a function's body."""
    if tokens[at] == Operator("("):
        return _matching(tokens, at) + 1
    depth = 0
    for i in range(at, len(tokens)):
        depth += (tokens[i] == Word("{")) - (tokens[i] == Word("}"))
        if depth == 0:
            return i + 1
    raise ValueError("a function without an end")


def _until(tokens: Sequence[Token], at: int, begin: str, end: str) -> int:
    depth = 0
    for i in range(at, len(tokens)):
        depth += (tokens[i] == Word(begin)) - (tokens[i] == Word(end))
        if tokens[i] == Word(end) and depth == 0:
            return i
    raise ValueError(f"a {begin} without its {end}")


def _loop(
    tokens: tuple[Token, ...],
    at: int,
    state: _State,
    expand: Callable[[str], str],
    note: Callable[[Command], None],
    known: frozenset[str],
    depth: int,
) -> int:
    name = tokens[at + 1]
    assert isinstance(name, Word)
    do = next(i for i in range(at, len(tokens)) if tokens[i] == Word("do"))
    end = _until(tokens, do, "do", "done")
    given = [expand(t.text) for t in tokens[at + 3 : do] if isinstance(t, Word)]
    if tokens[at + 2] != Word("in"):
        given = [value for key, value in state.values.items() if key.isdigit()]
    for value in given or [""]:
        for one in value.split() or [""]:
            state.values[name.text] = one
            _run(tokens[do + 1 : end], state, note, known, depth + 1)
    return end + 1


def _case(tokens: Sequence[Token], at: int, expand: Callable[[str], str]) -> int:
    """Up to the first pattern's end; further patterns are words that no command has."""
    word = tokens[at + 1]
    assert isinstance(word, Word)
    expand(word.text)
    at += 3
    while tokens[at] != Operator(")"):
        at += 1
    return at + 1


def _simple(
    tokens: tuple[Token, ...],
    at: int,
    state: _State,
    expand: Callable[[str], str],
    note: Callable[[Command], None],
    known: frozenset[str],
    depth: int,
) -> int:
    words: list[str] = []
    opened: list[str] = []
    while at < len(tokens):
        token = tokens[at]
        if isinstance(token, Operator):
            if token.text in ("<&", ">&"):
                at += 2
                continue
            if token.text in (">", ">>", "<", "<>", ">|"):
                target = tokens[at + 1]
                if target == Operator("<") and tokens[at + 2] == Operator("("):
                    end = _matching(tokens, at + 2)  # bash: the output of commands
                    _run(tokens[at + 3 : end], state.inner(), note, known, depth + 1)
                    at = end + 1
                    continue
                assert isinstance(target, Word)
                opened.append(expand(target.text))
                at += 2
                continue
            if token.text == ")" and _is_pattern(tokens, at):
                words, opened = [], []  # these were the patterns of a case
                at += 1
                continue
            break
        if (
            not words
            and (m := _NAME.match(token.text))
            and token.text[m.end() : m.end() + 1] == "="
        ):
            state.values[m[0]] = expand(token.text[m.end() + 1 :])
        elif not (token.text.isdigit() and at + 1 < len(tokens) and _redirects(tokens[at + 1])):
            # Without quotes, a variable may be several words.
            value = expand(token.text)
            words += value.split() if token.text.startswith("$") else [value]
        at += 1
    if words and words[0] in ("eval", "."):
        opened += words[1:]
    if words and words[0] in state.functions and words[0] not in known:
        inner = state.inner()
        inner.values |= {str(n): value for n, value in enumerate(words[1:], 1)}
        body = state.functions[words[0]]
        _run(body, inner, note, known, depth + 1)
        if opened:
            note(Command((), tuple(opened), state.walked))
        return at
    if words[:1] == ["walk"]:
        state.walked = words[1]
    if words[:1] == ["set"] and words[1:2] in (["--"], ["--", ""]):
        state.values |= {str(n): value for n, value in enumerate(words[2:], 1)}
    if words or opened:
        note(Command(tuple(words), tuple(opened), state.walked, frozenset(state.functions)))
    return at


def _redirects(token: Token) -> bool:
    return isinstance(token, Operator) and token.text in ("<", ">", ">>", "<>", "<&", ">&", ">|")


def _expand(text: str, state: _State, run: Callable[[str], Sequence[Command]]) -> str:
    """The text of a word, with what is known of its variables."""
    result, at = "", 0
    while at < len(text):
        c = text[at]
        if c == "\\":
            result += text[at + 1 : at + 2]
            at += 2
        elif c == "'":
            end = text.index("'", at + 1)
            result += text[at + 1 : end]
            at = end + 1
        elif c == '"':
            end = _after(text, at)
            result += _expand_quoted(text[at + 1 : end - 1], state, run)
            at = end
        elif c == "$":
            value, at = _variable(text, at, state, run)
            result += value
        else:
            result += c
            at += 1
    return result


def _expand_quoted(text: str, state: _State, run: Callable[[str], Sequence[Command]]) -> str:
    result, at = "", 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] in '$"\\`':
            result += text[at + 1]
            at += 2
        elif text[at] == "$":
            value, at = _variable(text, at, state, run)
            result += value
        else:
            result += text[at]
            at += 1
    return result


def _variable(
    text: str, at: int, state: _State, run: Callable[[str], Sequence[Command]]
) -> tuple[str, int]:
    values: Mapping[str, str] = state.values
    if text.startswith("$((", at):
        return "1", _after(text, at)
    if text.startswith("$(", at):
        end = _after(text, at)
        seen = run(text[at + 2 : end - 1])
        made = seen and seen[-1].words[:1] == ("mktemp",)
        return (seen[-1].words[-1] if made else ""), end
    if text.startswith("${", at):
        end = _after(text, at)
        body = text[at + 2 : end - 1]
        m = _NAME.match(body) or re.match(r"[0-9@*#?!-]", body)
        value = values.get(m[0], "") if m else ""
        if m and body[m.end() :].startswith(("%/*", "%%/*")):
            value = value.rpartition("/")[0]
        return value, end
    if text.startswith(("$@", "$*"), at):
        return " ".join(v for k, v in sorted(values.items()) if k.isdigit()), at + 2
    m = _NAME.match(text, at + 1) or re.compile(r"[0-9#?!$-]").match(text, at + 1)
    if m is None:
        return "$", at + 1
    return values.get(m[0], ""), m.end()
