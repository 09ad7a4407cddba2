#!/usr/bin/env python3
"""Makes the example files, the same bytes every time.

    generate.py                      writes accounts.csv and contacts-latin1.csv beside itself
    generate.py --rows N --out FILE  writes N account rows, streaming, and prints what is wrong
                                     with them as JSON

The small files are as untidy as real ones: byte order mark, quotes and line breaks inside of
values, accents, and a known number of bad rows.
"""

import argparse
import json
import os
import random

HERE = os.path.dirname(os.path.abspath(__file__))

FIRST = """Acme Borealis Cobalt Delphi Ember Falcon Granite Harbor Indigo Juniper Kestrel Lumen
Meridian Nimbus Orchid Pioneer Quartz Rivet Summit Tundra Umbra Vertex Willow Xenon Yonder
Zephyr Alpen Baltic Copper Dune Elm Fjord Glacier Horizon Iris Jade Krypton Larch Maple
Nova""".split()
SECOND = """Analytics Bearings Ceramics Dynamics Energy Foods Gears Health Insurance Jewels
Kitchens Logistics Media Networks Optics Payments Robotics Software Textiles Utilities Ventures
Works""".split()
COUNTRIES = [
    # name as people write it, legal form, ending of domains, cities, telephone
    ("Germany", "GmbH", "de", ["Berlin", "Köln", "München", "Düsseldorf"], "+49 30 {:07d}"),
    ("Deutschland", "AG", "de", ["Hamburg", "Nürnberg", "Saarbrücken"], "+49 (0)40 / {:07d}"),
    ("France", "SAS", "fr", ["Paris", "Orléans", "Besançon"], "+33 1 {:08d}"),
    ("United States", "Inc.", "com", ["Boston", "Austin", "San José"], "+1 (415) 555-{:04d}"),
    ("USA", "LLC", "io", ["New York", "Denver"], "+1 617 555 {:04d}"),
    ("United Kingdom", "Ltd", "co.uk", ["London", "Leeds"], "+44 20 {:08d}"),
    ("España", "S.A.", "es", ["A Coruña", "Málaga"], "+34 91 {:07d}"),
    ("Sweden", "AB", "se", ["Malmö", "Göteborg"], "+46 8 {:07d}"),
    ("Polska", "Sp. z o.o.", "pl", ["Łódź", "Kraków"], "+48 22 {:07d}"),
    ("日本", "K.K.", "co.jp", ["東京", "大阪"], "+81 3 {:08d}"),
]
INDUSTRIES = """Software Logistics Healthcare Retail Energy Finance Manufacturing Media Education
Agriculture Telecommunications Hospitality""".split()
TECHNOLOGIES = "PostgreSQL Redis Rust Kafka React Kubernetes Salesforce HubSpot Snowflake".split()
SIZES = ["1-10", "11-50", "51-200", "201-500", "501-1,000", "1,001-5,000", "10,001+"]
HEADER = ["Company Name", "Website", "Industry", "Employees", "Country", "City", "Phone",
          "Annual Revenue", "LinkedIn", "Description", "Technologies"]


def quoted(value):
    """Quotes a value only where it needs quotes, as spreadsheets do."""
    if any(c in value for c in ',"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value


def line(values):
    return ",".join(quoted(value) for value in values) + "\r\n"


def base36(number):
    digits = ""
    while True:
        number, rest = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
        if number == 0:
            return digits


def account(i):
    """Row i, always the same; its domain is its own."""
    rng = random.Random(i * 7919 + 17)
    first, second = rng.choice(FIRST), rng.choice(SECOND)
    country, form, ending, cities, phone = rng.choice(COUNTRIES)
    digits = 10 ** int(phone[phone.index("{:0") + 3])
    domain = f"{first}-{second}-{base36(i)}.{ending}".lower()
    site = rng.choice(["{}", "www.{}", "https://www.{}/", "http://{}/about?ref=list"])
    employees = rng.choice([str(rng.randrange(1, 5000)), f"{rng.randrange(1000, 90000):,}",
                            rng.choice(SIZES), ""])
    revenue = rng.choice([f"${rng.randrange(1, 900)}.{rng.randrange(10)}M",
                          f"{rng.randrange(10_000, 99_000_000):,}", "", "#N/A"])
    name = rng.choice(["{} {} {}", "{} {} {}", '"{}" {} {}', "{}, {} & Söhne {}"]).format(
        first, second, form)
    description = rng.choice([
        "", f"{second} since {rng.randrange(1890, 2024)}",
        f"Two lines,\nthe second says \"{first}\"", f"Größe: {rng.randrange(9)} m², naïve café"])
    technologies = ", ".join(rng.sample(TECHNOLOGIES, rng.randrange(0, 4)))
    linkedin = ""
    if rng.random() < 0.5:
        linkedin = f"https://www.linkedin.com/company/{first}-{base36(i)}/"
    return [f"{name} {base36(i)}", site.format(domain), rng.choice(INDUSTRIES), employees, country,
            rng.choice(cities), phone.format(rng.randrange(digits)), revenue, linkedin.lower(),
            description, technologies]


def spoil(row, defect, i):
    """Makes a row bad in one way; `i` is its number."""
    if defect == "REQUIRED_MISSING":
        row[0] = ""
    elif defect == "BAD_WEBSITE":
        row[1] = ["not a domain", "http://", "acme", "10.0.0.1", "shop.notatld"][i % 5]
    elif defect == "TYPE_MISMATCH":
        row[3] = "plenty"
    elif defect == "VALUE_TOO_LONG":
        row[0] = "Very Long Name " * 30
    elif defect == "EXCEL_DAMAGE":
        row[6] = "4.93E+11"
    elif defect == "TOO_MANY_COLUMNS":
        row.append("a value that an unquoted comma has pushed out")


def small_accounts(path):
    """1,000 rows; 980 can be imported, 20 cannot."""
    bad = {}
    for start, defect, times in [(40, "REQUIRED_MISSING", 5), (55, "BAD_WEBSITE", 4),
                                 (71, "DUPLICATE_IN_FILE", 5), (83, "TOO_MANY_COLUMNS", 3),
                                 (90, "TYPE_MISMATCH", 1), (97, "VALUE_TOO_LONG", 1),
                                 (99, "EXCEL_DAMAGE", 1)]:
        for n in range(times):
            bad[start + n * 180] = defect
    assert len(bad) == 20 and max(bad) < 1000
    with open(path, "w", encoding="utf-8-sig", newline="") as out:
        out.write(line(HEADER))
        for i in range(1000):
            defect = bad.get(i)
            row = account(i)
            if defect == "DUPLICATE_IN_FILE":
                row[1] = account(i - 30)[1].upper()
            elif defect:
                spoil(row, defect, i)
            out.write(line(row))


def small_contacts(path):
    """1,000 rows of an Excel that speaks German: semicolons, decimal commas, windows-1252."""
    given = "Jürgen Zoë François Ángel Søren Mañuel Käthe Renée Günther Anaïs".split()
    family = "Müller Schröder Lefèvre Núñez Ørsted Weiß Böhm D'Angelo O'Brien Straße".split()
    titles = ["Geschäftsführer", "Einkäuferin", "Leiter Vertrieb; Süd", "Prokurist", "CTO"]
    bad = {60: "x@y", 240: "", 420: "ohne-at.de", 600: "doppelt", 780: "a b@example.com"}
    with open(path, "w", encoding="cp1252", newline="") as out:
        out.write("E-Mail;Vorname;Nachname;Position;Firma;Telefon;Ort;Umsatz (Mio.)\r\n")
        for i in range(1000):
            rng = random.Random(i * 104729 + 3)
            domain = account(i % 400)[1].split("//")[-1].split("/")[0].replace("www.", "")
            email = bad.get(i, f"kontakt.{i}@{domain}")
            if email == "doppelt":
                email = None
            row = [email, rng.choice(given), rng.choice(family), rng.choice(titles),
                   f"{rng.choice(FIRST)} {rng.choice(SECOND)} GmbH",
                   f"0{rng.randrange(30, 990)} / {rng.randrange(100_000, 9_999_999)}",
                   rng.choice(["Köln", "Zürich", "Málaga", "Besançon"]),
                   f"{rng.randrange(1, 900)},{rng.randrange(10)}"]
            if row[0] is None:
                other = account((i - 1) % 400)[1].split("//")[-1].split("/")[0].replace("www.", "")
                row[0] = f"KONTAKT.{i - 1}@{other}"
            cells = ['"' + cell.replace('"', '""') + '"' if ";" in cell else cell for cell in row]
            out.write(";".join(cells) + "\r\n")


# What is wrong with a large file: one row in a hundred, in turn.
DEFECTS = ["REQUIRED_MISSING", "BAD_WEBSITE", "DUPLICATE_IN_FILE", "TOO_MANY_COLUMNS",
           "TYPE_MISMATCH"]


def large_accounts(path, rows):
    counts = dict.fromkeys(DEFECTS, 0)
    with open(path, "w", encoding="utf-8", newline="", buffering=1 << 20) as out:
        out.write(line(HEADER))
        for i in range(rows):
            row = account(i)
            if i % 100 == 50:
                defect = DEFECTS[i // 100 % len(DEFECTS)]
                counts[defect] += 1
                if defect == "DUPLICATE_IN_FILE":
                    row[1] = account(max(0, i - 25))[1]
                else:
                    spoil(row, defect, i)
            out.write(line(row))
    bad = sum(counts.values())
    print(json.dumps({"rows": rows, "importable": rows - bad, "bad": bad, "defects": counts}))


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rows", type=int, help="write a large file with this many rows")
    options.add_argument("--out", help="where to write the large file")
    options = options.parse_args()
    if options.rows is None:
        small_accounts(os.path.join(HERE, "accounts.csv"))
        small_contacts(os.path.join(HERE, "contacts-latin1.csv"))
    elif options.out is None:
        raise SystemExit("--rows needs --out")
    else:
        large_accounts(options.out, options.rows)


if __name__ == "__main__":
    main()
