"""In which encoding a table was saved that is not UTF-8: by titles that are known, and by how names are spelt.

Where two encodings read the same bytes as names that may both be, neither is taken: a person is asked.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

#: tried for what is not UTF-8, most likely first
ENCODINGS = (
    *("cp1252", "cp1250", "cp1251", "cp1254", "cp1253", "cp1257", "cp1258", "cp1255", "cp1256"),
    *("mac_roman", "cp932", "gb18030", "cp949", "big5", "koi8-r", "cp850", "cp852", "cp866"),
    *("iso8859-2", "iso8859-5", "mac_latin2", "mac_cyrillic", "euc_jp"),
)
#: Letters beside a to z with which the words of one language are written, of the languages of an encoding.
_WESTERN = ("äöüßé", "àâæçéèêëîïôœùûüÿ", "áéíñóúü", "áâãàçéêíóôõúü", "àèéìíîòóùú", "åäöé", "æøåéôö")
_CENTRAL = ("áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "ąćęłńóśźż", "áéíóöőúüű", "čćđšž", "ăâîşţ", "äöüß")
LETTERS: dict[str, tuple[str, ...]] = {
    "cp1252": (*_WESTERN, "èéëêïöüç", "àçèéíïòóúü·", "áðéíóúýþæö", "áðíóúýæøö", "äöåšž"),
    "cp1250": _CENTRAL,
    "cp850": _WESTERN,
    "cp852": _CENTRAL,
    "iso8859-2": _CENTRAL,
    "mac_latin2": _CENTRAL,
    "cp1254": ("çğıöşüâîû",),
    "cp1257": ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž"),
    "mac_roman": _WESTERN,
    "cp1258": ("àáâãèéêìíòóôõùúýăđĩũơư\u0300\u0301\u0303\u0309\u0323",),
}
#: Blocks of other scripts, whose words hold no letter of another script.
SCRIPTS: dict[str, str] = {
    "cp1251": r"\u0400-\u045f\u0490\u0491",
    "koi8-r": r"\u0410-\u044f\u0401\u0451",
    "cp866": r"\u0410-\u044f\u0401\u0451",
    "iso8859-5": r"\u0400-\u045f\u0490\u0491",
    "mac_cyrillic": r"\u0400-\u045f\u0490\u0491",
    "euc_jp": r"\u3040-\u30ff\u4e00-\u9fff\u3005",
    "cp1253": r"\u0384-\u03ce",
    "cp1255": r"\u05d0-\u05ea",
    "cp1256": r"\u0600-\u06ff",
    "cp932": r"\u3040-\u30ff\u4e00-\u9fff\u3005",
    "gb18030": r"\u4e00-\u9fff",
    "cp949": r"\uac00-\ud7a3\u4e00-\u9fff",
    "big5": r"\u4e00-\u9fff",
}
#: Of East Asian encodings, the first bytes of the characters that common words and names are written with.
COMMON = {
    **{"cp932": (0x82, 0x98), "gb18030": (0xB0, 0xD7), "cp949": (0xB0, 0xC8), "big5": (0xA4, 0xC6)},
    "euc_jp": (0xA4, 0xCF),
}
_SIGNS = set(
    "\u201a\u201e\u00a0\u2013\u2014\u2018\u2019\u201c\u201d\u2026«»·°ºª№§´£€\uff08\uff09\uff0c\uff1a\u3000\u3001\u30fb"
)
_OPENING = "\u201a\u201e£€§"  # before a word or a number, and not behind a letter
_JOINING = "\u00a0\u2013\u2014\u2018\u2019\u30fb\u3000"  # what may stand between two letters
_UNSPOKEN = re.compile("[бвгджзйклмнпрстфхцчшщъь]{4}")  # Greek, read as Russian
_GREEK = re.compile(r"ς.|[^αεοηιυάέόήίύ][ΐΰϊϋ]|(?:[άέήίόύώΐΰ].*){2}")  # Russian, read as Greek
_SYLLABLE = re.compile(
    "(?:[bcdghklmnpqrstvx]|ch|gh|gi|kh|ng|ngh|nh|ph|qu|th|tr)?[aeiouy]{1,3}(?:[cmnpt]|ch|ng|nh)?"
)
_LOOKED = 200_000  # characters
_FAMILY = set(  # family names, and the words for name and number
    "的一是王李张刘陈杨黄赵吴周徐孙马朱胡林郭何高罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜"
    "戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段张劉陳楊黃趙吳孫馬羅鄭謝韓馮蕭鄧許蘇盧蔣"
    "姓名学号班级學號김이박최정강조윤장임한오서신권황안송류전홍고문양손배백허유남심노하곽성차주우구라진이름학번"
)


def checked(name: str) -> str:
    """The name of an encoding as Python knows it. ValueError for one that it does not know."""
    try:
        with contextlib.suppress(UnicodeError):
            b"a".decode(name)  # LookupError, too, for an encoding that is none of text, such as "hex"
        return codecs.lookup(name).name
    except LookupError:
        raise ValueError(f"no encoding {name!r}; there are utf-8, utf-16, {', '.join(ENCODINGS)}") from None


@dataclass(frozen=True)
class Decoded:
    """A table's bytes in one encoding: how many titles and names are known, and how its foreign words are spelt.

    n_spelt: words that a language of this encoding may have. n_odd: words that none has, and signs where no
    table has any. weight: of the words that are spelt, two for each that is written as names are. n_family:
    signs of family names.
    """

    encoding: str
    text: str
    n_known: int
    n_spelt: int
    n_odd: int
    weight: int
    n_family: int

    @property
    def rank(self) -> tuple[int, int]:
        """The larger, the likelier."""
        return self.n_known, self.weight + self.n_family - 3 * self.n_odd

    def rivals(self, other: Decoded) -> bool:
        """Whether the other reads otherwise, and nothing speaks against it that does not speak against this."""
        return (
            self.text != other.text
            and other.n_known == self.n_known
            and other.n_odd <= self.n_odd
            and other.n_family >= self.n_family
            and 4 * other.weight * max(self.n_spelt, 1) >= 3 * self.weight * max(other.n_spelt, 1)
        )


def decoded(data: bytes, n_known: Callable[[str], int], named: str = "") -> tuple[str, str, bool]:
    """(text, encoding, whether it is a guess) of a table's bytes.

    named: the encoding that a person names. Else UTF-8 and UTF-16 are recognised, and of `ENCODINGS` that one
    is taken in which most titles and names are known (`n_known` counts them), then in which most words are
    spelt as words of a language that uses it. ValueError where another encoding reads other names that may
    be, too, and where none reads words.
    """
    if named == "utf-8-sig":  # the table keeps its mark apart from the encoding's name
        named = "utf-8"
    head = data[:4096]
    if named not in ("", "utf-16"):
        return data.decode(named).removeprefix("\ufeff"), named, False
    for mark, order in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            return data.decode(order).removeprefix("\ufeff"), order, False
    if named or (len(head) > 3 and head.count(b"\0") * 3 > len(head)):  # UTF-16 that lost its mark
        order = "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
        return data.decode(order), order, False
    marked = data.startswith(b"\xef\xbb\xbf")
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode("utf-8-sig")
        if marked or not _is_chance(text):
            return text, "utf-8", False
        by_chance = Decoded("utf-8", text, n_known(text), 0, 0, 0, 0)
        others = [each for each in _readings(data, n_known) if each.n_spelt and not each.n_odd]
        if not others:
            return text, "utf-8", False
        if all(each.n_known <= by_chance.n_known for each in others):
            raise ValueError(f"it can be read in several ways: {_shown([by_chance, *others])}; {_SAY}")
    made = _readings(data, n_known)
    best = max(made, key=lambda each: each.rank, default=None)
    if best is None or best.n_odd > best.weight:
        raise ValueError(f"not UTF-8, and in no encoding that is tried are its words words; {_SAY}")
    others = [each for each in made if best.rivals(each)]
    if others:
        raise ValueError(f"not UTF-8, and it can be read in several ways: {_shown([best, *others])}; {_SAY}")
    is_titled = best.n_known > n_known(
        data.decode("ascii", "replace")
    )  # what is known is spelt like this alone
    return best.text, best.encoding, not is_titled


def _readings(data: bytes, n_known: Callable[[str], int]) -> list[Decoded]:
    made: list[Decoded] = []
    for encoding in ENCODINGS:
        with contextlib.suppress(UnicodeDecodeError):
            made.append(reading(data.decode(encoding), encoding, n_known))
    return made


def _is_chance(text: str) -> bool:
    """Whether bytes are UTF-8 by chance alone: no word but mixes alphabets, or there is none."""
    if text.isascii() or any(c >= "\u0800" for c in text[:_LOOKED]):
        return False
    words, n_odd = foreign_words(text[:_LOOKED])
    alphabets = [{unicodedata.name(c, "?").partition(" ")[0] for c in word if c.isalpha()} for word in words]
    return bool(n_odd or words) and all(len(each) > 1 for each in alphabets)


_SAY = "--encoding says which it is, or save it as UTF-8"


def _shown(readings: Sequence[Decoded]) -> str:
    """The first line that is read in several ways, in each way once."""
    rows = [*zip(*(each.text.split("\n") for each in readings))]
    row = next((row for row in rows if len({*row}) > 1), rows[0])
    ways: dict[str, str] = {}
    for line, each in zip(row, readings):
        ways.setdefault(line.strip()[:40], each.encoding)
    return ", ".join(f"{line!r} in {encoding}" for line, encoding in [*ways.items()][:5])


def reading(text: str, encoding: str, n_known: Callable[[str], int]) -> Decoded:
    """See `Decoded`. Of scripts without capitals every word is written as names are."""
    words, n_odd = foreign_words(text[:_LOOKED])
    spelt = [word for word in words if _is_spelt(word, encoding)]
    weight = sum(1 if word[0].islower() or (len(word) > 1 and word.isupper()) else 2 for word in spelt)
    n_odd += len(words) - len(spelt)
    n_family = sum(c in _FAMILY for word in words for c in word) if encoding in COMMON else 0
    return Decoded(encoding, text, n_known(text), len(spelt), n_odd, weight, n_family)


def foreign_words(text: str) -> tuple[list[str], int]:
    """The words that are not of a to z alone, and how many signs there are where tables hold none."""
    words: list[str] = []
    n_odd, word = 0, ""
    for i, c in enumerate(text + " "):
        if c.isalpha() or unicodedata.combining(c):
            word += c
            continue
        if word and not word.isascii():
            words.append(word)
        if not c.isascii():
            inside = bool(word) and text[i + 1 : i + 2].isalpha()
            n_odd += c not in _SIGNS or (c in _OPENING and bool(word)) or (inside and c not in _JOINING)
        word = ""
    return words, n_odd


@cache
def _is_spelt(word: str, encoding: str) -> bool:
    if encoding in SCRIPTS:
        fits = re.fullmatch(f"[{SCRIPTS[encoding]}]+", word) is not None
        if not fits or not _cased(word) or _UNSPOKEN.search(word.lower()):
            return False
        if encoding == "koi8-r" and len(word) > 1 and word.isupper():
            return False  # as all of Hebrew reads in it
        if encoding == "cp1253":
            return _GREEK.search(word.lower()) is None
        return encoding not in COMMON or all(_is_common(c, encoding) for c in word)
    foreign = {c for c in word.lower() if not c.isascii()} - {"\u0307"}  # of a Turkish İ
    if not _cased(word) or not any(foreign <= set(letters) for letters in LETTERS[encoding]):
        return False
    if encoding == "cp1258":
        plain = unicodedata.normalize("NFD", word.lower().replace("đ", "d"))
        return _SYLLABLE.fullmatch("".join(c for c in plain if not unicodedata.combining(c))) is not None
    return True


def _is_common(character: str, encoding: str) -> bool:
    """Whether a character is of those that a standard lists first, because they are the common ones."""
    data = character.encode(encoding)
    low, high = COMMON[encoding]
    return len(data) == 2 and low <= data[0] <= high and (encoding in ("cp932", "big5") or data[1] > 0xA0)


def _cased(word: str) -> bool:
    """Whether capitals stand where a writer puts them: first, or all along, or once more as in McAdam."""
    capitals = [i for i, c in enumerate(word) if i and c.isupper()]
    return word == word.upper() or not capitals or (len(capitals) == 1 and word[: capitals[0] + 1].isascii())
