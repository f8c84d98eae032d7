"""The shell lexer: the behaviours of BuildKit's tables (input, expected), and that no text makes it fail otherwise."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildengine.errors import ParseError
from frontends.dockerfile.words import DEEPEST, LARGEST, Lexer, quote

ENV = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}
ERROR = None

_Cases = list[tuple[str, str | None]]

QUOTING: _Cases = [
    ("hello", "hello"),
    ("he'll'o", "hello"),
    ("he'llo", ERROR),
    (r"he\'llo", "he'llo"),
    (r"he\\'llo", ERROR),
    (r"abc\tdef", "abctdef"),
    (r'"abc\tdef"', r"abc\tdef"),
    (r'"abc\\tdef"', r"abc\tdef"),
    (r"'abc\tdef'", r"abc\tdef"),
    ("hello\\", "hello"),
    (r"hello\\", "hello\\"),
    ('"hello', ERROR),
    (r'"hello\"', ERROR),
    ('"hel\'lo"', "hel'lo"),
    ("'hello", ERROR),
    (r"'hello\'", "hello\\"),
    (r"'hello\there'", r"hello\there"),
    (r"'hello\\there'", r"hello\\there"),
    ("\"''\"", "''"),
    ("'\"hello\"'", '"hello"'),
    ("안녕하세요", "안녕하세요"),
    (r"안\\'녕하세요", ERROR),
    (r"안녕\t하세요", "안녕t하세요"),
    (r'"안녕\t하세요"', r"안녕\t하세요"),
    (r"'안녕\t하세요", ERROR),
    ("안녕하세요\\", "안녕하세요"),
    (r"안녕하세요\\", "안녕하세요\\"),
    ('"안녕하세요', ERROR),
    ("'안녕하세요", ERROR),
    ("'\"안녕\"'", '"안녕"'),
    (r'"안녕하세요\"', ERROR),
    (r"'안녕하세요\'", "안녕하세요\\"),
    ("안'녕'하세요", "안녕하세요"),
    ("안'녕하세요", ERROR),
    (r"안녕\'하세요", "안녕'하세요"),
    ('"안녕\'하세요"', "안녕'하세요"),
]

VARIABLES: _Cases = [
    ("$.", "$."),
    ("he$1x", "hex"),
    ("he$.x", "he$.x"),
    ("he$pwd.", "he."),
    ("he$PWD", "he/home"),
    (r"he\$PWD", "he$PWD"),
    (r"he\\$PWD", r"he\/home"),
    (r'"he\$PWD"', "he$PWD"),
    (r'"he\\$PWD"', r"he\/home"),
    (r"'he\$PWD'", r"he\$PWD"),
    (r"'\$PWD'", r"\$PWD"),
    (r"\${}", "${}"),
    (r"\${}aaa", "${}aaa"),
    (r"he\${}", "he${}"),
    (r"he\${}xx", "he${}xx"),
    ("${}", ERROR),
    ("${}aaa", ERROR),
    ("he${}", ERROR),
    ("he${}xx", ERROR),
    ("he${hi}", "he"),
    ("he${hi}xx", "hexx"),
    ("he${PWD}", "he/home"),
    ("he${.}", ERROR),
    ("he${PWD", ERROR),
    ("'he${XX}'", "he${XX}"),
    ('"he${PWD}"', "he/home"),
    ("\"he'$PWD'\"", "he'/home'"),
    ('"$PWD"', "/home"),
    ("'$PWD'", "$PWD"),
    ("$KOREAN", "한국어"),
    ("안녕$KOREAN", "안녕한국어"),
    ("${{aaa}", ERROR),
    ("${aaa}}", "}"),
    ("${aaa", ERROR),
    ("${", ERROR),
    ("${:}", ERROR),
    ("${:-bbb}", ERROR),
    ("${:+bbb}", ERROR),
    ("$@@@", "@@"),
]

MODIFIERS: _Cases = [
    ("he${XXX:-000}xx", "he000xx"),
    ("he${PWD:-000}xx", "he/homexx"),
    ("he${XXX:-$PWD}xx", "he/homexx"),
    ("he${XXX:-${PWD:-yyy}}xx", "he/homexx"),
    ("he${XXX:-${YYY:-yyy}}xx", "heyyyxx"),
    ("he${XXX:YYY}", ERROR),
    ("he${XXX?}", ERROR),
    ("he${XXX:?}", ERROR),
    ("he${PWD?}", "he/home"),
    ("he${PWD:?}", "he/home"),
    ("he${NULL?}", "he"),
    ("he${NULL:?}", ERROR),
    ("${NULL-x}${NULL:-x}", "x"),
    ("${NULL+x}${NULL:+x}", "x"),
    ("he${XXX:+${PWD}}xx", "hexx"),
    ("he${PWD:+${XXX}}xx", "hexx"),
    ("he${PWD:+${SHELL}}xx", "hebashxx"),
    ("he${XXX:+000}xx", "hexx"),
    ("he${PWD:+000}xx", "he000xx"),
    ("he${PWD:=000}xx", ERROR),
    ("he${PWD=000}xx", ERROR),
    ("he${PWD:+${PWD}:}xx", "he/home:xx"),
    (r"he${XXX:-\$PWD:}xx", "he$PWD:xx"),
    (r"he${XXX:-\${PWD}z}xx", "he${PWDz}xx"),
    ("${{aaa:-bbb}", ERROR),
    ("${aaa:-bbb}", "bbb"),
    ("${aaa:-${bbb:-ccc}}", "ccc"),
    ("${aaa:-bbb}}", "bbb}"),
    ("${aaa:-bbb", ERROR),
    ("${aaa:-bbb ${foo}", ERROR),
    ("${aaa:-bbb {foo}", "bbb {foo"),
    ("${aaa:-'b b}'}", "b b}"),
]

POSITIONAL: _Cases = [
    (f"{text}{tail}", f"{value}{tail}")
    for name in (*"123456789", "999", "001", "@", "*", "#", "?", "-", "$", "!", "0")
    for text, value in ((f"${name}", ""), (f"${{{name}}}", ""), (f"${{{name}:+b}}", ""), (f"${{{name}:-b}}", "b"))
    for tail in ("", "aaa")
]

KOREAN: _Cases = [
    (text.replace("he", "안녕"), expected and expected.replace("he", "안녕"))
    for text, expected in VARIABLES + MODIFIERS
    if "he" in text
]

PATTERNS = [
    (r"${F#()[]{\}^$.\*\?|\\}", {"F": r"()[]{}^$.*?|\x"}, "x"),
    (r"${F%%\**}", {"F": "xx**"}, "xx"),
    ("${F#*x*y}", {"F": "xxyy"}, "y"),
    ("${F##*x*y}", {"F": "xxyy"}, ""),
    ("${F#*}", {"F": "xxyy"}, "xxyy"),
    ("${F##*}", {"F": "xxyy"}, ""),
    ("${F#$B}", {"F": "xxyy", "B": "x"}, "xyy"),
    ("${F#$B}", {"F": "xxyy", "B": ""}, "xxyy"),
    ("${F#}", {"F": "xxyy"}, "xxyy"),
    ("${F##*x}", {"F": "xxyy"}, "yy"),
    ("${F##}", {"F": "xxyy"}, "xxyy"),
    (r"${F#?\?}", {"F": "???y"}, "?y"),
    ("${A:-.}${F%x}${A:-.}", {"F": "xxyy"}, ".xxyy."),
    (r"${F%%\**\*}", {"F": "a***yy*"}, "a"),
    ("${F%}", {"F": "xxyy"}, "xxyy"),
    ("${F%.*}", {"F": "a.tar.gz"}, "a.tar"),
    ("${F%%.*}", {"F": "a.tar.gz"}, "a"),
    ("${F##*/}", {"F": "/a/b/c"}, "c"),
    ("${F%%$B}", {"F": "xxyy", "B": ""}, "xxyy"),
    ("${F:#}", {}, ERROR),
    ("${F:%%}", {}, ERROR),
    (r"${F#\x}", {"F": "x"}, ERROR),
    (r"${F/$N/.} - ${F//$N/.}", {"F": "/foo*/*/*.txt", "N": r"\*/"}, "/foo.*/*.txt - /foo..*.txt"),
    ("${F/$N/} - ${F//$N/}", {"F": "/tmp/tmp/bar.txt", "N": "/tmp"}, "/tmp/bar.txt - /bar.txt"),
    ("${F/$N/$R} - ${F//$N/$R}", {"F": "/a/foo/b/c.txt", "N": "/?/", "R": "/"}, "/foo/b/c.txt - /foo/c.txt"),
    ("${F/$N/$R}", {"F": "http://google.de", "N": "http://", "R": "https://"}, "https://google.de"),
    (r"${F//\//\/}", {"F": "/tmp/foo.txt"}, r"\/tmp\/foo.txt"),
    ("${F/$B/ww}", {"F": "xxyy", "B": ""}, "wwxxyy"),
    ("${F//ww}", {"F": "xxyy"}, ERROR),
    ("${F//}", {"F": "xxyy"}, ERROR),
    ("${F///}", {"F": "xxyy"}, "xxyy"),
    ("${F///}", {}, ""),
    ("${F//*/r}", {"F": "abc"}, "r"),
    ("${F//*/r}", {}, "r"),
    ("${F//*b/r}", {"F": "abcb"}, "r"),
    ("${F/a*c/-}", {"F": "xabcbcd"}, "x-d"),
]

WORDS = [
    ("hello", {}, ["hello"]),
    ("hello${hi}bye", {}, ["hellobye"]),
    ("hello${hi}bye", {"hi": "hi"}, ["hellohibye"]),
    ("hello${space}bye", {"space": "abc  def"}, ["helloabc", "defbye"]),
    ('hello"${space}"bye', {"space": "abc  def"}, ["helloabc  defbye"]),
    ('hello "${space}"bye', {"space": "abc  def"}, ["hello", "abc  defbye"]),
    ("hello${leading}def", {"leading": "  ab c"}, ["hello", "ab", "cdef"]),
    ('hello"${leading}" def', {"leading": "  ab c"}, ["hello  ab c", "def"]),
    ("hello${trailing}d", {"trailing": "ab c   "}, ["helloab", "c", "d"]),
    ('hel"lo${trailing}"', {"trailing": "ab c   "}, ["helloab c   "]),
    ('hello" there  "', {}, ["hello there  "]),
    ("hello there", {}, ["hello", "there"]),
    (r"hello\ there", {}, ["hello there"]),
    ('hello" there', {}, ERROR),
    (r"hello\" there", {}, ['hello"', "there"]),
    (r'hello"\\there"', {}, [r"hello\there"]),
    (r'hello"\there"', {}, [r"hello\there"]),
    (r"hello'\\there'", {}, [r"hello\\there"]),
    ("hello'$there'", {}, ["hello$there"]),
    ("'' a ''", {}, ["a"]),
    ("a << EOF b", {}, ["a", "<< EOF", "b"]),
    ("he${XXX:-000}xx", {}, ["he000xx"]),
]


def expand(text: str, env: dict[str, str]) -> str | None:
    try:
        return Lexer().expand(text, env)
    except ParseError:
        return ERROR


@pytest.mark.parametrize(("text", "expected"), QUOTING + VARIABLES + MODIFIERS + KOREAN + POSITIONAL)
def test_expansion(text: str, expected: str | None) -> None:
    assert expand(text, ENV) == expected


@pytest.mark.parametrize(("text", "env", "expected"), PATTERNS)
def test_patterns(text: str, env: dict[str, str], expected: str | None) -> None:
    assert expand(text, env) == expected


@pytest.mark.parametrize(("text", "env", "expected"), WORDS)
def test_words(text: str, env: dict[str, str], expected: list[str] | None) -> None:
    if expected is ERROR:
        with pytest.raises(ParseError):
            Lexer().process(text, env)
    else:
        assert list(Lexer().process(text, env).words) == expected


@pytest.mark.parametrize(
    ("text", "env", "message"),
    [
        ("${V:?message here$ARG}", {"ARG": "x"}, "V: message herex"),
        ("${V:?message here$ARG}", {"V": "", "ARG": "x"}, "V: message herex"),
        ("${V?}", {}, "V: is not allowed to be unset"),
        ("${V:?}", {"V": ""}, "V: is not allowed to be empty"),
        ("${V:+a", {}, "syntax error: missing '}'"),
        ("${V/a}", {}, "syntax error: missing '/' in ${}"),
        ("${V^^}", {}, "unsupported modifier (^) in substitution"),
        ("'a", {}, "matching single-quote"),
        ('"a', {}, "matching double-quote"),
        ("${V:-'a", {}, "syntax error: missing '}'"),
        ('${V:-"a', {}, "syntax error: missing '}'"),
        ("${V/'a", {}, "syntax error: missing '/' in ${}"),
    ],
)
def test_messages_say_what_is_wrong(text: str, env: dict[str, str], message: str) -> None:
    with pytest.raises(ParseError) as caught:
        Lexer().process(text, env)
    assert caught.value.message == f"failed to process {quote(text)}: " + caught.value.message.split(": ", 1)[1]
    assert message in caught.value.message
    assert caught.value.hint


def test_found_and_missed_variables_are_reported() -> None:
    found = Lexer().process("${FOO-a} ${BAR:-b} ${BAZ:-c} '$NO' $FOO", {"FOO": "x", "BAR": ""})
    assert found.text == "x b c $NO x"
    assert (found.matched, found.unmatched) == ({"FOO", "BAR"}, {"BAZ"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo $A $B", "echo 1 $B"),
        ("echo ${A} ${B} ${B:-x}", "echo 1 ${B} ${B:-x}"),
        ("echo \"$A\" '$A' ${B#x} ${B/a/b}", "echo \"1\" '$A' ${B#x} ${B/a/b}"),
    ],
)
def test_names_of_steps_keep_quotes_and_unset_variables(text: str, expected: str) -> None:
    assert Lexer(keep_quotes=True, keep_unset=True).expand(text, {"A": "1"}) == expected


def test_other_settings() -> None:
    assert Lexer(escape="`").expand("a\\b`$c`n", {}) == "a\\b$cn"
    assert Lexer(keep_escapes=True).expand(r"a\ b\c", {}) == r"a\ b\c"
    assert Lexer(plain_quotes=True).expand('it\'s "$A"', {"A": "1"}) == 'it\'s "1"'


def test_quote_prints_as_go_does() -> None:
    assert quote('a"b\\c\n\t\x00\x7f é\u200b\U000e0001') == '"a\\"b\\\\c\\n\\t\\x00\\x7f é\\u200b\\U000e0001"'


@settings(max_examples=500)
@given(st.text(alphabet="a$ {}:-+?#%/*\\'\"`<\t0_", max_size=40), st.booleans(), st.booleans(), st.booleans())
def test_any_text_gives_a_value_or_a_parse_error(text: str, quotes: bool, escapes: bool, unset: bool) -> None:
    lexer = Lexer(keep_quotes=quotes, keep_escapes=escapes, keep_unset=unset)
    try:
        found = lexer.process(text, {"a": "x y", "_": "*"})
    except ParseError:
        return
    assert "".join(found.words) == "".join("".join(t.split()) if s else t for t, s in found.pieces)


@pytest.mark.parametrize("text", ["${a:-" * 100_000, "$" * 500_000, '"' * 500_001, "${a" * 100_000, "\\" * 500_001])
def test_hostile_texts_are_answered_at_once(text: str) -> None:
    begin = time.process_time()
    expand(text, {"a": "1"})
    assert time.process_time() - begin < 3


def test_hostile_patterns_are_linear() -> None:
    begin = time.process_time()
    for text in ("${F#" + "*a" * 200 + "b}", "${F%%" + "a*" * 200 + "b}", "${F//a*b/c}", "${F//a/bb}"):
        expand(text, {"F": "a" * 60_000})
    assert time.process_time() - begin < 3


def test_patterns_of_a_file_are_bounded_together() -> None:
    env = {"F": "a" * 60_000}
    with pytest.raises(ParseError, match="patterns of all substitutions together take too long"):
        Lexer().expand("${F/" + "?" * 30_000 + "b/c}", env)
    lexer = Lexer()
    with pytest.raises(ParseError, match="take too long"):
        lexer.expand(("${F%%*" + "?" * 3_000 + "b}") * 10, env)


def test_substitutions_side_by_side_are_not_nested() -> None:
    assert Lexer().expand("${a}" * (DEEPEST + 1), {"a": "x"}) == "x" * (DEEPEST + 1)
    with pytest.raises(ParseError, match="nested"):
        Lexer().expand("${b:-" * (DEEPEST + 1) + "}" * (DEEPEST + 1), {})


def test_what_grows_too_large_is_refused() -> None:
    half = {"a": "x" * (LARGEST // 2)}
    assert len(Lexer().expand("$a$a", half)) == LARGEST
    with pytest.raises(ParseError):
        Lexer().expand("$a$a$a", half)
