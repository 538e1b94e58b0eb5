"""Answers graded by rows such as IFEval's."""

from graders import Sample, build_grader, parse_grader

IFEVAL = {
    "type": "instructions",
    "name": "ifeval",
    "input": "{{sample.output_text}}",
    "instructions": "{{item.instruction_id_list}}",
    "kwargs": "{{item.kwargs}}",
}
ENGLISH = "This is a short answer that is written in plain English words."


def grade(answer, row, **changes):
    return build_grader(parse_grader(IFEVAL | changes)).grade(Sample(answer), row)
