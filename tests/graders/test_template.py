import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders.template import MAX_RENDERED, Template, Variable, check_braces
from graders.types import FailureKind, GradeFailed, GraderInvalid, Sample
from tests.properties import examples

ITEM = {
    "answer": "42",
    "a": {"b": [{"c": 1.5}, None, True], "d-e": "dash", "é": "accent"},
    "first name": "Ada",
    "list": [1, 2],
    "0": "zero",
}


def render(text, output="out", item=ITEM, **sample):
    return Template.parse(text).render(Sample(output, **sample), item)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("{{item.answer}}", "42", id="full-string"),
        pytest.param("{{ item.answer }}", "42", id="spaces"),
        pytest.param("{{\titem.answer\n}}", "42", id="other-white-space"),
        pytest.param("is {{item.answer}}, {{sample.output_text}}!", "is 42, out!", id="embedded"),
        pytest.param("{{item.a.b[0].c}}", "1.5", id="index-and-keys"),
        pytest.param("{{item.a.b}}", '[{"c":1.5},null,true]', id="array-as-compact-json"),
        pytest.param("{{item.a.b[1]}}/{{item.a.b[2]}}", "null/true", id="null-and-true"),
        pytest.param("{{item.a.d-e}}{{item.a.é}}", "dashaccent", id="dash-and-accent-in-keys"),
        pytest.param("{{item['first name']}}{{item[\"first name\"]}}", "AdaAda", id="quoted-keys"),
        pytest.param("{{item.0}}", "zero", id="digit-key"),
        pytest.param("no variables } } {", "no variables } } {", id="plain"),
        pytest.param('{"x": {{item.answer}}}', '{"x": 42}', id="inside-json"),
        pytest.param("{{{item.answer}}}", "{42}", id="triple-braces"),
        pytest.param("a }} b", "a }} b", id="closing-braces-alone"),
        pytest.param("", "", id="empty"),
        pytest.param("{{sample.choices[0].message.content}}", "out", id="choices"),
        pytest.param("{{sample.choices[0].finish_reason}}", "stop", id="finish-reason"),
    ],
)
def test_render(text, expected):
    assert render(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{7*7}}", "{{}}", "{{ }}", "{{item}}", "{{sample}}", "{{item.}}", "{{item..a}}", "{{item.a b}}",
        "{{item.a[-1]}}", "{{item.a[x]}}", "{{item.a[]}}", "{{item[0]}}", "{{item.a()}}",
        "{{item.a|upper}}",
        "{{item.a!r}}", "{{item.a:>10}}", "{{secrets.key}}", "{{sample.nope}}",
        "{{sample.__class__}}", "{{ITEM.a}}", "{{item.a", "{{item.a}", "{{ {{item.a}} }}", "{{'item.a'}}",
        "{{item.a" + ".b" * 40 + "}}", "{{item.a;import os}}", "{{range.constructor('return 1')()}}",
        "{{config.items()}}", "{%if 1%}{{item.a{%endif%}", "{{item.a\0}}",
    ],
)  # fmt: skip
def test_refused_when_built(text):
    with pytest.raises(GraderInvalid):
        Template.parse(text)


@pytest.mark.parametrize(
    "path", ["item.nope", "item.a.nope", "item.a.b[3]", "item.answer.x", "item.answer[0]", "item.list.0",
             "item.__class__", "item.a.__init__.__globals__", "item.list.append", "sample.choices[1]",
             "sample.choices[0].message.nope", "item.a[0]", "sample.output_text.x",
             "sample.output_audio", "sample.output_audio.transcript"]
)  # fmt: skip
def test_absent_variable_is_named(path):
    with pytest.raises(GradeFailed) as caught:
        render(f"{{{{{path}}}}}")
    assert caught.value.failure.kind is FailureKind.INVALID_VARIABLE
    assert path in caught.value.failure.message


@pytest.mark.parametrize(
    ("output", "path"),
    [
        pytest.param("not json", "sample.output_json.x", id="not-json"),
        pytest.param("```json\n{}\n```", "sample.output_json", id="fenced"),
        pytest.param('Sure! {"x": 1}', "sample.output_json.x", id="chatty"),
        pytest.param('{"x": 1} done', "sample.output_json.x", id="trailing-text"),
        pytest.param('{"x": 1, "x": 2}', "sample.output_json.x", id="duplicate-key"),
        pytest.param('{"x": 1}', "sample.output_json.y", id="key-left-out-by-the-answer"),
        pytest.param("[1]", "sample.output_json.x", id="array-where-an-object-is-needed"),
        pytest.param("", "sample.output_json", id="empty"),
        pytest.param("{}", "sample.output_tools[0].function.name", id="no-tool-call"),
    ],
)
def test_what_the_completion_lacks_is_a_sample_parse_error(output, path):
    with pytest.raises(GradeFailed) as caught:
        render(f"{{{{{path}}}}}", output)
    assert caught.value.failure.kind is FailureKind.SAMPLE_PARSE


def test_output_json_is_the_whole_stripped_text():
    assert render("{{sample.output_json.x[1]}}", ' \n{"x": [1, "two"]}\n ') == "two"


def test_output_tools_have_the_chat_shape():
    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    assert render("{{sample.output_tools[0].function.name}}", output_tools=[call]) == "add"


def test_output_audio_has_data_and_transcript():
    audio = {"data": "UklGRg==", "transcript": "hello"}
    assert render("{{sample.output_audio.transcript}}", output_audio=audio) == "hello"


INJECTIONS = [
    "{{item.answer}}", "{{{{item.answer}}}}", "{{{item.answer}}}", "{{sample.output_text}}",
    "}}{{item.answer",
    "{{ item.answer }}", "{item.answer}",
    "${item.answer}", "{0}", "{!r}", "{:>10}", "%s %(answer)s %%",
    "{% raw %}", "{# note #}", r"\{{item.answer}}", "{{", "}}", "{", "}",
    r"\u007b\u007bitem.answer\u007d\u007d",
]  # fmt: skip


@pytest.mark.parametrize("answer", INJECTIONS)
def test_an_answer_that_looks_like_a_template_is_text(answer):
    assert render("<{{sample.output_text}}|{{item.answer}}>", answer) == f"<{answer}|42>"
    quoted = json.dumps({"x": answer})
    assert render("{{sample.output_json.x}}", quoted) == answer
    assert render("{{sample.choices[0].message.content}}", answer) == answer


def test_values_are_data_and_never_templates():
    assert render("{{sample.output_text}}", "{{item.answer}} {7*7} %s {0}") == "{{item.answer}} {7*7} %s {0}"
    assert render("{{item.x}}", item={"x": "{{sample.output_text}}"}) == "{{sample.output_text}}"


def test_rendered_text_has_a_size_limit():
    assert len(render("{{sample.output_text}}", "x" * MAX_RENDERED)) == MAX_RENDERED
    with pytest.raises(GradeFailed) as caught:
        render("{{sample.output_text}}!", "x" * MAX_RENDERED)
    assert caught.value.failure.kind is FailureKind.OTHER


def test_single_variable_keeps_its_type():
    assert Template.parse("{{item.a}}").value(Sample(""), ITEM) is ITEM["a"]
    assert Template.parse(" {{item.a.b}}").value(Sample(""), ITEM) == ' [{"c":1.5},null,true]'


def test_variables_are_listed_in_a_canonical_form():
    template = Template.parse("{{ item['a'].b[0] }} {{item['first name']}} {{sample.output_text}}")
    assert [str(variable) for variable in template.variables] == [
        "item.a.b[0]", 'item["first name"]', "sample.output_text"
    ]  # fmt: skip
    assert all(Variable.parse(str(variable)) == variable for variable in template.variables)


def test_is_in_tells_which_rows_have_a_path():
    assert Variable.parse("item.a.b[2]").is_in(ITEM)
    assert not Variable.parse("item.a.b[3]").is_in(ITEM)
    assert Variable.parse("item.a.b[1]").is_in(ITEM)  # null is a value


@examples(400)
@given(
    st.lists(
        st.sampled_from(["{{", "}}", "{", "}", "item", "sample", ".", "output_text", "output_json", "[0]",
                         "['a']", "__class__", "a", "7*7", " ", "|", "(", "\0", "é", "{%", "%}", "!r", ":"])
        | st.text(max_size=3),
        max_size=12,
    ).map("".join)
)  # fmt: skip
def test_any_template_renders_or_fails_by_name(text):
    with suppress(GraderInvalid, GradeFailed):
        Template.parse(text).render(Sample("{{item.a}}"), {"a": {"a": [1]}})


@pytest.mark.parametrize(
    ("text", "found", "right"),
    [
        ("{item.answer}", "{item.answer}", "{{item.answer}}"),
        ("Is it ${sample.output_text}?", "{sample.output_text}", "{{sample.output_text}}"),
        ("{{item.a}} and { item.b[0] }", "{ item.b[0] }", "{{item.b[0]}}"),
    ],
)
def test_a_variable_in_single_braces_is_refused_by_its_name(text, found, right):
    with pytest.raises(GraderInvalid) as caught:
        check_braces(text)
    assert f"'{found}' has single braces" in caught.value.message
    assert caught.value.message.endswith(f"{right}.")


@pytest.mark.parametrize(
    "text", ["{0}", "{items}", "{item}", '{"item": {"x": 1}}', "{item.a, b}", "{a sample}", ""]
)
def test_other_braces_are_text(text):
    check_braces(text)
