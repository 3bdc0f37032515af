"""How learning systems pack what was handed in: recorded shapes, filled with notebooks of a number."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tests.grading.hostile import world

DAY = (2026, 3, 1, 12, 0, 0)
Entry = tuple[str, object] | tuple[str, object, tuple[int, ...]]

METADATA = """\
---
submission_301:
  :submitters:
  - :name: Ada Lovelace
    :sid: '1001'
    :email: ada@uni.edu
  :created_at: 2026-03-01 11:00:00.559391000 Z
  :score: 0.0
  :status: unprocessed
  :results:
    tests: []
  :history:
  - :id: 300
    :created_at: 2026-02-27 09:00:00.000000000 Z
    :submitters:
    - :name: Not Counted
      :email: nobody@uni.edu
submission_302:
  :submitters:
  - :name: "Zo\\xEB O'Neil"
    :sid: '1002'
    :email: zoe@uni.edu
  - :name: 'Max ''Maxi'' M\u00fcller'
    :sid:
    :email: max@uni.edu
  :created_at: 2026-03-02 08:00:00.000000000 -08:00
  :score:
  :status: unprocessed
"""

#: layout -> (entries, {name: number of the notebook that counts})
SHAPES: dict[str, tuple[list[Entry], dict[str, int]]] = {
    "moodle": (
        [
            ("Ada Lovelace_101_assignsubmission_file_/PS3.ipynb", 1),
            ("Zoë O'Neil_102_assignsubmission_file_/PS3.ipynb", 2, (2026, 3, 1, 1, 0, 0)),
            ("Zoë O'Neil_102_assignsubmission_file_/PS3 (1).ipynb", 3, (2026, 3, 1, 2, 0, 0)),
            ("李 明_103_assignsubmission_file_/deep/er/PS3.ipynb", 4),
            ("Wei Zhang_104_assignsubmission_file_/PS3.ipynb", 5),
            ("Wei Zhang_105_assignsubmission_file_/PS3.ipynb", 6),
            ("Tom Text_106_assignsubmission_onlinetext_/onlinetext.html", b"<p>hello"),
        ],
        {"Ada Lovelace": 1, "Zoë O'Neil": 3, "李 明": 4, "Wei Zhang (104)": 5, "Wei Zhang (105)": 6},
    ),
    "moodle flat": (
        [
            ("Ada Lovelace_101_assignsubmission_file_PS3.ipynb", 1),
            ("Zoë O'Neil_102_assignsubmission_file_PS3_final_7.ipynb", 2),
            ("a_b_103_assignsubmission_file_x_104_assignsubmission_file_y.ipynb", 3),
        ],
        {"Ada Lovelace": 1, "Zoë O'Neil": 2, "a_b": 3},
    ),
    "moodle blind": (
        [
            ("Participant_101_assignsubmission_file_/PS3.ipynb", 1),
            ("Participant_102_assignsubmission_file_/PS3.ipynb", 2),
        ],
        {"Participant (101)": 1, "Participant (102)": 2},
    ),
    "moodle groups": (
        [
            ("Group A-Ada Lovelace_101_assignsubmission_file_/PS3.ipynb", 1),
            ("Group B-Anne-Marie Roe_102_assignsubmission_file_/PS3.ipynb", 2),
        ],
        {"Group A-Ada Lovelace": 1, "Group B-Anne-Marie Roe": 2},
    ),
    "canvas": (
        [
            ("lovelaceada_1001_71955_PS3.ipynb", 1),
            ("oneilzoë_LATE_1002_71960_PS3-1.ipynb", 2),
            ("oneilzoë_1002_71950_PS3.ipynb", 3),
            ("zhangwei_1003_71970_PS3.ipynb", 4),
            ("zhangwei_1004_71971_PS3_9_9.ipynb", 5),
            ("texttom_1005_text.html", b"<p>"),
        ],
        {"lovelaceada": 1, "oneilzoë": 2, "zhangwei (1003)": 4, "zhangwei (1004)": 5},
    ),
    "canvas blind": (
        [("anon_vCtNS_71955_PS3.ipynb", 1), ("anon_b8kZ2_LATE_71956_PS3.ipynb", 2)],
        {"anonymous vCtNS": 1, "anonymous b8kZ2": 2},
    ),
    "gradescope": (
        [
            ("assignment_77_export/submission_metadata.yml", METADATA.encode()),
            ("assignment_77_export/submission_301/PS3.ipynb", 1),
            ("assignment_77_export/submission_302/PS3.ipynb", 2),
        ],
        {"Ada Lovelace": 1, "Zoë O'Neil": 2, "Max 'Maxi' Müller": 2},
    ),
    "blackboard": (
        [
            (
                "Problem Set 3_alovelace_attempt_2026-03-01-11-00-00.txt",
                b"Name: Ada Lovelace (alovelace)\nAssignment: Problem Set 3\nDate Submitted: Sunday\n",
            ),
            ("Problem Set 3_alovelace_attempt_2026-03-01-11-00-00_PS3.ipynb", 1),
            ("Problem Set 3_z_oneil_attempt_2026-03-01-11-00-00_PS3.ipynb", 2),
            ("Problem Set 3_z_oneil_attempt_2026-03-02-11-00-00_PS3.ipynb", 3),
            ("Problem Set 3_w_oneil_attempt_2026-03-02-11-00-00_PS3.ipynb", 4),
        ],
        {"Ada Lovelace": 1, "z_oneil": 3, "w_oneil": 4},
    ),
    "brightspace": (
        [
            ("index.html", b"<html>"),
            ("5011-90001 - Ada Lovelace - Mar 1, 2026 130 PM/PS3.ipynb", 1),
            ("5012-90001 - Zoë O'Neil-Smith - Mar 1, 2026 1130 PM/PS3.ipynb", 3),
            ("5012-90001 - Zoë O'Neil-Smith - Mar 1, 2026 1145 PM/PS3.ipynb", 2),
        ],
        {"Ada Lovelace": 1, "Zoë O'Neil-Smith": 2},
    ),
    "classroom": (
        [
            ("PS3/Ada Lovelace - Problem set 3.ipynb", 1),
            ("PS3/Zoë O'Neil - Problem set 3.ipynb", 2),
            ("PS3/Copy of Max Meier-Roe - Problem set 3.ipynb", 3),
        ],
        {"Ada Lovelace": 1, "Zoë O'Neil": 2, "Max Meier-Roe": 3},
    ),
    "plain": (
        [("Ada Lovelace.ipynb", 1), ("Zoë O'Neil/PS3.ipynb", 2), ("李 明.ipynb", 3), ("0012345.ipynb", 4)],
        {"Ada Lovelace": 1, "Zoë O'Neil": 2, "李 明": 3, "0012345": 4},
    ),
}


def book(n: int) -> bytes:
    """A notebook that says its number."""
    return json.dumps(world.notebook(f"number = {n}")).encode()


def packed(path: Path, entries: Iterable[Entry], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip. An entry is a name, a number or bytes, and a date."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content, *when in entries:
            info = zipfile.ZipInfo(name, when[0] if when else DAY)
            info.compress_type = method
            archive.writestr(info, book(content) if isinstance(content, int) else content)
    return path
