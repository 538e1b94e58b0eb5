"""Knows the names that LeetCode's frame gives to every solution, and published call tests with it."""

from __future__ import annotations

import re
from functools import lru_cache

_MODULES = """
bisect collections copy datetime functools heapq io itertools json math operator random re statistics string
sys typing
"""
_FROM = {
    "typing": """
        Any Callable DefaultDict Deque Dict FrozenSet Generator Generic Hashable Iterable Iterator List
        Literal Mapping MutableMapping NamedTuple Optional Sequence Set Tuple Type TypeVar Union
    """,
    "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "bisect": "bisect_left bisect_right insort insort_left insort_right",
    "math": """
        acos asin atan atan2 ceil comb copysign cos degrees dist e exp fabs factorial floor fmod gcd hypot inf
        isclose isqrt lcm log log10 log1p log2 modf nan perm pi prod radians sin sqrt tan tau trunc
    """,
    "itertools": """
        accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse
        groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest
    """,
    "functools": "cache cached_property cmp_to_key lru_cache partial reduce total_ordering wraps",
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits punctuation",
    "operator": "add and_ attrgetter floordiv iconcat itemgetter mul neg or_ sub truediv xor",
    "sys": "maxsize setrecursionlimit stdin",
    "io": "StringIO",
    "datetime": "timedelta",
    "json": "dumps loads",
    "copy": "deepcopy",
    "random": "choice randint randrange shuffle",
    "statistics": "mean median mode pstdev stdev variance",
    "dataclasses": "dataclass field",
    "sortedcontainers": "SortedDict SortedList SortedSet",
}
_NODES = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next

class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""
IMPORTS = {name: f"import {name}" for name in _MODULES.split()} | {
    name: f"from {module} import {name}" for module, names in _FROM.items() for name in names.split()
}
"""The line that makes a name, by the name."""

_WORD = re.compile(r"[^\W\d]\w*")
_FUTURE = re.compile(r"^from __future__ import [^\n]*\n", re.MULTILINE)


@lru_cache(maxsize=64)
def framed(code: str, but: str = "") -> str:
    """Returns code behind what it uses of LeetCode's frame; its own definitions of those names win.

    `but` is a name that it must define itself: the function that is tested.
    """
    words = set(_WORD.findall(code)) - {but}
    lines = [
        f"try: {line}\nexcept ImportError: pass\n" if "sortedcontainers" in line else f"{line}\n"
        for name, line in IMPORTS.items()
        if name in words
    ]
    nodes = _NODES if words & {"ListNode", "TreeNode"} else ""
    first = max((found.end() for found in _FUTURE.finditer(code)), default=0)
    return f"{code[:first]}{''.join(lines)}{nodes}{code[first:]}"
