"""What a user sees, also through a pipe that closes."""

import subprocess
import sys

from medseg.runtime.console import table

CODE = """
import sys
from medseg.runtime.console import say, table
for number in range(20_000):
    say(f"line {number}")
table([(1, "a")] * 1000, columns=("number", "letter"))
say("an error", error=True)
sys.exit(3)
"""


def test_a_reader_that_leaves_early_changes_neither_the_work_nor_the_exit_code():
    job = subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert job.stdout.readline() == b"line 0\n"
    job.stdout.close()
    said = job.stderr.read()
    assert job.wait(60) == 3
    assert said == b"an error\n"
    job.stderr.close()


def test_a_title_longer_than_its_table_stays_one_line(capsys):
    table([(1, "a")], columns=("n", "x"), title="0 of 10 cases scored, [95%] intervals")
    assert capsys.readouterr().out.splitlines()[0] == "0 of 10 cases scored, [95%] intervals"
