"""As much of Helm's templates as the chart in infra/ uses. What is not known here is an error, never passed over."""

import hashlib
import json
import re


class Unknown(Exception):
    pass


ACTION = re.compile(r"(?s)(?:\s*\{\{-|\{\{)\s*((?:\"[^\"]*\"|[^\"])*?)\s*(?:-\}\}\s*|\}\})")
WORD = re.compile(r'\s*(?:(:=|[()|,])|("[^"]*")|(\d+)|(\$?\w*(?:\.\w+)*\.?))')


def parse(text, templates):
    """A tree of the text: strings, and tuples of a keyword, an expression and what is between it and its end."""
    tokens, at = [], 0
    for match in ACTION.finditer(text):
        tokens += [("text", text[at : match.start()]), ("action", match[1])]
        at = match.end()
    return block([*tokens, ("text", text[at:])][::-1], templates, False)[0]


def block(tokens, templates, inside):
    """Nodes up to the word that ends them, and that word."""
    nodes = []
    while tokens:
        kind, text = tokens.pop()
        word, _, rest = text.partition(" ")
        if kind == "text":
            nodes.append(text)
        elif word == "define":
            templates[json.loads(rest)], _ = block(tokens, templates, True)
        elif word in ("if", "range"):
            nodes.append(branch(word, rest, tokens, templates))
        elif word in ("else", "end"):
            return (nodes, text) if inside else fail(f"{text} of nothing")
        else:
            nodes.append(("put", text, [], []))
    return fail("an end is missing") if inside else (nodes, "end")


def branch(word, rest, tokens, templates):
    body, end = block(tokens, templates, True)
    other = []
    if end == "else":
        other, _ = block(tokens, templates, True)
    elif end != "end":
        # The inner one's end is that of both.
        other = [branch("if", end.removeprefix("else if "), tokens, templates)]
    return word, rest, body, other


def render(nodes, names, templates):
    return "".join(node if isinstance(node, str) else action(*node, names, templates) for node in nodes)


def action(word, text, body, other, names, templates):
    assigned = re.fullmatch(r"((?:\$\w+, )?\$\w+) := (.*)", text, re.S)
    value = evaluate(assigned[2] if assigned else text, names, templates)
    if word == "if":
        return render(body if value else other, names, templates)
    if word == "range":
        variables = assigned[1].split(", ")
        items = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value))
        inner = ({**names, **dict(zip(variables[::-1], (each, key)))} for key, each in items)
        return "".join(render(body, each, templates) for each in inner)
    if assigned:
        names[assigned[1]] = value
        return ""
    if value is None or isinstance(value, (dict, list)):
        raise Unknown(f"{text} is {value}")
    return show(value)


def show(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def evaluate(text, names, templates):
    words = [match.group(0).strip() for match in WORD.finditer(text) if match.group(0).strip()]
    if "".join(words) != re.sub(r"\s+(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", "", text):
        raise Unknown(f"can't read {text}")
    words.reverse()
    value = pipeline(words, names, templates)
    if words:
        raise Unknown(f"can't read {text}")
    return value


def pipeline(words, names, templates):
    value = call(words, names, templates, [])
    while words and words[-1] == "|":
        words.pop()
        value = call(words, names, templates, [value])
    return value


def call(words, names, templates, piped):
    function, arguments = None, []
    while words and words[-1] not in ("|", ")"):
        word = words.pop()
        if word == "(":
            arguments.append(pipeline(words, names, templates))
            words.pop()
        elif word[0] == '"' or word.isdigit() or word in ("true", "false"):
            arguments.append(json.loads(word))
        elif word[0] in ".$":
            arguments.append(value_of(word, names))
        elif function or arguments:
            raise Unknown(f"can't read {word}")
        else:
            function = word
    arguments += piped
    if function == "include":
        return render(templates[arguments[0]], {".": arguments[1], "$": arguments[1]}, templates)
    if function:
        return FUNCTIONS[function](*arguments) if function in FUNCTIONS else fail(f"no function {function} here")
    return arguments[0] if len(arguments) == 1 else fail("not a call")


def fail(what):
    raise Unknown(what)


def value_of(path, names):
    begin, *keys = path.split(".")
    value = names[begin or "."]
    for key in filter(None, keys):
        value = value.get(key) if isinstance(value, dict) else fail(f"{path}: nothing has a {key}")
    return value


def indent(count, text):
    return "\n".join(" " * count + line for line in text.split("\n"))


FUNCTIONS = {
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "dict": lambda *pairs: dict(zip(pairs[::2], pairs[1::2])),
    "eq": lambda left, right: left == right,
    "indent": indent,
    "index": lambda value, *keys: index(value, keys),
    "int": int,
    "list": lambda *values: list(values),
    "ne": lambda left, right: left != right,
    "nindent": lambda count, text: "\n" + indent(count, text),
    "not": lambda value: not value,
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "quote": lambda value: json.dumps(show(value)),
    "required": lambda why, value: value if value is not None else fail(why),
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "ternary": lambda yes, no, which: yes if which else no,
    "toJson": lambda value: json.dumps(value, sort_keys=True, separators=(",", ":")),
    "until": lambda count: list(range(count)),
}


def index(value, keys):
    for key in keys:
        value = value.get(key)
    return value
