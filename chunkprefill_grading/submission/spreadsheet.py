"""Tables as spreadsheets and learning systems save them: any encoding, delimiter and language."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from chunkprefill_grading.submission.encodings import checked, decoded, foreign_words

MAX_BYTES = 20 << 20  # of a table that is read
MAX_ROWS = 100_000
N_LOOKED = 20  # lines that tell the delimiter
DELIMITERS = ";\t|,"  # of two that fit as well, the first: "Lovelace, Ada;123" has its comma in a name
#: What a column holds, and the titles under which learning systems and registrars' offices export it.
TITLES: dict[str, tuple[str, ...]] = {
    "name": (
        *("student", "students", "student name", "full name", "fullname", "name", "display name"),
        *("learner", "participant name", "preferred name"),
        *("vollständiger name", "name, vorname", "nachname, vorname", "teilnehmer", "studierende"),
        *("nom complet", "nom et prénom", "étudiant", "nombre completo", "nombre y apellidos", "alumno"),
        *("nome completo", "nome e cognome", "cognome e nome", "studente", "aluno", "estudante"),
        *("volledige naam", "naam", "pełne imię i nazwisko", "imię i nazwisko", "nazwisko i imię"),
        *("fullständigt namn", "namn", "fulde navn", "fullt navn", "navn", "koko nimi", "nimi"),
        *("полное имя", "фио", "студент", "повне ім'я", "піб", "ad soyad", "adı soyadı", "tam adı"),
        *("姓名", "名字", "学生姓名", "學生姓名", "氏名", "名前", "フルネーム", "이름", "성명", "학생"),
        *("الاسم الكامل", "الاسم", "اسم الطالب", "שם מלא", "שם", "ονοματεπώνυμο", "teljes név", "celé jméno"),
        *("jméno a příjmení", "příjmení a jméno", "фамилия, имя", "фамилия и имя", "họ tên", "név"),
        *("apellidos y nombre", "apellidos, nombre", "nom, prénom", "prénom et nom", "cognome, nome"),
        *("họ và tên", "nama lengkap", "पूरा नाम", "नाम"),
    ),
    "first": (
        *(
            "first",
            "given",
            "first name",
            "firstname",
            "given name",
            "given names",
            "forename",
            "vorname",
            "vornamen",
        ),
        *("prénom", "prénoms", "prenom", "nombre", "nombres", "nome", "nome próprio", "voornaam"),
        *("imię", "imiona", "förnamn", "fornavn", "etunimi", "имя", "ім'я", "ad", "adı", "名", "이름(명)"),
        *("الاسم الأول", "שם פרטי", "όνομα", "keresztnév", "utónév", "jméno", "křestní jméno", "tên"),
    ),
    "last": (
        *(
            "last",
            "family",
            "last name",
            "lastname",
            "surname",
            "family name",
            "nachname",
            "familienname",
            "name of family",
        ),
        *("nom", "nom de famille", "apellido", "apellidos", "apellido(s)", "cognome", "sobrenome"),
        *("apelido", "apelidos", "achternaam", "nazwisko", "efternamn", "efternavn", "etternavn"),
        *("sukunimi", "фамилия", "прізвище", "soyad", "soyadı", "姓", "姓氏", "苗字", "성"),
        *("اسم العائلة", "الكنية", "שם משפחה", "επώνυμο", "vezetéknév", "příjmení", "họ"),
    ),
    "identifier": (
        *("identifier", "kennung", "identifikator", "id", "identifiant", "identificador", "identificatore"),
        *("identificatie", "identyfikator", "идентификатор", "ідентифікатор", "标识符", "識別子", "tunniste"),
        *("kimlik", "المعرف", "식별자", "identifierare", "participant id"),
    ),
    "number": (
        *("student id", "sid", "student number", "id number", "studentid", "orgdefinedid", "sis user id"),
        *("matrikelnummer", "matrikelnr", "matr.-nr.", "matrikel", "id-nummer", "numéro d'étudiant"),
        *("numéro étudiant", "n° étudiant", "número de identificación", "número de estudiante", "legajo"),
        *("matricola", "numero di matricola", "número de aluno", "matrícula", "studentnummer"),
        *("numer albumu", "nr albumu", "personnummer", "номер зачетки", "öğrenci no", "öğrenci numarası"),
        *("学号", "學號", "学籍番号", "학번", "الرقم الجامعي", "رقم الطالب", "opiskelijanumero"),
    ),
    "username": (
        *("username", "user name", "login", "login id", "sis login id", "benutzername", "anmeldename"),
        *("nom d'utilisateur", "identifiant de connexion", "nombre de usuario", "usuario", "nome utente"),
        *("nome de usuário", "gebruikersnaam", "nazwa użytkownika", "användarnamn", "brugernavn"),
        *("brukernavn", "käyttäjätunnus", "логин", "имя пользователя", "kullanıcı adı", "用户名", "ユーザ名"),
        *("사용자명", "اسم المستخدم"),
    ),
    "email": (
        *("email", "e-mail", "mail", "email address", "e-mail address", "e-mail-adresse", "emailadresse"),
        *("adresse de courriel", "courriel", "adresse e-mail", "adresse électronique", "correo"),
        *("correo electrónico", "dirección de correo", "dirección email", "indirizzo email", "e-mailadres"),
        *("endereço de e-mail", "endereço de email", "adres e-mail", "e-postadress", "epost", "e-post"),
        *("sähköposti", "sähköpostiosoite", "электронная почта", "адрес электронной почты", "e-posta"),
        *("电子邮件", "邮箱", "电子邮件地址", "メールアドレス", "이메일", "이메일 주소", "البريد الإلكتروني"),
    ),
    "grade": (
        *("grade", "score", "points", "bewertung", "note", "punkte", "calificación", "nota", "valutazione"),
        *("voto", "beoordeling", "cijfer", "ocena", "betyg", "karakter", "arvosana", "оценка", "оцінка"),
        *("not", "成绩", "评分", "評点", "성적", "점수", "التقدير", "الدرجة", "total score", "nota final"),
    ),
    "maximum": (
        *("maximum grade", "maximum", "max points", "bestwertung", "höchstpunktzahl", "maximalpunktzahl"),
        *("note maximale", "calificación máxima", "puntuación máxima", "valutazione massima"),
        *("punteggio massimo", "nota máxima", "maximumcijfer", "maximale cijfer", "maksymalna ocena"),
        *("maxbetyg", "maksimumarvosana", "максимальная оценка", "максимальна оцінка", "en yüksek not"),
        *("最高分", "最高成绩", "最大評点", "최고 성적", "الدرجة القصوى"),
    ),
    "comment": (
        *("feedback comments", "feedback", "comments", "comment", "feedback als kommentar"),
        *("feedback-kommentare", "kommentar", "feedback par commentaires", "commentaires de feedback"),
        *("comentarios de retroalimentación", "comentarios", "commenti", "commenti di feedback"),
        *("comentários de feedback", "feedbackopmerkingen", "komentarz zwrotny", "отзыв", "комментарии"),
        *("反馈评语", "反馈意见", "フィードバックコメント", "피드백 댓글", "تعليقات"),
    ),
    "due": (
        *("due", "due date", "deadline", "until", "extension", "extended to", "new due date", "abgabe bis"),
        *("verlängerung", "frist", "échéance", "date limite", "fecha límite", "prórroga", "scadenza"),
        *("proroga", "prazo", "termin", "срок", "截止", "截止日期", "締切", "마감"),
    ),
}


def folded(text: str) -> str:
    """Text as two lists may spell it: case, the encoding of accents, blanks and what is not seen aside."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("_", " ")
    return " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split())


def unguarded(cell: str) -> str:
    """A cell without what keeps a spreadsheet from changing it: '0012 and ="0012" are 0012."""
    cell = cell.strip()
    guarded = re.fullmatch(r'="(.*)"', cell, re.S)
    return guarded[1].replace('""', '"').strip() if guarded else cell.removeprefix("'").strip()


def _title(text: str) -> str:
    """A column's title without accents, and with one i: capitals lose them, and Turkish has two."""
    plain = unicodedata.normalize("NFKD", folded(text)).replace("\u0131", "i").replace("đ", "d")
    return "".join(each for each in plain if not unicodedata.combining(each))


_KNOWN = frozenset(_title(title) for titles in TITLES.values() for title in titles)


@dataclass(frozen=True)
class Table:
    """A table that was read, and how it was saved, so that it can be written back the same way."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # as long as the header
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    notes: tuple[str, ...] = ()  # what was guessed in reading it

    def columns(self, kind: str) -> list[int]:
        """Columns whose title is known to hold `kind`, in the order of `TITLES`."""
        known = {_title(title): place for place, title in reversed([*enumerate(TITLES[kind])])}
        found = [(known[_title(title)], i) for i, title in enumerate(self.header) if _title(title) in known]
        return [i for _, i in sorted(found)]

    def column(self, kind: str, named: str = "") -> int | None:
        """The column of a kind, or the one that a person names. ValueError for a name that is not there."""
        if not named:
            return next(iter(self.columns(kind)), None)
        wanted = folded(named)
        for i, title in enumerate(self.header):
            if folded(title) == wanted:
                return i
        raise ValueError(f"no column {named!r}; there are {', '.join(map(repr, self.header))}")

    @property
    def n_titles(self) -> int:
        """How many titles of the header are known."""
        return sum(_title(title) in _KNOWN for title in self.header)

    def without_preamble(self) -> Table:
        """The table from the row on that has titles, where the first row has none: registrars put words there."""
        for i, row in enumerate(self.rows[:N_LOOKED]):
            below = replace(self, header=tuple(cell.strip() for cell in row), rows=self.rows[i + 1 :])
            if not self.n_titles and below.n_titles > 1:
                return below
        return self

    def with_rows(self, rows: Sequence[Sequence[str]]) -> Table:
        """The same table with other rows."""
        return replace(self, rows=tuple(tuple(row) for row in rows))

    def text(self) -> str:
        """The table as it is saved, without a byte order mark."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n", delimiter=self.delimiter)
        writer.writerows([self.header, *self.rows])
        return out.getvalue()

    def encoded(self) -> bytes:
        """The bytes as the program that reads it expects them; what its encoding lacks becomes UTF-8."""
        try:
            return self.text().encode(self.encoding)
        except UnicodeEncodeError:
            return self.text().encode("utf-8-sig", "backslashreplace")


def _n_known(text: str) -> int:
    """How many titles of the first lines are known."""
    most = 0
    for line in text[:20_000].splitlines()[:3]:
        for delimiter in DELIMITERS:
            cells = [cell.strip().strip('"') for cell in line.split(delimiter)]
            most = max(most, sum(_title(cell) in _KNOWN for cell in cells))
    return most


def _delimiter(text: str) -> tuple[str, str]:
    """(the delimiter, the text that follows a line `sep=;`)."""
    first, _, rest = text.partition("\n")
    said = re.fullmatch(r'"?sep=(.|\\t)"?\s*', first.strip("\r\n"), re.I)
    if said:
        told = "\t" if said[1] in ("\\t", "t") else said[1]
        found = _fitting(rest)
        return (told if told in rest or found not in rest else found), rest
    return _fitting(text), text


def _fitting(text: str) -> str:
    """The delimiter by which the first lines are a table."""
    head = "".join(islice(io.StringIO(text, newline=""), N_LOOKED))
    fits = {delimiter: _fit(head, delimiter) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=lambda delimiter: fits[delimiter])
    if fits[best][0]:
        return best
    titled = max(DELIMITERS, key=lambda delimiter: _n_titled(head, delimiter))  # below lines of words
    if _n_titled(head, titled) > 1:
        return titled
    return best if fits[best][1] > 1 else ","


def _n_titled(head: str, delimiter: str) -> int:
    """The most known titles in a line."""
    cells = ([cell.strip().strip('"') for cell in line.split(delimiter)] for line in head.splitlines())
    return max((sum(_title(cell) in _KNOWN for cell in row) for row in cells), default=0)


def _fit(head: str, delimiter: str) -> tuple[bool, int]:
    """(whether all rows have the same number of cells, more than one; how many the first has)."""
    try:
        widths = [len(row) for row in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter) if row]
    except csv.Error:
        return False, 0
    first = widths[0] if widths else 0
    return first > 1 and set(widths) == {first}, first


def read_table(path: Path, encoding: str = "", names: Collection[str] = ()) -> Table:
    """The table in a file. encoding: where a person names it. names: some that may stand in it, which tell
    how it is spelt. ValueError, with the file's name, for what is no table.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MB")
        table = parse_table(path.read_bytes(), encoding, names)
        return replace(table, notes=tuple(f"{path}: {note}" for note in table.notes))
    except (OSError, UnicodeError, csv.Error, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        if str(error) == "unexpected end of data":
            said = "a quotation mark opens a cell and is never closed"
        raise ValueError(f"{path}: cannot be read as a table: {said}") from None


def parse_table(data: bytes, encoding: str = "", names: Collection[str] = ()) -> Table:
    """The table in some bytes, in the encoding that is named or one that is found. ValueError for no table."""
    foreign = set(foreign_words("\n".join(names))[0])

    def n_known(text: str) -> int:
        return _n_known(text) + (len(foreign & set(foreign_words(text)[0])) if foreign else 0)

    if data.startswith(b"PK\x03\x04"):
        raise ValueError("this is a workbook or a zip: save the sheet as CSV")
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise ValueError("this is an old Excel workbook: save the sheet as CSV")
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|table|\?xml)\b", data[:200], re.I):
        raise ValueError("this is a web page or XML, whatever it is called: save the sheet as CSV")
    text, encoding, guessed = decoded(data, n_known, checked(encoding) if encoding else "")
    if "\0" in text:
        raise ValueError("it holds zero bytes")
    delimiter, text = _delimiter(text)
    read: list[list[str]] = []
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
        if any(cell.strip() for cell in row):
            read.append(row)
        if len(read) > MAX_ROWS:
            raise ValueError(f"more than {MAX_ROWS:,} rows")
    if not read:
        raise ValueError("an empty table")
    header = tuple(cell.strip().lstrip("\ufeff") for cell in read[0])
    width = len(header)
    if not any(_title(cell) in _KNOWN for cell in header):  # a line of words above the titles
        width = max(width, *map(len, read[:N_LOOKED]))
        header = (*header, *[""] * (width - len(header)))
    rows = tuple(tuple([*row, *[""] * width][:width]) for row in read[1:])
    return Table(header, rows, delimiter, encoding, _guess(header, rows, encoding) if guessed else ())


def _guess(header: Sequence[str], rows: Sequence[Sequence[str]], encoding: str) -> tuple[str, ...]:
    """What to say of an encoding that the file does not name: a few cells by which a person can judge."""
    cells = (cell[:40] for row in (*rows, header) for cell in row if not cell.isascii())
    odd = ", ".join(map(repr, islice(cells, 3)))
    return (f"not UTF-8, and read as {encoding}: {odd}. If that is misspelt, --encoding says which it is",)
