"""greeter NAME: says hello."""

import sys

import jinja2


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "world"
    print(jinja2.Template("Hello, {{ name }}!").render(name=name))
