"""The JSONL reader: what it accepts, what it refuses, and how it says so."""

import json
import tracemalloc
from pathlib import Path

import pytest

from methods.messages import text_of
from methods.rows import DatasetInvalid, missing_variables, read_rows

CALL = {"id": "1", "function": {"name": "f"}}
GOOD = {"messages": [{"role": "user", "content": "Hi"}], "answer": "x"}


def write(tmp_path: Path, *lines: bytes | str | dict) -> Path:
    path = tmp_path / "rows.jsonl"
    raw = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(raw))
    return path


def messages(*pairs: tuple[str, object]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_blank_lines_crlf_and_a_byte_order_mark_are_accepted_and_counted(tmp_path: Path) -> None:
    row = json.dumps(GOOD).encode()
    path = write(tmp_path, b"\xef\xbb\xbf" + row + b"\r", b"", b"   \r", row + b"\r", b"")
    assert [(r.line, r.item) for r in read_rows(path)] == [(1, GOOD), (4, GOOD)]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(messages(("system", "Be brief."), ("user", "Hi")), id="system"),
        pytest.param(messages(("developer", "Be brief."), ("user", "Hi")), id="developer"),
        pytest.param(messages(("user", "a"), ("assistant", "b"), ("user", "c")), id="several-turns"),
        pytest.param(messages(("user", [{"type": "text", "text": "Hi"}])), id="text-parts"),
        pytest.param(
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "content": "4", "tool_call_id": "1"},
                    {"role": "user", "content": "b"},
                ],
                "tools": [{"type": "function"}],
            },
            id="tool-call-without-content",
        ),
    ],
)
def test_these_rows_are_fine(tmp_path: Path, row: dict) -> None:
    assert read_rows(write(tmp_path, row))[0].item == row


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b'{"messages": "\xff"}', "invalid UTF-8", id="not-utf8"),
        pytest.param("{", "not valid JSON", id="not-json"),
        pytest.param('{"messages": [], "messages": []}', "duplicate key 'messages'", id="duplicate-key"),
        pytest.param('{"messages": NaN}', "NaN is not JSON", id="nan"),
        pytest.param('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "nested", id="deep"),
        pytest.param("[1]", "a row is a JSON object, not a list", id="list"),
        pytest.param("null", "a row is a JSON object, not null", id="null"),
        pytest.param({"answer": 1}, "'messages' is missing", id="no-messages"),
        pytest.param({"messages": []}, "at least one message", id="empty-messages"),
        pytest.param({"messages": ["Hi"]}, "messages[0] must be an object, not text", id="bare-text"),
        pytest.param({"messages": [{"content": "Hi"}]}, "messages[0] has no 'role'", id="no-role"),
        pytest.param(messages(("robot", "Hi")), "messages[0].role is 'robot'", id="bad-role"),
        pytest.param(messages((["user"], "Hi")), "messages[0].role is ['user']", id="role-list"),
        pytest.param({"messages": [{"role": "user"}]}, "messages[0] has no 'content'", id="no-content"),
        pytest.param(messages(("user", 5)), "content must be text, not a number", id="number"),
        pytest.param(messages(("user", [])), "messages[0].content is empty", id="no-parts"),
        pytest.param(
            messages(("user", [{"type": "image_url", "image_url": {"url": "data:,"}}])),
            "messages[0].content holds an image; only text is supported",
            id="image",
        ),
        pytest.param(messages(("user", [{"type": "file"}])), "a part that is not text", id="file-part"),
        pytest.param(
            messages(("user", "a"), ("assistant", "b")), "the last message is from the assistant", id="answer"
        ),
        pytest.param(messages(("system", "a")), "must be from the user, not 'system'", id="system-last"),
        pytest.param({**GOOD, "tools": "all"}, "'tools' must be a list of objects", id="tools"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: bytes | str | dict, reason: str) -> None:
    with pytest.raises(DatasetInvalid) as caught:
        read_rows(write(tmp_path, GOOD, "", line, GOOD))
    (fault,) = caught.value.faults
    assert fault.line == 3
    assert reason in fault.reason
    assert str(caught.value).startswith("line 3: ")


def test_a_fault_of_many_lines_is_told_once_with_all_of_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid) as caught:
        read_rows(write(tmp_path, *["{"] * 30, GOOD, "{", "[]"))
    first, second = str(caught.value).splitlines()
    assert first.startswith("lines 1-30, 32 (31 of 33 rows): not valid JSON")
    assert second == "line 33: a row is a JSON object, not a list"


def test_reading_stops_at_twenty_different_faults(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid) as caught:
        read_rows(write(tmp_path, *[messages((f"role{i}", "x")) for i in range(30)]))
    assert [fault.line for fault in caught.value.faults] == list(range(1, 21))


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="no rows"):
        read_rows(write(tmp_path, "", "  "))


def test_limits_on_lines_rows_and_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, {**GOOD, "long": "x" * 200}, GOOD)
    with pytest.raises(DatasetInvalid, match="line 2: longer than 100 bytes"):
        read_rows(path, max_line_bytes=100)
    with pytest.raises(DatasetInvalid, match="line 3: more than 2 rows"):
        read_rows(path, max_rows=2)
    with pytest.raises(DatasetInvalid, match="larger than 150 bytes"):
        read_rows(path, max_file_bytes=150)
    assert len(read_rows(path, max_rows=3, max_file_bytes=path.stat().st_size)) == 3


def test_a_line_as_long_as_the_limit_is_read_across_chunks(tmp_path: Path) -> None:
    row = json.dumps({**GOOD, "long": "x" * 150_000})
    assert read_rows(write(tmp_path, row, row), max_line_bytes=len(row))[1].line == 2
    with pytest.raises(DatasetInvalid, match=r"lines 1-2 .*: longer"):
        read_rows(write(tmp_path, row, row), max_line_bytes=len(row) - 1)


def test_an_endless_line_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    tracemalloc.start()
    with pytest.raises(DatasetInvalid, match="line 1: longer"):
        read_rows(path, max_line_bytes=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_rows_that_lack_a_grader_variable_are_named(tmp_path: Path) -> None:
    class Needs:
        def __init__(self, key: str) -> None:
            self.key = key

        def is_in(self, item: object) -> bool:
            return self.key in item

        def __str__(self) -> str:
            return f"item.{self.key}"

    rows = read_rows(write(tmp_path, GOOD, messages(("user", "no answer here"))))
    assert list(missing_variables(rows, [Needs("answer")])) == [
        "1 of 2 rows lacks 'item.answer', which the grader reads: line 2"
    ]
    assert list(missing_variables(rows, [Needs("messages")])) == []
    (sentence,) = missing_variables(rows * 150, [Needs("reference_answer")])
    assert sentence.startswith(
        "300 of 300 rows lack 'item.reference_answer', which the grader reads: lines 1"
    )


def test_text_parts_are_joined() -> None:
    assert text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]) == "ab"
    assert text_of(None) == ""


WHOLE_FILES = {
    "csv": (
        b"prompt,answer\nWhat is 2+2?,4\n",
        "the file looks like CSV (its first line is 'prompt,answer')",
    ),
    "csv-quoted": (b'\xef\xbb\xbf"prompt","answer"\r\n"a","b"\r\n', "looks like CSV"),
    "csv-semicolons": (b"prompt;answer\na;b\n", "looks like CSV"),
    "tsv": (b"prompt\tanswer\na\tb\n", "looks like tab-separated"),
    "csv-long": (b"x" * 200 + b",y\n", "xxx...')"),
    "array": (b'[{"messages": []}, {"messages": []}]', "the file is one JSON array"),
    "array-lines": (b'[\n{"messages": []},\n{"messages": []}\n]', "the file is one JSON array"),
    "pretty": (b'{\n  "messages": [\n  ]\n}\n', "a row is spread over several lines"),
    "pretty-open": (b'{"messages": [\n {"role": "user"}]}\n', "a row is spread over several lines"),
    "excel": (b"PK\x03\x04" + bytes(100), "the file is a ZIP archive or an Excel workbook"),
    "parquet": (b"PAR1" + bytes(100), "the file is a Parquet file"),
    "gzip": (b"\x1f\x8b" + bytes(100), "compressed with gzip"),
    "utf-16": ('{"messages": []}'.encode("utf-16"), "the file is text in UTF-16"),
}


@pytest.mark.parametrize(("content", "said"), WHOLE_FILES.values(), ids=WHOLE_FILES)
def test_a_file_that_is_no_jsonl_is_told_once_by_what_it_is(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DatasetInvalid) as caught:
        read_rows(path)
    (line,) = str(caught.value).splitlines()
    assert said in line
    assert "a data file is JSONL: one JSON object on each line" in line


@pytest.mark.parametrize(
    "first", ['"messages": [1, 2]}', "# a note, and more", "{a, b}", "<a, b>", "nonsense"]
)
def test_a_first_line_with_a_fault_is_that_and_no_other_kind_of_file(tmp_path: Path, first: str) -> None:
    with pytest.raises(DatasetInvalid) as caught:
        read_rows(write(tmp_path, first, GOOD))
    assert str(caught.value).startswith("line 1: not valid JSON")


def test_rows_of_another_method_are_told_once_with_the_method(tmp_path: Path) -> None:
    chat = messages(("user", "a"), ("assistant", "b"))
    with pytest.raises(DatasetInvalid) as caught:
        read_rows(write(tmp_path, *[chat] * 12))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("lines 1-12 (12 of 12 rows): the last message is from the assistant")
    assert "as in rows for the method 'supervised'" in line
    pair = {"input": {}, "preferred_output": [], "non_preferred_output": []}
    with pytest.raises(DatasetInvalid, match="is for the method 'dpo'"):
        read_rows(write(tmp_path, pair))
    with pytest.raises(DatasetInvalid, match=r"write .* as 'messages'"):
        read_rows(write(tmp_path, {"prompt": "a", "answer": "b"}))
