"""Words of a statement, for the statements that the stand-in reads itself."""

import re
from dataclasses import dataclass

from backing.doris_stand_in.schema import DorisError

_TOKEN = re.compile(
    r"""\s+|--[^\n]*|\#[^\n]*|/\*.*?\*/
    |(?P<quoted>`(?:[^`]|``)*`)
    |(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")
    |(?P<number>\d+(?:\.\d+)?(?![\w]))
    |(?P<word>@{0,2}[\w$]+)
    |(?P<sign><=|>=|!=|<>|.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "Z": "\x1a"}


@dataclass(slots=True)
class Token:
    """A word; `kind` is quoted, text, number, word, sign or end."""

    kind: str
    value: str
    at: int = 0


def split(sql: str) -> list[Token]:
    """Cut a statement into its words."""
    found = []
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup
        if kind is None:
            continue
        value = match[0]
        if kind == "quoted":
            value = value[1:-1].replace("``", "`")
        elif kind == "text":
            value = unquote(value)
        found.append(Token(kind, value, match.start()))
    return found


def unquote(text: str) -> str:
    """Take the quotes and the escapes from a text."""
    mark, inner = text[0], text[1:-1]
    inner = inner.replace(mark * 2, mark)
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), inner, flags=re.DOTALL)


class Reader:
    """Reads words one after the other."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._tokens = split(sql)
        self._at = 0

    @property
    def next(self) -> Token:
        """The next word, without taking it."""
        return self._tokens[self._at] if self._at < len(self._tokens) else Token("end", "")

    @property
    def rest(self) -> str:
        """All that was not read, as it was written."""
        return self._sql[self.next.at :] if self.next.kind != "end" else ""

    def take(self) -> Token:
        """Take the next word."""
        token = self.next
        self._at += 1
        return token

    def comes(self, *words: str) -> bool:
        """Take these words if they come next, all or none."""
        for number, word in enumerate(words):
            at = self._at + number
            if at >= len(self._tokens) or self._tokens[at].kind in {"quoted", "text"}:
                return False
            if self._tokens[at].value.upper() != word:
                return False
        self._at += len(words)
        return True

    def expect(self, *words: str) -> None:
        """Take these words.

        Raises
        ------
        DorisError
            Others come next.
        """
        for word in words:
            if not self.comes(word):
                raise self.unexpected(f"expecting '{word}'")

    def name(self) -> str:
        """Take a name."""
        if self.next.kind not in {"quoted", "word"}:
            raise self.unexpected("expecting an identifier")
        return self.take().value

    def text(self) -> str:
        """Take a quoted text."""
        if self.next.kind != "text":
            raise self.unexpected("expecting STRING_LITERAL")
        return self.take().value

    def number(self) -> int:
        """Take a number."""
        if self.next.kind != "number":
            raise self.unexpected("expecting INTEGER_VALUE")
        return int(self.take().value)

    def names(self) -> list[str]:
        """Take names in parentheses."""
        self.expect("(")
        found = [self.name()]
        while self.comes(","):
            found.append(self.name())
        self.expect(")")
        return found

    def pairs(self) -> dict[str, str]:
        """Take ``("name" = "value", …)``."""
        found = {}
        self.expect("(")
        while True:
            name = self.text()
            self.expect("=")
            found[name] = self.text()
            if not self.comes(","):
                break
        self.expect(")")
        return found

    def end(self) -> None:
        """Nothing but a semicolon may follow."""
        self.comes(";")
        if self.next.kind != "end":
            raise self.unexpected("expecting {<EOF>, ';'}")

    def unexpected(self, expecting: str) -> DorisError:
        """Make the error for the word that comes next."""
        what = self.next.value or "<EOF>"
        text = (
            f"errCode = 2, detailMessage = \nmismatched input '{what}' {expecting}(line 1, pos 0)\n"
        )
        return DorisError(text, 1105)
