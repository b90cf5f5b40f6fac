"""A shop's tickets as Excel saves them in Germany, answered: from CSV to CSV in three commands.

python examples/support_csv.py [--model smollm2] [--folder out/support_csv] [--epochs 6]

Writes `tickets.csv`, which a person has labelled, and `new.csv`, with semicolons, Windows-1252,
ids such as 0101, quotes and an empty cell, and runs the commands that answer it. SmolLM2 has read
little German, so unsure answers are left to a person.
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from pathlib import Path

import foreword as fw
from foreword.cli.main import run

TICKETS = {
    "Versand": [
        "Wo bleibt mein Päckchen? Es sollte gestern da sein.",
        "Die Sendungsnummer wird nicht erkannt, ist das Paket schon unterwegs?",
        "Können Sie an eine Packstation liefern?",
        "Der Bote hat das Paket beim falschen Nachbarn abgegeben.",
        "Wie lange dauert die Lieferung nach Österreich?",
        "Laut Verfolgung liegt das Paket seit fünf Tagen im Verteilzentrum.",
        "Ich bin nächste Woche verreist, bitte liefern Sie später.",
        "Was kostet der Versand auf eine Insel?",
        "Die Lieferung ist angeblich zugestellt, hier ist aber nichts.",
        "Kann der Fahrer vorher anrufen? Die Klingel geht nicht.",
    ],
    "Rückgabe": [
        "Die Schuhe drücken, ich möchte sie zurückschicken.",
        "Wie bekomme ich ein Etikett für die Rücksendung?",
        "Der Pullover ist zu groß, ich hätte gern mein Geld zurück.",
        "Bis wann kann ich die Ware zurückgeben?",
        "Ich habe die Jacke vor zwei Wochen zurückgeschickt; wann kommt die Erstattung?",
        "Muss die Rücksendung im Originalkarton sein?",
        "Bitte tauschen Sie das Hemd gegen Größe L um.",
        "Ich habe es mir anders überlegt und schicke alles wieder zurück.",
        "Darf ich einen getragenen Schuh noch umtauschen?",
        "Die Farbe gefällt mir nicht, wie läuft eine Rückgabe?",
    ],
    "Rechnung": [
        "Auf der Rechnung steht eine falsche Adresse.",
        "Mir wurde der Betrag zweimal von der Karte abgebucht.",
        "Kann ich per Lastschrift bezahlen?",
        "Bitte schicken Sie mir die Rechnung noch einmal als PDF.",
        "Warum wurde der Gutschein nicht vom Preis abgezogen?",
        "Ich habe eine Mahnung erhalten, aber längst überwiesen.",
        "Wir brauchen die Umsatzsteuernummer auf der Rechnung.",
        "Meine Kreditkarte wird beim Bezahlen abgelehnt.",
        "Wann wird der Betrag von meinem Konto abgebucht?",
        "Ist eine Zahlung in drei Raten möglich?",
    ],
    "Defekt": [
        "Der Wasserkocher wird nicht mehr heiß.",
        'Am Bildschirm steht nur noch "Fehler 12".',
        "Nach einer Woche ist der Griff abgebrochen.",
        "Die Lampe flackert und geht dann aus.",
        "Der Akku hält keine zehn Minuten mehr.",
        "Beim Auspacken war die Scheibe schon zerbrochen.",
        "Das Gerät macht ein lautes Geräusch und riecht verbrannt.",
        "Der Reißverschluss klemmt seit dem ersten Tag.",
        "Die Kaffeemaschine tropft unten heraus.",
        "Seit dem Update startet das Radio nicht mehr.",
    ],
}
NEW = [
    ("Versand", "Mein Päckchen ist seit Montag unterwegs, wann kommt es an?"),
    ("Rückgabe", "Ich möchte die Hose zurückschicken, sie ist zu groß."),
    ("Rechnung", "Der Betrag wurde doppelt von meinem Konto abgebucht."),
    ("Defekt", 'Der Toaster ist kaputt; er zeigt nur "Fehler 3".'),
    ("", ""),
    ("Versand", "Liefern Sie auch nach Österreich, und was kostet der Versand?"),
    ("Rückgabe", "Wie lange kann ich die Schuhe noch zurückgeben?"),
    ("Rechnung", "Bitte senden Sie mir die Rechnung für Mai noch einmal."),
    ("Defekt", "Der Griff der Pfanne ist abgebrochen."),
]
"""What a person would say, and the ticket."""


def as_excel_saves(path: Path, lines: list[list[str]]) -> None:
    """Write lines of cells with semicolons, in Windows-1252, quoted only where Excel must."""

    def cell(text: str) -> str:
        return f'"{text.replace(chr(34), chr(34) * 2)}"' if set(text) & {";", '"'} else text

    text = "\r\n".join(";".join(map(cell, line)) for line in lines)
    path.write_bytes(f"{text}\r\n".encode("windows-1252"))


def command(line: str) -> None:
    """Print a command and run it in this process."""
    print(f"\n$ foreword {line}", flush=True)
    if status := run(shlex.split(line)):
        raise SystemExit(status)


def main() -> None:
    """Write the two tables, train, and answer."""
    about = argparse.ArgumentParser(description=__doc__)
    about.add_argument("--model", default="smollm2")
    about.add_argument("--folder", type=Path, default=Path("out/support_csv"))
    about.add_argument("--epochs", type=int, default=6)
    given = about.parse_args()
    began, model = time.monotonic(), given.model
    if Path(model).exists():
        model = str(Path(model).resolve())
    given.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(given.folder)

    pairs = [(text, label) for label, texts in TICKETS.items() for text in texts]
    rows = [[f"{n:04d}", text, label] for n, (text, label) in enumerate(pairs, start=1)]
    as_excel_saves(Path("tickets.csv"), [["Nr", "Anfrage", "Kategorie"], *rows])
    rows = [[f"{n:04d}", text, "offen"] for n, (_, text) in enumerate(NEW, start=101)]
    as_excel_saves(Path("new.csv"), [["Nr", "Anfrage", "Status"], *rows])

    command("data check tickets.csv --label-field Kategorie")
    command(
        f"train --model {shlex.quote(model)} --train tickets.csv --text-field Anfrage "
        f"--label-field Kategorie --epochs {given.epochs} --batch-size 8 --out tickets.safetensors"
    )
    command(
        "predict tickets.safetensors --data new.csv --out answered.csv --min-probability 0.6 "
        f"--skip-bad --model {shlex.quote(model)}"
    )

    print("\nanswered.csv, in the order of new.csv:")
    answered = [row.fields for row in fw.read_rows("answered.csv")]
    for row in answered:
        print(f"  {row['Nr']}  {row['label'] or '-':9} {row['probability']:7} {row['Anfrage']}")
    sure = [
        (row["label"], said) for row, (said, _) in zip(answered, NEW, strict=True) if row["label"]
    ]
    right = sum(label == said for label, said in sure)
    print(
        f"{len(sure)} of {len(NEW)} are answered, {right} of these as a person would; "
        f"{time.monotonic() - began:.0f} s in all"
    )


if __name__ == "__main__":
    main()
