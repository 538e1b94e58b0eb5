"""`cherry chat`: talks with a model of the service, or with two side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.output import AsJson, CliError, console, errors, print_json
from app.cli.problems import explain
from app.cli.talk import Piece, Talk, safe_in_terminal

if TYPE_CHECKING:
    from openai import OpenAI

PROMPT = "> "
RESULT_PROMPT = "result> "
DIM, PLAIN = "\033[2m", "\033[0m"
"""What a terminal writes dimmed, and as ever."""
HELP = """\
/reset  forget what was said
/quit   leave; so does Ctrl-D
/help   show this
Ctrl-C  stop an answer"""


def chat(
    model: Annotated[str, typer.Argument(help="A base model, a tuned one or a checkpoint.")],
    against: Annotated[str | None, typer.Option(help="Another model to ask the same, side by side.")] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    tools: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A JSON file with a list of functions.")
    ] = None,
    once: Annotated[str | None, typer.Option(metavar="TEXT", help="Ask this and leave.")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Talk with a model. Out of a pipe each line is a question of one conversation, which a line /reset
    forgets; as JSON each answer is a line."""
    given = {
        "temperature": temperature,
        "max_completion_tokens": max_tokens,
        "tools": None if tools is None else _tools(tools),
    }
    options = {name: value for name, value in given.items() if value is not None}
    with open_client(url, key, data) as client:
        talks = [Talk(client, name, system, options) for name in (model, against) if name is not None]
        if once is not None:
            _answer(talks, once, as_json=as_json)
        elif sys.stdin.isatty() and console.is_terminal and not as_json:
            _converse(client, talks)
        else:
            for question in _commands(_lines(), talks):
                _answer(talks, question, as_json=as_json)


def _tools(file: Path) -> list[Any]:
    """Returns the functions that a model may call. Raises `CliError`."""
    try:
        found = json.loads(file.read_bytes())
    except ValueError as problem:
        raise CliError(f"{file} is no JSON: {problem}") from None
    if not isinstance(found, list):
        raise CliError(f"{file} must hold a list of tools, as chat completions have them")
    return found


def _converse(client: OpenAI, talks: Sequence[Talk]) -> None:
    """Talks with a person until they leave. A fault of the service ends an answer, and not the talk."""
    from openai import APIError

    for talk in talks:
        client.models.retrieve(talk.model)  # a name that is wrong is told at once
    console.print("/help shows the commands.", style="dim")
    for question in _commands(_typed(), talks):
        try:
            _answer_in_terminal(talks, question)
        except APIError as fault:
            errors.print(explain(fault), style="red", markup=False, soft_wrap=True)


def _commands(questions: Iterator[str], talks: Sequence[Talk]) -> Iterator[str]:
    """Yields the questions, and carries out the commands among them."""
    for question in questions:
        command = question.strip()
        if command == "/quit":
            return
        if command == "/reset":
            for talk in talks:
                talk.reset()
        elif command == "/help":
            console.print(HELP, markup=False)
        elif command.startswith("/") and command[1:].isalpha():
            errors.print(f"There is no command {command}.\n{HELP}", markup=False)
        elif command:
            yield question


def _typed() -> Iterator[str]:
    """Yields what a person types, line by line, until the end of input."""
    import readline  # noqa: F401  # lets input() edit its line, and remembers earlier ones

    while True:
        try:
            question = input(PROMPT)
            question.encode()  # in some locales bytes that are no UTF-8 come as surrogates
            yield question
        except KeyboardInterrupt:
            print()
        except UnicodeError:
            errors.print("This is no UTF-8, and was not asked.", style="red")
        except EOFError:
            print()
            return


def _lines() -> Iterator[str]:
    """Yields the lines of standard input. Raises `CliError` for one that is no UTF-8, whatever the locale."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise CliError(f"line {number} of the input is no UTF-8") from None


def _answer_in_terminal(talks: Sequence[Talk], question: str) -> None:
    if len(talks) > 1:
        from app.cli.side_by_side import answer_side_by_side

        is_whole = answer_side_by_side(talks, question, console)
    else:
        is_whole = _stream(talks[0].ask(question))
        while is_whole and (results := _results(talks[0])):
            is_whole = _stream(talks[0].give(results))
    if not is_whole:
        console.print("(stopped)", style="dim")


def _results(talk: Talk) -> list[str]:
    """Asks the person for the result of each call that the model has made; without calls there are none."""
    assert talk.answer is not None, "it was asked"
    results = []
    for call in talk.answer.tool_calls:
        function = call["function"]
        shown = safe_in_terminal(f"{function['name']}({function['arguments']})")
        console.print(shown, style="cyan", markup=False, highlight=False, soft_wrap=True)
        try:
            results.append(input(RESULT_PROMPT))
        except (EOFError, KeyboardInterrupt):
            print()
            return []
    return results


def _stream(answer: Generator[Piece, None, None]) -> bool:
    """Writes an answer as it comes, its thoughts dimmed. Returns whether it came to its end; Ctrl-C breaks it
    off."""
    try:
        with closing(answer) as pieces:
            _write(pieces)
    except KeyboardInterrupt:
        print()
        return False
    print()
    return True


def _answer(talks: Sequence[Talk], question: str, *, as_json: bool) -> None:
    """Writes the answers one after the other, each as it comes."""
    for number, talk in enumerate(talks):
        if as_json:
            print_json(_whole(talk, question))
            continue
        if len(talks) > 1:
            print(f"{talk.model}:")
        with closing(talk.ask(question)) as pieces:
            if console.is_terminal:
                _write(pieces)
            else:
                for piece in pieces:
                    print("" if piece.is_thought else piece.text, end="", flush=True)
        assert talk.answer is not None, "it was asked"
        calls = [call["function"] for call in talk.answer.tool_calls]
        print("\n".join(f"{call['name']}({call['arguments']})" for call in calls), end="")
        print("\n" if number < len(talks) - 1 else "", flush=True)


def _write(pieces: Iterable[Piece]) -> None:
    """Writes pieces to the terminal; between thoughts and answer begins a new line."""
    is_thinking = False
    for piece in pieces:
        if is_thinking and not piece.is_thought:
            print()
        is_thinking = piece.is_thought
        text = safe_in_terminal(piece.text)
        print(f"{DIM}{text}{PLAIN}" if is_thinking else text, end="", flush=True)


def _whole(talk: Talk, question: str) -> dict[str, Any]:
    for _ in talk.ask(question):
        pass
    assert talk.answer is not None, "it was asked"
    return talk.answer.told()
