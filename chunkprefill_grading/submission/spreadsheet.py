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
        *("全名", "nume complet", "izen osoa"),
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
        *(
            "identifikátor",
            "tanımlayıcı",
            "编号",
            "編號",
            "identificator",
            "מזהה",
            "αναγνωριστικό",
            "azonosító",
        ),
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
        *(
            "známka",
            "hodnocení",
            "评级",
            "評分",
            "osztályzat",
            "qualificació",
            "điểm",
            "nilai",
            "kalifikazioa",
            "ציון",
            "βαθμός",
            "notă",
        ),
    ),
    "maximum": (
        *("maximum grade", "maximum", "max points", "bestwertung", "höchstpunktzahl", "maximalpunktzahl"),
        *("note maximale", "calificación máxima", "puntuación máxima", "valutazione massima"),
        *("punteggio massimo", "nota máxima", "maximumcijfer", "maximale cijfer", "maksymalna ocena"),
        *("maxbetyg", "maksimumarvosana", "максимальная оценка", "максимальна оцінка", "en yüksek not"),
        *("最高分", "最高成绩", "最大評点", "최고 성적", "الدرجة القصوى"),
        *(
            "maximální známka",
            "maksimum not",
            "maksimiarvosana",
            "maksimumkarakter",
            "maksimum karakter",
            "notă maximă",
            "qualificació màxima",
            "maximális osztályzat",
            "điểm tối đa",
            "nilai maksimum",
            "ציון מירבי",
            "μέγιστος βαθμός",
            "högsta betyg",
        ),
    ),
    "comment": (
        *("feedback comments", "feedback", "comments", "comment", "feedback als kommentar"),
        *("feedback-kommentare", "kommentar", "feedback par commentaires", "commentaires de feedback"),
        *("comentarios de retroalimentación", "comentarios", "commenti", "commenti di feedback"),
        *("comentários de feedback", "feedbackopmerkingen", "komentarz zwrotny", "отзыв", "комментарии"),
        *("反馈评语", "反馈意见", "フィードバックコメント", "피드백 댓글", "تعليقات"),
        *(
            "commenti al feedback",
            "feedback opmerkingen",
            "отзыв в виде комментария",
            "коментар відгуку",
            "komentář",
            "geribildirim yorumları",
            "反馈评论",
            "回饋評語",
            "피드백 의견",
            "σχόλια",
            "kommentarer",
            "palautekommentit",
            "feedbackkommentarer",
            "tilbakemeldinger",
            "comentarii feedback",
            "comentaris de retroacció",
            "הערות משוב",
        ),
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


def is_damaged(cell: str) -> bool:
    """Whether a spreadsheet took a number's digits: it shows 123456 as 1.23E+05, and saves what it shows."""
    return re.fullmatch(r"\d(?:[.,]\d+)?E[+-]\d{2,}", unguarded(cell)) is not None


def _title(text: str) -> str:
    """A column's title without accents, and with one i: capitals lose them, and Turkish has two."""
    plain = unicodedata.normalize("NFKD", folded(text)).replace("\u0131", "i").replace("đ", "d")
    return "".join(each for each in plain if not unicodedata.combining(each))


_KNOWN = frozenset(_title(title) for titles in TITLES.values() for title in titles)


@dataclass(frozen=True)
class Line:
    """A line of a file as it was written: its cells with their quotes, and what ends it."""

    cells: tuple[str, ...]
    end: str


@dataclass(frozen=True)
class SavedTable:
    """A table that was read, and how it was saved, so that it can be written back the same way.

    lines: the whole file, blank lines and words above the titles with it; none for a table that was made.
    places: where the header and each row stand among them.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # as long as the header
    delimiter: str = ","
    encoding: str = "utf-8"
    notes: tuple[str, ...] = ()  # what was guessed in reading it
    mark: str = "\ufeff"  # the byte order mark, or "" for none
    lines: tuple[Line, ...] = ()
    places: tuple[int, ...] = ()

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

    @property
    def too_long(self) -> set[int]:
        """Rows with more cells than titles, but for blank ones that all have: what a cell says, its column may not."""
        if not self.lines:
            return set()
        cells = [self.lines[place].cells for place in self.places[1:]]
        all_have = max(len(self.header), min(map(len, cells), default=0))
        return {
            i
            for i, each in enumerate(cells)
            if len(each) > all_have or any(cell.strip(' "') for cell in each[len(self.header) :])
        }

    def with_rows(self, rows: Sequence[Sequence[str]]) -> SavedTable:
        """The same table with other rows."""
        return replace(self, rows=tuple(tuple(row) for row in rows))

    def with_column(self, title: str) -> SavedTable:
        """The same table with one more column, of blanks: every line gets its cell, as readers count them."""
        width, lines = len(self.header), list(self.lines)
        for place in self.places if lines else ():
            cells = lines[place].cells
            cell = title if place == self.places[0] else ""
            cell = f'"{cell}"' if all(each.startswith('"') for each in cells) else cell
            cells = (*cells[:width], *[""] * (width - len(cells)), cell, *cells[width:])
            lines[place] = replace(lines[place], cells=cells)
        rows = tuple((*row, "") for row in self.rows)
        return replace(self, header=(*self.header, title), rows=rows, lines=tuple(lines))

    def only(self, columns: Sequence[int]) -> SavedTable:
        """The same table with these columns alone."""

        def kept(cells: Sequence[str]) -> tuple[str, ...]:
            return tuple(cells[i] for i in columns if i < len(cells))

        lines = list(self.lines)
        for place in self.places:
            lines[place] = replace(lines[place], cells=kept(lines[place].cells))
        return replace(self, header=kept(self.header), rows=tuple(map(kept, self.rows)), lines=tuple(lines))

    def text(self) -> str:
        """The table as it is saved, without a byte order mark: each cell that did not change as it was written."""
        if not self.lines:
            out = io.StringIO()
            writer = csv.writer(out, lineterminator="\n", delimiter=self.delimiter)
            writer.writerows([self.header, *self.rows])
            return out.getvalue()
        lines = list(self.lines)
        for place, cells in zip(self.places, (self.header, *self.rows)):
            written = lines[place].cells
            lines[place] = replace(lines[place], cells=self._written(written, cells, place == self.places[0]))
        return "".join(self.delimiter.join(line.cells) + line.end for line in lines)

    def _written(self, old: Sequence[str], cells: Sequence[str], is_header: bool) -> tuple[str, ...]:
        """The cells of a line with what is new in it, quoted where the old cell or all the others are."""
        made = list(old)
        all_quoted = bool(made) and all(cell.startswith('"') for cell in made)
        for i, cell in enumerate(cells):
            if i < len(made) and (is_header or _read(made[i]) == cell):
                continue
            if i >= len(made) and not cell:
                continue  # the line was short, and stays so
            made += [""] * (i + 1 - len(made))
            quoted = (
                all_quoted
                or made[i].startswith('"')
                or re.search(rf'["\r\n{re.escape(self.delimiter)}]', cell)
            )
            made[i] = '"' + cell.replace('"', '""') + '"' if quoted else cell
        return tuple(made)

    def encoded(self) -> bytes:
        """The bytes as the program that reads it expects them; of a new cell, what its encoding lacks becomes "?"."""
        return (self.mark + self.text()).encode(self.encoding, "replace")


def _read(cell: str) -> str:
    """What a cell says, of how it is written."""
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _lines(text: str, delimiter: str) -> list[Line]:
    """Text that `csv` has read strictly, in lines and cells as they are written."""
    other = re.escape(delimiter)
    cell = re.compile(rf'("[^"]*(?:""[^"]*)*"|[^{other}\r\n]*)({other}|\r\n|\r|\n|\Z)')
    made: list[Line] = []
    cells: list[str] = []
    place = 0
    while place < len(text) or cells:
        found = cell.match(text, place)
        assert found is not None, "csv reads strictly: a quoted cell ends where a cell ends"
        cells.append(found[1])
        place = found.end()
        if found[2] != delimiter:
            made.append(Line(tuple(cells), found[2]))
            cells = []
    return made


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


def read_table(path: Path, encoding: str = "", names: Collection[str] = ()) -> SavedTable:
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


def parse_table(data: bytes, encoding: str = "", names: Collection[str] = ()) -> SavedTable:
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
    notes: list[str] = []
    mark = "\ufeff" if (bom := "\ufeff".encode(encoding, "ignore")) and data.startswith(bom) else ""
    if (mark + text).encode(encoding, "replace") != data:
        notes.append(
            f"{encoding} has several spellings of a character that stands in it: written back, it has one"
        )
    delimiter, below = _delimiter(text)
    read: list[tuple[str, ...]] = []
    places: list[int] = []
    for place, row in enumerate(csv.reader(io.StringIO(below, newline=""), delimiter=delimiter, strict=True)):
        if any(cell.strip() for cell in row):
            read.append(tuple(row))
            places.append(place)
        if len(read) > MAX_ROWS:
            raise ValueError(f"more than {MAX_ROWS:,} rows")
    if not read:
        raise ValueError("an empty table")
    titles, first, header = _titles(read)
    width = len(header)
    rows = tuple(tuple([*row, *[""] * width][:width]) for row in read[first:])
    lines = _lines(below, delimiter)
    if len(below) < len(text):
        lines.insert(0, Line((text[: len(text) - len(below)],), ""))
        places = [place + 1 for place in places]
    return SavedTable(
        header,
        rows,
        delimiter,
        encoding,
        (*notes, *(_guess(header, rows, encoding) if guessed else ())),
        mark,
        tuple(lines),
        (places[titles], *places[first:]),
    )


def _titles(rows: Sequence[Sequence[str]]) -> tuple[int, int, tuple[str, ...]]:
    """(the row of the titles, the first row below them, the titles).

    Registrars put lines of words above the titles, and spreadsheets merge cells: of merged cells the first
    alone has text, so a title may stand above several columns, and theirs in the next row.
    """
    known = [sum(_title(cell) in _KNOWN for cell in row) for row in rows[:N_LOOKED]]
    place = 0 if known[0] else next((i for i, n in enumerate(known) if n > 1), 0)
    below = place + 1
    if below < len(known) and known[place] and "" in _bare(rows[place]) and known[below] > 1:
        place, below = below, below + 1
    header = _bare(rows[place])
    if not known[place]:  # a line of words, or titles that are not known
        width = max(len(header), *(len(row) for row in rows[:N_LOOKED]))
        return place, below, (*header, *[""] * (width - len(header)))
    if below < len(rows) and _goes_on(header, _bare(rows[below])):
        more = _bare(rows[below])
        header = tuple(under or title for title, under in zip(header, (*more, *[""] * len(header))))
        below += 1
    return place, below, header


def _bare(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.strip().lstrip("\ufeff") for cell in row)


def _goes_on(header: Sequence[str], below: Sequence[str]) -> bool:
    """Whether a row holds the titles that stand under a merged one: under it alone, and under its blanks."""
    under = [i for i, cell in enumerate(below[: len(header)]) if cell]
    if any("@" in below[i] or below[i].isdigit() for i in under):
        return False
    blank = [i for i in under if not header[i]]
    return (
        bool(blank)
        and bool(header[0])
        and not below[0]
        and all(not header[i] or i + 1 in under for i in under)
    )


def _guess(header: Sequence[str], rows: Sequence[Sequence[str]], encoding: str) -> tuple[str, ...]:
    """What to say of an encoding that the file does not name: a few cells by which a person can judge."""
    cells = (cell[:40] for row in (*rows, header) for cell in row if not cell.isascii())
    odd = ", ".join(map(repr, islice(cells, 3)))
    return (f"not UTF-8, and read as {encoding}: {odd}. If that is misspelt, --encoding says which it is",)
