"""The parts of `bench/compare` for which a shell is the wrong tool.

compare.py duckdb SQL                      a contestant: DuckDB, with `pg` and the object store attached
compare.py whole FORMAT URL ROWS           the object has ids 1 to ROWS, each once
compare.py report FIGURES MACHINE PICTURE  the table and the bars on standard output; exit status 1 if a bar is passed
"""

import collections
import glob
import os
import statistics
import sys
import sysconfig
from html import escape

OURS = "ours"
FLOOR = "floor"
TITLES = {FLOOR: "no store", "csv": "CSV", "csv+gzip": "CSV, gzip", "json": "JSON", "xml": "XML", "parquet": "Parquet"}
NOTE = """`seconds` is the median of the rounds: of ours from POST to completed, of the others from the start of their processes to the end
of the last. `ours / it` is of the same round, the median of all. `cpu_s` is processor time of the contestant's own processes (of ours
the worker; api and broker are not in it), beside it that of PostgreSQL, with our ledger in it, and of the object store. `peak MiB` is of the
largest process alone, of a pipe too. DuckDB reads in two threads and then sorts; psql and pg2parquet have PostgreSQL's order."""
Figures = collections.namedtuple("Figures", "seconds cpu postgres store rss bytes")


def connect():
    import duckdb

    duck = duckdb.connect()
    for extension in glob.glob(sysconfig.get_path("purelib") + "/duckdb_extension_*/extensions/*/*.duckdb_extension"):
        duck.execute(f"LOAD '{extension}'")
    duck.execute(
        f"""CREATE SECRET (TYPE s3, KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}', SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}',
            REGION 'us-east-1', ENDPOINT '{os.environ["TEST_S3_ENDPOINT"].removeprefix("http://")}', URL_STYLE 'path', USE_SSL false)"""
    )
    return duck


def export(statement):
    duck = connect()
    duck.execute("SET TimeZone = 'UTC'")
    # For what it has no memory for; else it would be here.
    duck.execute(f"SET temp_directory = '{os.environ['SCRATCH']}'")
    duck.execute(f"ATTACH '{os.environ['DATABASE_URL']}' AS pg (TYPE postgres, READ_ONLY)")
    duck.execute(statement)


def whole(kind, url, rows):
    # A name may have a line end, so lines are no rows.
    csv = """read_csv('{}', header = true, delim = ',', quote = '"', escape = '"', compression = '{}', columns = {{'id': 'BIGINT',
        'created_at': 'VARCHAR', 'name': 'VARCHAR', 'value': 'VARCHAR', 'metadata': 'VARCHAR'}})"""
    source = {
        "csv": csv.format(url, "none"),
        "csv+gzip": csv.format(url, "gzip"),
        "json": f"read_json('{url}', format = 'array', columns = {{'id': 'BIGINT'}})",
        "parquet": f"read_parquet('{url}')",
    }[kind]
    found = connect().sql(f"SELECT count(*), count(DISTINCT id), min(id), max(id) FROM {source}").fetchone()
    if found != (rows, rows, 1, rows):
        sys.exit(f"{url} has not every row: {found} are rows, ids, least and greatest id")


def read(path):
    """Figures by format and name, in the order of the first round, a list of rounds each."""
    runs = collections.defaultdict(dict)
    for line in open(path):
        round_, kind, name, *figures = line.rstrip("\n").split("\t")
        runs[kind, name][int(round_)] = Figures(*map(float, figures))
    order = list(TITLES)
    # Ours last in its format, whoever began.
    keys = sorted(runs, key=lambda key: (order.index(key[0]), key[1] == OURS, not key[1].startswith("psql"), key[1]))
    return {key: [run for _, run in sorted(runs[key].items())] for key in keys}


def median(runs, figure):
    return statistics.median(getattr(run, figure) for run in runs)


def ratio(ours, theirs, figure="seconds"):
    """Of the same round; the median of all."""
    return statistics.median(getattr(a, figure) / getattr(b, figure) for a, b in zip(ours, theirs))


def table(runs):
    lines = [
        "| format | with | seconds | least to most | ours / it | cpu_s | PostgreSQL cpu_s | SeaweedFS cpu_s | peak MiB | bytes |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (kind, name), each in runs.items():
        ours = runs.get((kind, OURS))
        seconds = [run.seconds for run in each]
        cells = [
            TITLES[kind],
            f"**{name}**" if name == OURS else name,
            f"{median(each, 'seconds'):.2f}",
            f"{min(seconds):.2f} to {max(seconds):.2f}",
            f"{ratio(ours, each):.2f}" if ours and name != OURS else "",
            f"{median(each, 'cpu'):.1f}",
            f"{median(each, 'postgres'):.1f}",
            f"{median(each, 'store'):.1f}",
            f"{median(each, 'rss'):.0f}",
            f"{median(each, 'bytes'):,.0f}" if kind != FLOOR else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def bars(runs):
    """What is promised, as far as it was measured: words, the figure, the most it may be, its unit."""
    beside = [
        ("csv", "DuckDB", "seconds", 0.6),
        ("csv", "psql, aws", "seconds", 0.6),
        ("csv+gzip", "DuckDB", "seconds", 0.4),
        ("csv+gzip", "psql, gzip -6, aws", "seconds", 0.5),
        ("csv+gzip", "psql, gzip -6, aws", "bytes", 1.1),
        ("json", "DuckDB", "seconds", 0.6),
        ("parquet", "DuckDB", "seconds", 0.85),
        ("parquet", "DuckDB", "bytes", 1.02),
    ]
    for kind, prefix, figure, most in beside:
        for (its, name), theirs in runs.items():
            # Another way of DuckDB to the same file is held against ours too.
            same = its == kind and name.startswith(prefix) and "unordered" not in name
            if same and (kind, OURS) in runs:
                yield f"{TITLES[kind]}, {figure}, ours / {name}", ratio(runs[kind, OURS], theirs, figure), most, ""
    if ("xml", OURS) in runs and ("csv", OURS) in runs:
        yield "XML, seconds, ours / our CSV", ratio(runs["xml", OURS], runs["csv", OURS]), 1.6, ""
    for (kind, name), each in runs.items():
        if name == OURS:
            yield f"{TITLES[kind]}, the worker's peak in any round", max(run.rss for run in each), 96, " MiB"


STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: 600; font-size: 15px }
    .kind { font-weight: 600 }
    .faint { fill: #59636e }
    .page { fill: #ffffff }
    .ours { fill: #0a7d55 }
    .other { fill: #8c959f }
    .floor { fill: #c3cad1 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .faint { fill: #9da7b1 }
      .page { fill: #0d1117 }
      .ours { fill: #3fb98a }
      .other { fill: #6e7681 }
      .floor { fill: #444c56 }
    }
"""


def picture(runs, title):
    """Bars of the median seconds. It brings its own background, because a page may have another one than its reader's scheme."""
    left, width, right, step = 210, 480, 90, 22
    most = max(median(each, "seconds") for each in runs.values())
    parts, y, last = [], 62, None
    for (kind, name), each in runs.items():
        if kind != last:
            y += 12 if last else 0
            parts.append(f'<text class="kind" x="16" y="{y + 13}">{escape(TITLES[kind])}</text>')
            y, last = y + step, kind
        seconds = median(each, "seconds")
        long = max(1, seconds / most * width)
        look = "ours" if name == OURS else "floor" if kind == FLOOR else "other"
        parts += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{look}" x="{left}" y="{y + 2}" width="{long:.1f}" height="{step - 6}" rx="2"/>',
            f'<text class="faint" x="{left + long + 6:.1f}" y="{y + 13}">{seconds:.1f} s</text>',
        ]
        y += step
    all_wide, all_high = left + width + right, y + 14
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {all_wide} {all_high}" width="{all_wide}" height="{all_high}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{all_wide}" height="{all_high}" rx="6"/>',
            f'<text class="title" x="16" y="28">{escape(title)}</text>',
            '<text class="faint" x="16" y="47">less is better; one machine for all, the service in 256 MB</text>',
            *parts,
            "</svg>\n",
        ]
    )


def report(figures, machine, target):
    runs = read(figures)
    rows, rounds = int(os.environ["ROWS"]), max(map(len, runs.values()))
    with open(target, "w") as file:
        file.write(picture(runs, f"{rows:,} rows from PostgreSQL into S3, seconds: {f'median of {rounds}' if rounds > 1 else 'one run'}"))
    print(*table(runs), "", NOTE, "", sep="\n")
    over = False
    for words, figure, most, unit in bars(runs):
        over |= figure > most
        shown = f"{figure:.0f}" if unit else f"{figure:.3f}"
        print(f"- {'over' if figure > most else 'PASS'}: {words}: {shown}{unit}, at most {most}{unit}")
    print()
    print(open(machine).read(), end="")
    return over


def main():
    match sys.argv[1:]:
        case ["duckdb", statement]:
            export(statement)
        case ["whole", kind, url, rows]:
            whole(kind, url, int(rows))
        case ["report", figures, machine, target]:
            sys.exit(report(figures, machine, target))
        case _:
            sys.exit(__doc__)


main()
