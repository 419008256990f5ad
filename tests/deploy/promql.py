"""Just enough of PromQL's text to change an expression on purpose, and to see what it is about."""

import re

# A label matcher's braces or a string, which are left alone, or a comparison.
_TOKEN = re.compile(r"""(?P<skip>\{(?:[^}"]|"(?:\\.|[^"\\])*")*\}|"(?:\\.|[^"\\])*")|(?P<compare>==|!=|>=|<=|>|<)""")


def without_filters(expression):
    """Every comparison gives 0 or 1 and drops nothing: what an alert looks at, whether it fires or not."""
    return _TOKEN.sub(lambda token: token[0] + (" bool" if token["compare"] else ""), expression)


def never(expression):
    return f"({expression}) and on () (vector(0) == 1)"


def metrics(expression):
    """Names of the series of Romulus in it, recorded ones included."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', expression)
    return set(re.findall(r"[a-z_]+:romulus_\w+(?::\w+)?|(?<![\w:])romulus_\w+", bare))
