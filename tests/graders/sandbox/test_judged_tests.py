# ruff: noqa: E501 - programs as they are
"""Tests that are judged where the answer is not: what honest answers get, and what cheating ones do not."""

import json
from pathlib import Path

import pytest

from graders import Sample, build_grader, parse_grader
from graders.preflight.trial import preflight
from tests.graders.code.test_code_tests import SPEC

CASES = Path(__file__).parents[4] / "shared/cases/graders"


@pytest.fixture(scope="module")
def value(services):
    grader = build_grader(parse_grader(SPEC | {"time_limit": 10.0}), services)

    def value(answer, tests):
        result = grader.grade(Sample(answer), {"tests": tests})
        assert result.failure is None, result.failure
        return result.value

    return value


@pytest.mark.parametrize("file", sorted(CASES.glob("code-*.json")), ids=lambda file: file.stem)
def test_the_handed_cases(services, file):
    for case in json.loads(file.read_bytes())["cases"]:
        grader = build_grader(parse_grader(case["grader"]), services)
        result = grader.grade(Sample(case["sample"]), case["item"])
        assert (result.value, result.failure) == (case["expected"], None), result.reason


HONEST = {
    "a-class-and-its-state": (
        "class Stack:\n    def __init__(s): s.x=[]\n    def push(s,v): s.x.append(v)\n    def pop(s): return s.x.pop()\n    def __len__(s): return len(s.x)\n    def is_empty(s): return not s.x\n",
        "s = Stack()\ns.push(1)\ns.push(2)\nassert len(s) == 2\nassert s.pop() == 2\nassert s.pop() == 1\nassert s.is_empty()\nassert not s\ntry:\n    s.pop()\n    assert False\nexcept IndexError:\n    pass",
    ),
    "an-attribute": (
        "class Stack:\n    def __init__(s): s.x=[]\n    def push(s,v): s.x.append(v)\n",
        "s = Stack()\nfor i in range(10): s.push(i)\nassert s.x == list(range(10))\nassert s.x[-1] == 9 and len(s.x) == 10",
    ),
    "a-list-sorted-in-place": (
        "def sort_in(a):\n    a.sort()\n",
        "x=[3,1,2]\nr = sort_in(x)\nassert r is None\nassert x == [1,2,3]",
    ),
    "a-generator": (
        "def g(n):\n    for i in range(n): yield i*i\n",
        "assert list(g(4)) == [0,1,4,9]\nassert sum(g(3)) == 5\nit = g(3)\nassert next(it) == 0\nassert next(it) == 1",
    ),
    "an-endless-generator": (
        "def fib():\n    a,b=0,1\n    while True:\n        yield a\n        a,b=b,a+b\n",
        "import itertools\nassert list(itertools.islice(fib(), 5)) == [0,1,1,2,3]",
    ),
    "functions-given-to-it": (
        "def ap(f,x): return f(x)\n",
        "assert ap(lambda v: v+1, 3) == 4\nassert ap(str, 3) == '3'",
    ),
    "an-exception": (
        "def bad(x):\n    if x<0: raise ValueError('neg')\n    return x\n",
        "try:\n    bad(-1)\nexcept ValueError as e:\n    assert str(e) == 'neg'\nelse:\n    assert False\nassert bad(2) == 2",
    ),
    "an-exception-of-its-own": (
        "class MyErr(Exception): pass\ndef bad(): raise MyErr('x')\n",
        "try:\n    bad()\n    assert False\nexcept MyErr:\n    pass",
    ),
    "a-counter": (
        "import collections\ndef cnt(s): return collections.Counter(s)\n",
        "from collections import Counter\nassert cnt('aab') == Counter('aab')\nassert cnt('aab').most_common(1) == [('a',2)]",
    ),
    "a-named-tuple": (
        "from collections import namedtuple\nP=namedtuple('P','x y')\ndef p(): return P(1,2)\n",
        "assert p() == (1,2)\nassert p().x == 1 and p().y == 2\nassert P(1,2) == p()",
    ),
    "a-dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x:int\n    y:int=0\ndef mk(a): return Point(a)\n",
        "assert mk(1) == Point(1)\nassert mk(1).x == 1\nassert mk(2) != Point(1)\nassert isinstance(mk(1), Point)\nassert str(mk(1)) == 'Point(x=1, y=0)'",
    ),
    "operators-of-its-own": (
        "class V:\n    def __init__(s,x,y): s.x,s.y=x,y\n    def __add__(s,o): return V(s.x+o.x,s.y+o.y)\n    def __mul__(s,k): return V(s.x*k,s.y*k)\n    def __eq__(s,o): return (s.x,s.y)==(o.x,o.y)\n    def __repr__(s): return f'V({s.x},{s.y})'\n",
        "assert V(1,2)+V(3,4) == V(4,6)\nassert repr(V(1,2)*2) == 'V(2,4)'\nassert (V(1,2)*3).x == 3",
    ),
    "a-closure": (
        "def add(n): return lambda x: x+n\n",
        "assert add(2)(3) == 5\nh = add(10)\nassert h(1) == 11",
    ),
    "there-and-back-at-random": (
        "def enc(s): return s[::-1]\ndef dec(s): return s[::-1]\n",
        "from random import randint, choice, seed\nimport string\nseed(3)\nfor _ in range(100):\n    s=''.join(choice(string.ascii_letters) for i in range(randint(1,20)))\n    assert dec(enc(s)) == s",
    ),
    "floats-near-zero": (
        "def poly(xs,x): return sum(c*x**i for i,c in enumerate(xs))\ndef find_zero(xs):\n    lo,hi=-1.0,1.0\n    while poly(xs,lo)*poly(xs,hi)>0: lo*=2;hi*=2\n    while hi-lo>1e-10:\n        m=(lo+hi)/2\n        if poly(xs,m)*poly(xs,lo)>0: lo=m\n        else: hi=m\n    return lo\n",
        "import math\nimport random\nrng = random.Random(42)\nimport copy\nfor _ in range(100):\n    ncoeff = 2 * rng.randint(1, 4)\n    coeffs = []\n    for _ in range(ncoeff):\n        coeff = rng.randint(-10, 10)\n        if coeff == 0:\n            coeff = 1\n        coeffs.append(coeff)\n    solution = find_zero(copy.deepcopy(coeffs))\n    assert math.fabs(poly(coeffs, solution)) < 1e-4",
    ),
    "arrays": (
        "import numpy as np\ndef m(a): return np.array(a)*2\n",
        "import numpy as np\nassert (m([1,2]) == np.array([2,4])).all()\nassert np.array_equal(m([[1]]), np.array([[2]]))\nassert m([1,2]).shape == (2,)\nassert np.allclose(m([0.5]), [1.0])",
    ),
    "every-kind-of-value": (
        "def f(x): return x\n",
        "assert f(1) == 1 and f(2) == 2 and f('a') == 'a' or False\nassert f([1,(2,)]) == [1,(2,)]\nassert f(None) is None\nassert f(True) is True\nassert f(1.5) == 1.5\nassert f({1,2}) == {2,1}\nassert f(b'x') == b'x'\nassert f({'a':{1:(2,)}}) == {'a':{1:(2,)}}\nassert f(1j) == 1j\nassert f(frozenset([1])) == {1}\nassert f(range(3)) == range(3)\nassert f('\\0') == '\\0'\nassert f('\\ud800') == '\\ud800'\nassert f(10**30) == 10**30",
    ),
    "a-loop-over-results": (
        "def guess(n): return n//2\n",
        "x = 1000\nsteps = 0\nwhile x > 1:\n    x = guess(x)\n    steps += 1\nassert steps == 9",
    ),
    "a-name-of-pythons-own": (
        "def sum(a,b): return a+b\n",
        "for i in range(3):\n    assert sum(i, 1) == i + 1",
    ),
    "a-linked-list": (
        "class Node:\n    def __init__(s,v,n=None): s.v,s.n=v,n\ndef build(xs):\n    h=None\n    for x in reversed(xs): h=Node(x,h)\n    return h\n",
        "h = build([1,2,3])\nout=[]\nwhile h is not None:\n    out.append(h.v)\n    h = h.n\nassert out == [1,2,3]",
    ),
    "leetcodes-frame": (
        "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n        d = defaultdict(int)\n        for i,x in enumerate(nums):\n            if target-x in d: return [d[target-x], i]\n            d[x]=i\n",
        "def check(candidate):\n    assert candidate(nums=[2,7], target=9) == [0,1]\n    assert candidate([3,3], 6) == [0,1]\ncheck(Solution().twoSum)",
    ),
    "keyword-arguments": (
        "def f(a, *b, k=1, **c): return (a,b,k,c)\n",
        "assert f(1) == (1,(),1,{})\nassert f(1,2,k=3,z=4) == (1,(2,),3,{'z':4})",
    ),
    "a-match": (
        "import re\ndef m(s): return re.match(r'(\\d+)', s)\n",
        "assert m('12a')\nassert m('12a').group(1) == '12'\nassert m('x') is None\nassert not m('x')",
    ),
    "captured-output": (
        "def p(x): print(x)\n",
        "import io\nfrom contextlib import redirect_stdout\nb=io.StringIO()\nwith redirect_stdout(b):\n    p('hi')\nassert b.getvalue() == 'hi\\n'",
    ),
    "patched-input": (
        "def p(): return input()\n",
        "from unittest.mock import patch\nwith patch('builtins.input', return_value='5'):\n    assert p() == '5'",
    ),
    "long-integers": (
        "def big(n): return 10**n\n",
        "assert big(5000) == 10**5000\nassert str(big(5000)) == '1'+'0'*5000",
    ),
    "long-results": (
        "def lots(n): return list(range(n))\n",
        "assert lots(5000) == list(range(5000))\nassert len(lots(100000)) == 100000",
    ),
    "an-enumeration": (
        "from enum import Enum\nclass C(Enum):\n    R=1\n    G=2\ndef c(): return C.R\n",
        "assert c() == C.R\nassert c().value == 1\nassert C.G != c()\nassert c() is not None",
    ),
    "a-container-of-its-own": (
        "def d(): return {'a':1}\n",
        "assert d()['a'] == 1\nassert d().get('b') is None\nassert 'a' in d()\nassert set(d()) == {'a'}\nassert d().keys() == {'a'}",
    ),
    "a-variable-of-the-module": (
        "def comp(f,g): return lambda x: f(g(x))\ndef inc(x): return x+1\n",
        "assert comp(inc,inc)(1) == 3\nassert list(map(inc,[1,2])) == [2,3]\nassert sorted([3,1], key=inc) == [1,3]\nassert list(filter(inc,[1])) == [1]",
    ),
    "composed-functions": (
        "def f(x): return x*2\n",
        "assert f(2) == 4, f'got {f(2)}'\nassert all(f(i) == 2*i for i in range(5))\nassert [f(i) for i in (1,2)] == [2,4]",
    ),
    "a-decorator-on-the-tests-function": (
        "def f(x): return float(x)\n",
        "assert isinstance(f(2), float)\nassert f(2) == 2\nassert type(f(2)) == float",
    ),
    "rows-changed-in-place": (
        "def inner(m):\n    m[0][0]=9\n",
        "m=[[1]]\nrow=m[0]\ninner(m)\nassert m[0][0] == 9\nassert row == [9]",
    ),
}
"""An answer, and a test that plain Python passes with it."""


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_answer_passes_as_in_plain_python(value, name):
    assert value(HONEST[name][0], [HONEST[name][1]]) == 1


@pytest.mark.parametrize(
    "name", ["a-class-and-its-state", "a-generator", "floats-near-zero", "there-and-back-at-random"]
)
def test_the_same_test_fails_an_answer_that_does_nothing(value, name):
    _, test = HONEST[name]
    names = ["Stack", "g", "poly", "find_zero", "enc", "dec"]
    assert value("\n".join(f"def {one}(*given): return None" for one in names), [test]) == 0


EQUAL_TO_ALL = """
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __hash__(self): return 0
    def __bool__(self): return True
    def __contains__(self, other): return True
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __sub__
    def __abs__(self): return 0
"""
RETURNS_IT = "\ndef f(*given): return Same()\n"
CHEATS = {
    **{
        base: f"class Same({base}):{EQUAL_TO_ALL}{RETURNS_IT}"
        for base in ("object", "int", "float", "str", "list", "dict", "tuple", "set")
    },
    "numbers": f"class Same:{EQUAL_TO_ALL}    def __float__(self): return 0.0\n    __round__ = __int__ = __index__ = lambda self, *more: 0\n{RETURNS_IT}",
    "anything": f"class Same:{EQUAL_TO_ALL}    def __getattr__(self, name): return self\n    def __call__(self, *given): return self\n    def __iter__(self): return iter([self, self])\n    def __len__(self): return 2\n    def __getitem__(self, key): return self\n{RETURNS_IT}",
    "claims-to-be-int": f"class Same:{EQUAL_TO_ALL}    __class__ = property(lambda self: int)\n{RETURNS_IT}",
    "class": f"class Kind(type):{EQUAL_TO_ALL}\nclass Same(metaclass=Kind): pass\ndef f(*given): return Same",
    "mock": "from unittest.mock import ANY\ndef f(*given): return ANY",
    "magic-mock": "from unittest.mock import MagicMock\ndef f(*given): return MagicMock()",
    "patched-builtins": f"import builtins, math\nbuiltins.all = builtins.any = builtins.isinstance = math.isclose = lambda *given, **more: True\nbuiltins.abs = builtins.round = lambda *given: 0\nclass Same:{EQUAL_TO_ALL}{RETURNS_IT}",
    "own-builtins": f"def all(*given): return True\nisinstance = isclose = all\ndef abs(*given): return 0\nround = abs\nclass Same:{EQUAL_TO_ALL}{RETURNS_IT}",
    "own-imports": f"from operator import truth as isclose\nimport operator as math\nclass Same:{EQUAL_TO_ALL}{RETURNS_IT}",
    "assertion-errors": "import builtins\nbuiltins.AssertionError = ValueError\ndef f(*given): raise ValueError",
    "leaves": "import sys\ndef f(*given): sys.exit(0)",
    "ends": "import os\ndef f(*given): os._exit(0)",
    "own-check": "def check(*given): pass\ndef f(*given): return None",
    "decorator": "def f(*given): return None\n@(lambda g: (lambda candidate: None))\n",
    "open-string": "def f(*given): return None\n'''",
    "open-bracket": "def f(*given): return None\nx = (",
    "open-block": "def f(*given): return None\nif False:\n",
    "continued-line": "def f(*given): return None\nx = lambda: \\\\\n",
    "suppresses": "import contextlib\ndef f(*given): return None\nwith contextlib.suppress(BaseException):\n",
    "changes-arguments": f"class Same:{EQUAL_TO_ALL}\ndef f(*given):\n    for one in given:\n        if isinstance(one, list): one[:] = [Same()]\n    return Same()",
    "writes-the-result": 'import os\ndef f(*given):\n    os.write(3, b\'{"ok": true, "v": "[[[\\\\"T\\\\"], []]]"}\\n\')\n    os._exit(0)',
}
VERDICT = json.dumps({"ok": True, "v": json.dumps(["passed"])}) + "\n"
CHEATS["forges-an-exception-that-runs"] = f"""
import json, os
EVIL = "(__import__('os').write(3, {VERDICT.encode()!r}), __import__('os')._exit(0))"
def f(*given):
    told = json.dumps([[["!", EVIL, "eval"], []]] * 4)
    os.write(3, json.dumps({{"ok": True, "v": told}}).encode() + bytes([10]))
    os._exit(0)
""".replace('EVIL = "', 'EVIL = r"""').replace('_exit(0))"', '_exit(0))"""')
TESTS = [
    "assert f(1) == 2",
    "assert f(1) == 2\nassert f(2) == 3",
    "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 3\ncheck(f)",
    "assert f(3) == sum([1, 3])",
    "def check(candidate):\n    for n in range(1, 5):\n        assert candidate(n) == n + 1\ncheck(f)",
    "assert not f(1) != 2 and f(1) == 2",
    "assert abs(f(1) - 2) < 1e-6",
    "assert 1 < f(1) < 3 and isinstance(f(1), int)",
    "assert f(1) in (2, 5)",
    "import math\nassert math.isclose(f(1), 2)",
    "assert math.isclose(f(1), 2)",
    "assert all([f(1) == 2, f(2) == 3]) == True",
    "assert (f(1) == 2) == True",
    "assert {2: 1}.get(f(1)) == 1",
    "assert len({f(1), 2}) == 1",
    "assert [f(1), (f(2),)] == [2, (3,)]",
    "if f(1) != 2:\n    raise AssertionError",
    "x = f(1)\nassert round(x, 3) == 2 and str(x) == '2'",
    "xs = [1]\nf(xs)\nassert xs == [2]",
]


ALWAYS = {
    "object",
    "int",
    "list",
    "anything",
    "patched-builtins",
    "own-builtins",
    "own-imports",
    "decorator",
} | {"forges-an-exception-that-runs"}
"""Cheats that are tried in the default suite; all others in the long one."""


@pytest.mark.parametrize(
    "cheat", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.long) for name in CHEATS]
)
def test_no_cheat_passes_any_test(value, cheat):
    assert value(CHEATS[cheat], TESTS) == 0


def test_an_honest_answer_passes_all_of_them(value):
    right = "import math\ndef f(n):\n    if isinstance(n, list):\n        n[0] += 1\n        return n\n    return n + 1"
    assert value(right, TESTS) == 1


def test_one_text_of_asserts_is_one_process_and_computed_ones_are_remembered(services, monkeypatch):
    grader = build_grader(parse_grader(SPEC), services)
    right = "def f(n): return n + 1"
    programs = []
    run = services.sandbox.run
    monkeypatch.setattr(services.sandbox, "run", lambda program: programs.append(program) or run(program))
    for test, first in ((TESTS[1], 1), (TESTS[2], 1), (TESTS[4], 3)):
        programs.clear()
        assert grader.grade(Sample(right), {"tests": [test]}).value == 1
        assert len(programs) == first
        assert grader.grade(Sample(right + "  # again"), {"tests": [test]}).value == 1
        assert len(programs) == first + 1


def test_no_expected_value_is_where_the_answer_is(services, monkeypatch):
    grader = build_grader(parse_grader(SPEC), services)
    programs = []
    run = services.sandbox.run
    monkeypatch.setattr(services.sandbox, "run", lambda program: programs.append(program) or run(program))
    tests = [
        "assert f(1) == 314159",
        "def check(c):\n    for n in (1, 2):\n        assert c(n) == 314159 * n\ncheck(f)",
    ]
    assert grader.grade(Sample("def f(n): return 314159 * n"), {"tests": tests}).value == 1
    beside = [program for program in programs if program.harness == "answer"]
    assert len(beside) == 2
    assert all("314159" not in json.dumps(list(program.arguments)) for program in beside)


def test_the_check_warns_of_tests_that_must_run_beside_the_answer(services):
    spec = parse_grader(SPEC)
    rows = [
        {"messages": [], "tests": ["assert f(1) == 2"]},
        {"messages": [], "tests": ["assert f(lambda x: x) == 1 + 1"]},
        {"messages": [], "tests": ["import sys\nassert f(2) == sys.maxsize"]},
        {"messages": [], "tests": ["assert f(1) == 1 + 1"]},
    ]
    report = preflight(spec, build_grader(spec, services), rows)
    [found] = [finding for finding in report.findings if finding.code == "tests_beside_the_answer"]
    assert (found.level, found.rows) == ("warn", (1, 2))
    assert (
        "assert f(lambda x: x) == 1 + 1: it gives the answer an object of the kind 'function'"
        in found.message
    )


def test_numbers_that_are_printed_may_differ_within_the_tolerance(services):
    def share(printed, expected, tolerance):
        grader = build_grader(parse_grader(SPEC | {"rel_tolerance": tolerance}), services)
        return grader.grade(
            Sample(f"print({printed!r})"), {"tests": [{"input": "", "output": expected}]}
        ).value

    assert share("0.333333", "0.333333333333", 1e-5) == 1
    assert share("0.34", "0.333333333333", 1e-5) == 0
    assert share("[0.5, 0.333333]", "[0.5, 0.333333333333]", 1e-5) == 1
    assert share("5.5e-17", "0.0", 1e-6) == 1
    assert share("12345678901234567891", "12345678901234567890", 1e-6) == 0
    assert share("007", "7", 1e-6) == 1
    assert share("a1", "a2", 1) == 0
