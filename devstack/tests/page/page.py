"""Uses the web page as people do, in a real browser, against services that are up.

usage: page.py SCENARIO...        one or more of the functions below that are marked as scenarios, or `all`

environment:
  API_URL        where the page is served; every scenario
  DATASET        what is exported, default `records`: with an integer column `id` and at least three columns
  SEEN_ROWS      from so many rows on an export has to be seen under way, default 200000
  FAIL_DATASET   `failing`, `screens`: a dataset whose rows fail at reading
  API_KEY        `key`: of the tenant `shop`, called `page`; the service has to ask who its clients are
  LONG_DATASET   `wording`: a dataset with a name and a column of 60 characters
  HOSTILE_DATASET `hostile`: a dataset with rows, in whose name or columns is markup, `<img src=x onerror=alert(1)>`
  OTHER_API_URL  `two`: another api of the same service
  PROXY_URL      `failover`: leads to an api that is up; this prints KILL, and a line on its input says that one is dead
  MANY           `many`: how many exports there are at least, default 200
  ANSWER_MS      `many`: how long an answer may take, default 200; more where others use the machine
  SHOTS          `screens`: the folder for the pictures
  PATIENCE       seconds that an export may take, default 120

Exits with 1 and says what was not so. Whatever the scenario, an error on the console, an exception in the page or a
violation of its Content-Security-Policy is a failure.
"""

import csv
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from contextlib import contextmanager

from playwright.sync_api import expect, sync_playwright

API_URL = os.environ.get("API_URL", "http://127.0.0.1:8080").rstrip("/")
DATASET = os.environ.get("DATASET", "records")
SEEN_ROWS = int(os.environ.get("SEEN_ROWS", "200000"))
ANSWER_MS = float(os.environ.get("ANSWER_MS", "200"))
PATIENCE = float(os.environ.get("PATIENCE", "120"))
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

# What the browser itself writes on the console about a request that failed; the page has to live with those.
FAILED_REQUEST = "Failed to load resource"
VIOLATIONS = """
document.addEventListener('securitypolicyviolation', (event) =>
    console.error(`CSP violation: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def check(holds, words):
    if not holds:
        raise AssertionError(words)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def document(export_id, api=None):
    return get(f"{api or API_URL}/exports/{export_id}")


class Visit:
    """A page, and what went wrong in it."""

    def __init__(self, page, forgiven):
        self.page = page
        self.errors = []
        self.forgiven = forgiven
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(f"exception: {error}"))
        page.add_init_script(VIOLATIONS)

    def _console(self, message):
        if message.type != "error":
            return
        address = message.location.get("url", "")
        if message.text.startswith(FAILED_REQUEST) and any(re.search(pattern, address) for pattern in self.forgiven):
            return
        self.errors.append(f"console: {message.text} ({address})")

    def open(self, url=None, fragment=""):
        self.page.goto(f"{url or API_URL}/{fragment}")
        expect(self.page.locator("#new-form")).to_be_visible(timeout=20_000)
        expect(self.page.locator("#list > li, #list-state[data-tone=empty]").first).to_be_visible(timeout=20_000)

    def choose(self, dataset):
        self.page.get_by_label("Dataset", exact=True).select_option(dataset)
        expect(self.page.locator("#columns > li").first).to_be_visible()

    def add_filter(self, column, operator, value):
        self.page.get_by_role("button", name="Add a filter").click()
        line = self.page.locator("#filters > li").last
        line.get_by_label("Column of filter").select_option(column)
        line.get_by_label("Condition of filter").select_option(operator)
        line.get_by_label("Values of filter" if operator == "in" else "Value of filter").fill(value)

    def cell(self, row, column):
        return self.page.locator("#preview tbody tr").nth(row).locator("td").nth(column)

    def preview_header(self):
        return self.page.locator("#preview thead .target").all_text_contents()

    def start(self):
        """Presses the button; the answer is the id of the new export."""
        accepted = lambda answer: answer.request.method == "POST" and answer.url.endswith("/exports")
        with self.page.expect_response(accepted) as caught:
            self.page.get_by_role("button", name="Start export").click()
        answer = caught.value
        check(answer.status in (200, 201), f"the submission was answered with {answer.status}: {answer.text()}")
        return answer.json()["exportId"]

    def row(self, export_id):
        return self.page.locator(f"#export-{export_id}")

    def status(self, export_id):
        return self.row(export_id).get_attribute("data-status")

    def wait_for(self, export_id, *wanted, patience=PATIENCE):
        """Until the list shows one of the states; the answer is every value that the bar had meanwhile."""
        expect(self.row(export_id)).to_be_attached(timeout=15_000)
        values = []
        end = time.monotonic() + patience
        while time.monotonic() < end:
            seen = self.row(export_id).evaluate(
                "(row) => [row.dataset.status, row.querySelector('progress').hidden ? null : row.querySelector('progress').getAttribute('value')]")
            if seen[1] is not None and (not values or values[-1] != seen[1]):
                values.append(seen[1])
            if seen[0] in wanted:
                return values
            self.page.wait_for_timeout(40)
        raise AssertionError(f"the list shows {export_id} as {self.status(export_id)!r} and not as {wanted} after {patience} s; "
                             f"the service says {document(export_id)['status']!r}")

    def connection(self, words, patience=20):
        expect(self.page.locator("#connection")).to_have_text(words, timeout=patience * 1000)

    def finish(self):
        self.page.wait_for_timeout(200)
        check(not self.errors, "the page had errors:\n  " + "\n  ".join(self.errors))


@contextmanager
def browser():
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield launched
        finally:
            launched.close()


@contextmanager
def visit(launched, forgiven=(), before=None, **context):
    """A visit whose errors are looked at when it ends well. `forgiven`: addresses whose requests may fail."""
    made = launched.new_context(accept_downloads=True, **({"viewport": {"width": 1440, "height": 900}} | context))
    try:
        page = made.new_page()
        page.set_default_timeout(20_000)
        if before:
            before(page)
        visited = Visit(page, forgiven)
        try:
            yield visited
        except Exception as error:
            # The page's own errors may well be why. Behind the words of Playwright is the whole page.
            raise AssertionError("\n  ".join([str(error).split("\nAria snapshot")[0], *visited.errors])) from error
        visited.finish()
    finally:
        made.close()


def percentages(values):
    return [float(value) for value in values if 0 < float(value) < 100]


@scenario
def way(launched):
    """A file of some rows and columns under other names; then all rows, watched."""
    with visit(launched) as it:
        it.open()
        it.connection("Live")
        it.choose(DATASET)
        expect(it.cell(0, 0)).to_be_visible()
        names = it.preview_header()
        check(len(names) >= 3 and "id" in names, f"the preview begins with the columns {names}")
        id_at = names.index("id")
        first = int(it.cell(0, id_at).text_content())

        dropped, renamed = names[-1], next(name for name in names[:-1] if name != "id")
        it.page.locator("#columns").get_by_role("checkbox", name=dropped, exact=True).uncheck()
        it.page.get_by_label(f"Name of {renamed} in the file", exact=True).fill("given name, ünïcode")
        wanted = ["given name, ünïcode" if name == renamed else name for name in names if name != dropped]
        expect(it.page.locator("#preview thead .target")).to_have_text(wanted)

        it.add_filter("id", ">", str(first + 99))
        expect(it.cell(0, id_at)).not_to_have_text(str(first))
        check(int(it.cell(0, id_at).text_content()) > first + 99, "the preview does not follow the filter")
        it.add_filter("id", "<=", str(first + 3099))
        it.page.get_by_role("radio", name="CSV", exact=True).check()
        it.page.get_by_role("radio", name="gzip", exact=True).check()
        expect(it.page.locator("#summary")).to_have_text(f"CSV · gzip · {len(wanted)} columns")

        export_id = it.start()
        it.wait_for(export_id, "completed")
        told = document(export_id)
        check(told["status"] == "completed", f"the list says completed and the service {told['status']}")
        rows = told["progress"]["rows"]
        check(0 < rows <= 3000, f"{rows} rows came through the filters")
        expect(it.row(export_id)).to_contain_text(f"{rows:,} rows")

        with it.page.expect_download() as caught:
            it.row(export_id).get_by_role("link", name="Download").click()
        path = caught.value.path()
        with open(path, "rb") as file:
            content = file.read()
        # The browser says that it unpacks gzip; then the file has no gzip around it.
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        lines = list(csv.reader(io.StringIO(content.decode())))
        check(lines[0] == wanted, f"the file begins with {lines[0]}, and what was chosen is {wanted}")
        check(len(lines) - 1 == rows, f"the file has {len(lines) - 1} rows, and the export {rows}")
        print(f"  {path}: {rows} rows under {lines[0]}")

        for _ in range(2):
            it.page.get_by_role("button", name="Remove filter").first.click()
        # With every column and without gzip there are more shards, and the bar moves by shards.
        it.page.locator("#columns").get_by_role("checkbox", name=dropped, exact=True).check()
        it.page.get_by_role("radio", name="None", exact=True).check()
        export_id = it.start()
        values = percentages(it.wait_for(export_id, "completed"))
        rows = document(export_id)["progress"]["rows"]
        if rows >= SEEN_ROWS:
            check(len(set(values)) >= 2, f"an export of {rows} rows was seen at {values}, so its bar did not move")
        check(values == sorted(values), f"the bar went back: {values}")
        print(f"  {rows} rows, the bar at {values}")


@scenario
def failing(launched):
    """An export that fails says why, and so does a request that is refused, at its field."""
    dataset = os.environ["FAIL_DATASET"]
    with visit(launched, forgiven=[r"/exports(/preview)?$"]) as it:
        it.open()
        it.choose(dataset)
        export_id = it.start()
        it.wait_for(export_id, "failed")
        told = document(export_id)
        error = it.row(export_id).locator(".export-error")
        expect(error).to_be_visible()
        expect(error).to_contain_text(told["errorCode"])
        expect(error).to_contain_text(told["error"])
        check(len(error.locator("strong").text_content()) > 10, "the error is not in plain words")
        sentences = [it for it in re.split(r"(?<=[.!?:])\s+", error.locator("strong").text_content()) if it]
        check(len(sentences) == len(set(sentences)), f"the error says the same twice: {sentences}")
        expect(it.row(export_id).get_by_role("link", name="Download")).to_be_hidden()
        print(f"  {error.text_content()}")

        target = it.page.locator("#columns > li").first.get_by_role("textbox")
        target.fill("")
        it.page.get_by_role("button", name="Start export").click()
        expect(target).to_be_focused()
        expect(target).to_have_attribute("aria-invalid", "true")
        expect(it.page.locator("#outcome")).to_contain_text("Column 1: name in the file")
        expect(it.page.locator("#outcome")).not_to_contain_text("[0]")
        expect(it.page.locator("#columns > li").first).to_contain_text("May not be empty")
        # What was said of a mistake goes with the first key, however long the service takes to look again.
        it.page.route("**/exports/preview", lambda route: None)
        target.press("m")
        expect(target).not_to_have_attribute("aria-invalid", "true", timeout=250)
        expect(it.page.locator("#outcome")).to_be_empty(timeout=250)
        it.page.unroute("**/exports/preview")
        it.add_filter("id", "=", "no number")
        it.page.get_by_role("button", name="Start export").click()
        expect(it.page.locator("#outcome")).to_contain_text("Filter 1: value")


@scenario
def cancel(launched):
    """A long export is cancelled by the page, after a question."""
    with visit(launched) as it:
        it.open()
        it.choose(DATASET)
        export_id = it.start()
        row = it.row(export_id)
        it.wait_for(export_id, "running", "completed")
        check(it.status(export_id) != "completed", "the export was over before it could be cancelled: it needs more rows")
        row.get_by_role("button", name="Cancel").first.click()
        expect(row.get_by_role("button", name="Let it run")).to_be_focused()
        it.page.keyboard.press("Escape")
        expect(row.get_by_role("button", name="Let it run")).to_be_hidden()
        check(document(export_id)["status"] in ("running", "finishing"), "the question was withdrawn, and the export is not running")
        row.get_by_role("button", name="Cancel").first.click()
        row.get_by_role("button", name="Cancel the export").click()
        it.wait_for(export_id, "cancelled", "completed", patience=60)
        check(it.status(export_id) == "cancelled", "the export was completed before it was cancelled: it needs more rows")
        check(document(export_id)["status"] == "cancelled", "the list says cancelled and the service does not")
        expect(row.locator(".badge")).to_have_text("Cancelled")
        told = document(export_id)["progress"]
        check(told["rows"] > 0, "the export was cancelled before it had rows")
        facts = row.locator(".facts").first.text_content()
        check(not re.search(r"\d (rows?|[KMG]?i?B)\b", facts), f"a cancelled export has {facts!r}, which nobody keeps")
        expect(row.get_by_role("button", name="Cancel")).to_be_hidden()


@scenario
def commands(launched):
    """What is copied as curl does on a command line what the page does, whatever is in the names and values."""
    with visit(launched, permissions=["clipboard-read", "clipboard-write"]) as it, tempfile.TemporaryDirectory() as folder:

        def copied(button):
            button.click()
            expect(button).to_have_attribute("data-copied", "yes")
            command = it.page.evaluate("navigator.clipboard.readText()")
            run = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
            check(run.returncode == 0, f"{command}\nended with {run.returncode}: {run.stderr}")
            return run.stdout

        it.open()
        it.choose(DATASET)
        expect(it.cell(0, 0)).to_be_visible()
        names = it.preview_header()
        text = next(name for name in names if name != "id")
        given = "it's \"$(touch trap)\" `touch trap` \\ ü"
        it.page.get_by_label(f"Name of {text} in the file", exact=True).fill(given)
        it.add_filter("id", "in", "1, 2,3")
        expect(it.page.locator("#preview thead .target").filter(has_text="touch trap")).to_be_visible()
        answer = copied(it.page.locator("#curl"))
        check(" 201 " in answer.splitlines()[0], answer)
        export_id = re.search(r'"exportId":\s*"([^"]+)"', answer)[1]
        it.wait_for(export_id, "completed")
        copied(it.row(export_id).get_by_role("button", name="Copy curl"))
        files = os.listdir(folder)
        check(files == [f"{DATASET}.csv"], f"there is {files}")
        with open(os.path.join(folder, files[0]), newline="") as file:
            lines = list(csv.reader(file))
        check(lines[0] == [given if name == text else name for name in names], f"the file begins with {lines[0]}")
        check(len(lines) - 1 == document(export_id)["progress"]["rows"], f"the file has {len(lines) - 1} rows")


@scenario
def hostile(launched):
    """Names out of the database that look like markup are shown as they are, and do nothing."""
    name = os.environ["HOSTILE_DATASET"]
    with visit(launched) as it:
        dialogs = []
        it.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        it.open()
        it.choose(name)
        columns = [column["name"] for dataset in get(f"{API_URL}/datasets")["datasets"] if dataset["name"] == name for column in dataset["columns"]]
        check(any("<" in text for text in [name, *columns]), f"there is nothing hostile about {name} and {columns}")
        expect(it.page.locator("#preview thead .target")).to_have_text(columns)
        expect(it.page.locator("#columns .name")).to_have_text(columns)
        export_id = it.start()
        it.wait_for(export_id, "completed")
        expect(it.row(export_id).locator("h3 .name")).to_have_text(name)
        strange = it.page.locator("main :is(img, script, iframe, object, style)").count()
        check(strange == 0 and not dialogs, f"names became {strange} elements and the dialogs {dialogs}")


@scenario
def many(launched):
    """Hundreds of exports in the list, and typing and pressing are answered at once."""
    least = int(os.environ.get("MANY", "200"))
    with visit(launched) as it:
        it.open()
        more = it.page.locator("#list-more")
        for _ in range(200):
            if more.is_hidden():
                break
            shown = it.page.locator("#list > li").count()
            more.click()
            expect(it.page.locator("#list > li")).not_to_have_count(shown)
            expect(more).not_to_have_attribute("aria-disabled", "true")
        there = all_exports()
        check(len(there) >= least, f"there are only {len(there)} exports; the runner has to make {least}")
        expect(it.page.locator("#list > li")).to_have_count(len(there))
        shown = it.page.locator("#list > li").evaluate_all("(rows) => rows.map((row) => row.id)")
        check(shown == [f"export-{export_id}" for export_id in there], "the list is not all exports, newest first")

        it.choose(DATASET)
        it.start()
        # Of every event, the time from the hand to the next picture, as the browser measures it for the web vitals.
        it.page.evaluate("""() => {
            window.delays = [];
            new PerformanceObserver((seen) => window.delays.push(...seen.getEntries().map((it) => [it.name, it.duration])))
                .observe({type: 'event', durationThreshold: 16});
            for (const kind of ['keydown', 'click']) addEventListener(kind, (event) => {
                const since = performance.now();
                requestAnimationFrame(() => setTimeout(() => window.delays.push([`${kind} to frame`, performance.now() - since])));
            }, true);
        }""")
        name = it.page.locator("#columns > li").first.get_by_role("textbox")
        name.click()
        name.press_sequentially("typed while two hundred are shown", delay=30)
        for label in ("JSON", "XML", "CSV"):
            it.page.get_by_role("radio", name=label, exact=True).click()
        it.page.get_by_role("button", name="Add a filter").click()
        it.page.get_by_role("button", name="Remove filter").click()
        it.page.wait_for_timeout(500)
        delays = it.page.evaluate("window.delays")
        check(any(kind == "keydown to frame" for kind, _ in delays), "nothing was measured")
        kind, slowest = max(delays, key=lambda delay: delay[1])
        check(slowest < ANSWER_MS, f"with {len(there)} exports shown {kind} took {slowest:.0f} ms")
        print(f"  {len(there)} exports, the slowest of {len(delays)} answers was {kind} with {slowest:.0f} ms")


def all_exports():
    """Every id, newest first."""
    ids, cursor = [], ""
    while True:
        page = get(f"{API_URL}/exports?limit=200{cursor}")
        ids += [export["exportId"] for export in page["exports"]]
        if not page["nextCursor"]:
            return ids
        cursor = f"&cursor={page['nextCursor']}"


@scenario
def polling(launched):
    """Without events the page asks, and shows the same."""
    def without_events(page):
        # A worker's requests do not come by here, so this page has a stream of its own.
        page.add_init_script("delete window.SharedWorker;")
        page.route("**/events", lambda route: route.abort())

    with visit(launched, forgiven=[r"/events$"], before=without_events) as it:
        it.open()
        it.connection("Polling")
        it.choose(DATASET)
        export_id = it.start()
        values = percentages(it.wait_for(export_id, "completed"))
        expect(it.row(export_id).get_by_role("link", name="Download")).to_be_visible()
        it.connection("Polling")
        print(f"  completed without events, the bar at {values}")


@scenario
def two(launched):
    """What is asked of one api is seen on the page of another."""
    other = os.environ["OTHER_API_URL"].rstrip("/")
    with visit(launched) as it:
        asked = []
        it.page.on("request", lambda request: asked.append(request.url))
        it.open()
        it.connection("Live")
        it.page.wait_for_timeout(1000)
        columns = [dataset for dataset in get(f"{other}/datasets")["datasets"] if dataset["name"] == DATASET][0]["columns"]
        body = {"dataset": DATASET, "format": "jsonl", "columns": [{"source": column["name"], "target": column["name"]} for column in columns]}
        request = urllib.request.Request(f"{other}/exports", json.dumps(body).encode(), {"Content-Type": "application/json"})
        del asked[:]
        with urllib.request.urlopen(request, timeout=30) as answer:
            export_id = json.load(answer)["exportId"]
        values = percentages(it.wait_for(export_id, "completed"))
        check(it.page.locator("#list > li").first.get_attribute("id") == f"export-{export_id}", "the newest export is not the first")
        rows = document(export_id, other)["progress"]["rows"]
        check(rows < SEEN_ROWS or len(set(values)) >= 2, f"an export of {rows} rows was seen at {values}: no events, or no documents in them")
        it.connection("Live")
        lists = [url for url in asked if "/exports?" in url]
        check(not lists, f"the page asked for the list instead of listening: {lists}")
        print(f"  asked of {other}, the bar on {API_URL} at {values}")


@scenario
def tabs(launched):
    """More tabs than a browser has connections for: all of them load and see what happens, whichever of them is closed."""
    def opened():
        """How many streams of all exports were answered so far."""
        with urllib.request.urlopen(f"{API_URL}/metrics", timeout=30) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith("polyglot_http_requests_total{") and 'route="/events"' in line]
        return sum(float(line.split()[-1]) for line in lines)

    before = opened()
    with visit(launched) as first:
        first.open()
        first.connection("Live")
        others = [Visit(first.page.context.new_page(), ()) for _ in range(7)]
        for it in others:
            it.page.set_default_timeout(20_000)
            it.open()
            it.connection("Live")
        check(opened() == before + 1, f"eight tabs have opened {opened() - before} streams")
        # The first one has made the stream, and goes away.
        first.page.close()
        export_id = others[-1].start()
        for it in others:
            expect(it.row(export_id)).to_be_attached(timeout=15_000)
        seen = {number: others[number].wait_for(export_id, "completed") for number in (0, 6)}
        for it in others:
            expect(it.row(export_id)).to_have_attribute("data-status", "completed", timeout=15_000)
            it.connection("Live")
            check(not it.errors, f"a tab had errors: {it.errors}")
        print(f"  one stream for eight tabs, the bar at {seen[0]} and {seen[6]}")
        first.page = others[0].page


def previewed(it, action):
    """The body of the next preview that is answered, once `action` was done."""
    with it.page.expect_response(lambda answer: answer.url.endswith("/exports/preview")) as caught:
        action()
    return json.loads(caught.value.request.post_data)


def choose_everything(it):
    """Each part of the form is another than it was; the answer is the body of the preview."""
    it.choose(DATASET)
    expect(it.cell(0, 0)).to_be_visible()
    names = it.preview_header()
    it.page.locator("#columns").get_by_role("checkbox", name=names[-1], exact=True).uncheck()
    it.page.get_by_label(f"Name of {names[1]} in the file", exact=True).fill("given, näme & more")
    it.page.locator("#columns > li").nth(1).get_by_role("button", name="Move up").click()
    it.add_filter("id", ">=", "5")
    it.add_filter("id", "in", "10\n11,5\n12")
    it.page.locator("#filters > li").last.get_by_label("Values of filter").fill("10, 11,12")
    it.page.get_by_role("button", name="Sort by a column").click()
    it.page.get_by_label("Direction of sort key 1").select_option("desc")
    it.page.locator("details").evaluate_all("(all) => all.forEach((it) => { it.open = true; })")
    it.page.get_by_label("Delimiter").fill(";")
    it.page.get_by_label("Layout").select_option("files")
    it.page.get_by_role("radio", name="gzip", exact=True).check()
    return previewed(it, lambda: it.page.get_by_label("Shards at a time").fill("1"))


@scenario
def request(launched):
    """What an export was asked for is shown, asked for again, and changed; and what is deleted is called so."""
    with visit(launched) as it:
        it.open()
        asked = choose_everything(it)
        export_id = it.start()
        it.wait_for(export_id, "completed")
        told = document(export_id)["request"]
        check(told == asked, f"the service gives back {told}, and {asked} was asked for")
        check("request" not in get(f"{API_URL}/exports?limit=1")["exports"][0], "a list has the request")
        row = it.row(export_id)
        row.get_by_text("Request").click()
        for words in ("given, näme & more", "id ≥ \"5\" and id is one of \"10\", \"11\", \"12\"", "descending", "CSV · gzip", "a file for each shard"):
            expect(row.locator(".request")).to_contain_text(words)

        accepted = lambda answer: answer.request.method == "POST" and answer.url.endswith("/exports")
        with it.page.expect_response(accepted) as caught:
            row.get_by_role("button", name="Run again").click()
        again = caught.value.json()["exportId"]
        expect(row.locator(".request")).to_contain_text(f"Started the export {again[-8:]}.")
        it.wait_for(again, "completed")
        check(document(again)["request"] == asked, "the export that was run again is another one")

        it.page.goto("about:blank")
        it.open()
        row.get_by_text("Request").click()
        edited = previewed(it, row.get_by_role("button", name="Edit and run").click)
        check(edited == asked, f"the form has {edited}, and {asked} was asked for")
        check(it.page.evaluate("document.activeElement.id") == "new", "the form is not in focus")

        row.get_by_role("button", name="Delete").first.click()
        row.get_by_role("button", name="Delete the file").click()
        expect(row.locator(".badge")).to_have_text("Deleted")
        expect(row.locator(".moments")).to_contain_text("deleted")
        expect(row.locator(".request")).to_contain_text("id ≥ (value removed)")
        expect(row.get_by_role("button", name="Run again")).to_have_attribute("aria-disabled", "true")
        told = document(export_id)
        check(told["deleted"] and told["request"]["filters"][0] == {"column": "id", "op": ">="}, f"after the deletion it is {told}")
        row.get_by_role("button", name="Edit and run").click()
        expect(it.page.get_by_label("Value of filter 1")).to_have_value("")

        it.page.get_by_label("Show", exact=True).select_option("deleted")
        expect(it.row(export_id)).to_be_visible()
        expect(it.row(again)).not_to_be_attached()
        it.page.get_by_label("Show", exact=True).select_option("expired")
        expect(it.row(export_id)).not_to_be_attached()


@scenario
def address(launched):
    """A reload and a link have the whole form, as far as an address has room for it."""
    with visit(launched, forgiven=[r"/exports/preview$"]) as it:
        it.open()
        chosen = choose_everything(it)
        it.page.get_by_role("link", name="Benchmark", exact=True).click()
        check(it.page.evaluate("document.activeElement.id") == "benchmark", "the link does not lead to its section")
        it.page.wait_for_timeout(400)
        link = it.page.url
        check(previewed(it, it.page.reload) == chosen, "a reload loses what was chosen")
        again = Visit(it.page.context.new_page(), ())
        check(previewed(again, lambda: again.page.goto(link)) == chosen, "the address in another tab is another form")
        again.page.close()
        # Back to the defaults by a link in the same tab.
        body = previewed(it, lambda: it.page.evaluate(f"location.hash = '#dataset={DATASET}&format=json'"))
        check(body["format"] == "json" and "filters" not in body, f"a link is not followed: {body}")
        it.page.get_by_role("button", name="Add a filter").click()
        it.page.get_by_label("Value of filter 1").fill("x" * 9000)
        expect(it.page.locator("#address-state")).to_be_visible()
        it.page.wait_for_timeout(400)
        check(len(it.page.url) < 8200, f"the address has {len(it.page.url)} characters")
        it.page.get_by_label("Value of filter 1").fill("1")
        expect(it.page.locator("#address-state")).to_be_hidden()
        for broken in ("#dataset=nothing&format=pdf&form=%7B", "#dataset=records&form=%5B1%5D", '#dataset=records&form={"columns":[7],"filters":{}}'):
            previewed(it, lambda: it.page.goto(f"{API_URL}/?{len(broken)}{broken}"))


@scenario
def filters(launched):
    """A filter offers the operators that its column takes, and looks into documents at a path, comparing by type."""
    listed = {column["name"]: column for column in get(f"{API_URL}/datasets/{DATASET}")["columns"]}
    for width, height in ((360, 740), (1440, 900)):
        with visit(launched, forgiven=[r"/exports(/preview)?$"], viewport={"width": width, "height": height}) as it:
            it.open()
            it.choose(DATASET)
            expect(it.cell(0, 0)).to_be_visible()

            def offered():
                return line.get_by_label("Condition of filter").locator("option").evaluate_all("(all) => all.map(({ value }) => value)")

            it.page.get_by_role("button", name="Add a filter").click()
            line = it.page.locator("#filters > li").last
            for column in listed.values():
                line.get_by_label("Column of filter").select_option(column["name"])
                check(offered() == column["operators"], f"{column['name']} is offered {offered()}, and takes {column['operators']}")
                (expect(line.get_by_label("Path of filter")).to_be_visible if column["pathOperators"] else expect(line.get_by_label("Path of filter")).to_be_hidden)()
            check("like" in listed["name"]["operators"] and "like" not in listed["id"]["operators"], "the service lists one and the same for all")

            # In the document of the sample table: a string, a number, a boolean, and the item of an array.
            line.get_by_label("Column of filter").select_option("metadata")
            check("like" not in offered(), "a whole document is offered patterns")
            line.get_by_label("Path of filter").fill("category")
            check(offered() == listed["metadata"]["pathOperators"], f"what is at a path is offered {offered()}")
            line.get_by_label("Condition of filter").select_option("ilike")
            body = previewed(it, lambda: line.get_by_label("Value of filter").fill("BO%"))
            check(body["filters"] == [{"column": "metadata", "path": ["category"], "op": "ilike", "value": "BO%"}], f"asked for {body['filters']}")
            for path, operator, written, steps, value in (
                ("active", "=", "true", ["active"], True),
                ("amount", ">=", "250.5", ["amount"], 250.5),
                ("tags.0", "=", '"new"', ["tags", "0"], "new"),
                ('["tags", 1]', "in", "sale, b2b,17", ["tags", "1"], ["sale", "b2b", 17]),
                ("category", "=", '"17"', ["category"], "17"),
                ("category", "is_not_null", None, ["category"], None),
            ):
                line.get_by_label("Path of filter").fill(path)
                line.get_by_label("Condition of filter").select_option(operator)
                wanted = {"column": "metadata", "path": steps, "op": operator}
                if written is None:
                    body = previewed(it, lambda: it.page.get_by_role("radio", name="JSON", exact=True).check())
                else:
                    box = line.get_by_label("Values of filter" if operator == "in" else "Value of filter")
                    box.fill("")
                    body = previewed(it, lambda: box.fill(written))
                    wanted["value"] = value
                check(body["filters"] == [wanted], f"{path} {operator} {written} asks for {body['filters']}")
                check(all(type(one) is type(other) for one, other in zip([body["filters"][0].get("value")], [value])), f"{body['filters']} has another type")

            # A reload has the same, typed as it was; and a mistake in the path stands at the path.
            line.get_by_label("Path of filter").fill("category")
            line.get_by_label("Condition of filter").select_option("=")
            chosen = previewed(it, lambda: line.get_by_label("Value of filter").fill('"17"'))
            it.page.wait_for_timeout(400)
            check(previewed(it, it.page.reload)["filters"] == chosen["filters"], "a reload makes another filter of it")
            expect(line.get_by_label("Value of filter")).to_have_value('"17"')
            line.get_by_label("Path of filter").fill("[category")
            expect(line.get_by_label("Path of filter")).to_have_attribute("aria-invalid", "true")
            expect(line).to_contain_text("Expected an array of keys")
            line.get_by_label("Path of filter").fill("tags.0")
            previewed(it, lambda: line.get_by_label("Value of filter").fill("new"))
            wide = it.page.evaluate("document.documentElement.scrollWidth")
            check(wide <= width, f"at {width} px the page is {wide} px wide")
            line.scroll_into_view_if_needed()
            it.page.wait_for_timeout(300)
            shot(it, f"{width}-filters")

            # In the list it is told with its path, and asked for again as it was.
            it.add_filter("id", "<=", "500")
            export_id = it.start()
            it.wait_for(export_id, "completed")
            row = it.row(export_id)
            row.get_by_text("Request").click()
            expect(row.locator(".request")).to_contain_text('metadata at tags.0 = "new"')
            rows = document(export_id)["progress"]["rows"]
            check(0 < rows < 500, f"the filter lets {rows} of 500 rows through")


def shot(it, name):
    """A picture for people, where the runner wants pictures."""
    if "SHOTS" in os.environ:
        os.makedirs(os.environ["SHOTS"], exist_ok=True)
        it.page.screenshot(path=f"{os.environ['SHOTS']}/{name}.png")


class Doorman:
    """Stands before the service and asks who it is, as the service does where authentication is on: by a session that is
    there or not, and never by what the requests themselves say."""

    KEYS = {"right": {"name": "reports", "tenant": "shop"}, "other": {"name": "audit", "tenant": "bank"}}

    def __init__(self, page, auth="on", who=None):
        self.auth, self.who, self.asked, self.without_header, self.refuse = auth, who, [], [], None
        page.route("**/*", self.answer)

    def answer(self, route):
        request = route.request
        path = re.sub(r"^https?://[^/]*|\?.*$", "", request.url)
        if path == "/" or path.startswith("/assets/"):
            route.continue_()
            return
        self.asked.append(f"{request.method} {path}")
        if request.resource_type == "fetch" and request.headers.get("x-polyglot-request") != "page":
            self.without_header.append(self.asked[-1])
        if path == "/session":
            self.session(route, request)
        elif self.auth == "on" and not self.who:
            self.problem(route, 401, "not-authenticated", "Say who you are.")
        elif self.refuse and self.asked[-1] == self.refuse:
            self.problem(route, 403, "missing-scope", "This needs the scope exports:create, which the key or session does not have.")
        else:
            route.continue_()

    def session(self, route, request):
        if request.method == "POST":
            key = json.loads(request.post_data)["key"]
            if key == "hasty":
                return self.problem(route, 429, "too-many-sign-ins", "Too many keys were tried. Try again in 7 seconds.")
            if key not in self.KEYS:
                return self.problem(route, 401, "not-authenticated", "The API key is not known here, has expired, or was revoked.")
            self.who = self.KEYS[key]
        if request.method == "DELETE":
            self.who = None
            return route.fulfill(status=204)
        told = {"auth": self.auth, "signedIn": self.who is not None, "name": None, "tenant": None, "scopes": [], "expiresAt": None}
        return route.fulfill(json=told | (self.who or {}))

    def problem(self, route, status, kind, detail):
        route.fulfill(status=status, content_type="application/problem+json",
                      body=json.dumps({"type": f"urn:polyglot:problem:{kind}", "title": kind, "status": status, "detail": detail}))


@scenario
def session(launched):
    """Signing in, a session that ends in the middle of something, another person, and signing out."""
    def with_doorman(auth="on", who=None):
        def before(page):
            # A worker's requests do not come by here, so this page has a stream of its own.
            page.add_init_script("delete window.SharedWorker;")
            page.add_init_script(OBSERVE_SHIFTS)
            page.doorman = Doorman(page, auth, who)
        return before

    for width, height in ((360, 740), (1440, 900)):
        size = {"viewport": {"width": width, "height": height}, "forgiven": [r"/(exports|events|session|datasets)"]}
        with visit(launched, before=with_doorman(), **size) as it:
            doorman = it.page.doorman
            dialog, key, about = it.page.get_by_role("dialog", name="Sign in"), it.page.get_by_label("API key"), it.page.locator("#access")

            def sign_in(given):
                key.fill(given)
                it.page.get_by_role("button", name="Sign in").click()

            it.page.goto(f"{API_URL}/")
            expect(key).to_be_focused()
            check(doorman.asked == ["GET /session"], f"without a session the page asks for {doorman.asked}")
            found = violations(it.page)
            check(not found, f"signing in at {width} px: {found}")
            check(key.get_attribute("type") == "password", "the key is shown")
            it.page.keyboard.press("Escape")
            it.page.keyboard.press("Escape")
            expect(dialog).to_be_visible()
            for given, words in (("", "Enter an API key."), ("wrong", "not known here"), ("hasty", "in 7 seconds")):
                sign_in(given)
                expect(it.page.locator("#sign-in-error")).to_contain_text(words)
                expect(key).to_be_focused()
            shot(it, f"{width}-sign-in")
            sign_in("right")
            expect(dialog).to_be_hidden()
            expect(about).to_contain_text("Signed in as reports (shop)")
            check(key.input_value() == "", "the key stays in the page")
            it.connection("Live")
            it.choose(DATASET)
            expect(it.cell(0, 0)).to_be_visible()
            found = violations(it.page)
            check(not found, f"signed in at {width} px: {found}")
            expect(it.page.locator("#curl")).to_be_visible()

            # It ends while something is being chosen, and what was chosen is started once somebody has signed in.
            name = it.page.locator("#columns > li").first.get_by_role("textbox")
            previewed(it, lambda: name.fill("kept name"))
            it.add_filter("id", "<=", "50")
            doorman.who = None
            it.page.get_by_role("button", name="Start export").click()
            expect(dialog).to_contain_text("Your session has ended")
            expect(it.page.locator("#connection")).to_have_text("Signed out")
            it.page.wait_for_timeout(2500)
            streams = doorman.asked.count("GET /events")
            it.page.wait_for_timeout(2500)
            check(doorman.asked.count("GET /events") == streams, "the page goes on asking for events without a session")
            expect(name).to_have_value("kept name")
            accepted = lambda answer: answer.request.method == "POST" and answer.url.endswith("/exports") and answer.status == 201
            with it.page.expect_response(accepted) as caught:
                sign_in("right")
            export_id = caught.value.json()["exportId"]
            it.wait_for(export_id, "completed")
            it.connection("Live")
            check(doorman.asked.count("GET /events") == streams + 1, "the stream does not start again")
            asked = document(export_id)["request"]
            check(asked["columns"][0]["target"] == "kept name" and asked["filters"][0]["value"] == "50", f"asked for {asked}")

            doorman.refuse = "POST /exports"
            it.page.get_by_role("button", name="Start export").click()
            expect(it.page.locator("#outcome")).to_contain_text("This needs the scope exports:create")
            doorman.refuse = None

            # Somebody else: nothing of the one before is left but the form, which is in the address.
            doorman.who = None
            it.page.get_by_role("button", name="Start export").click()
            expect(dialog).to_be_visible()
            before = len(doorman.asked)
            with it.page.expect_navigation():
                sign_in("other")
            expect(about).to_contain_text("Signed in as audit (bank)")
            expect(name).to_have_value("kept name")
            check("POST /exports" not in doorman.asked[before:], "what one person has asked for is started by another")

            with it.page.expect_navigation():
                it.page.get_by_role("button", name="Sign out").click()
            expect(dialog).to_be_visible()
            expect(it.page.locator("#list > li")).to_have_count(0)
            check("form=" not in it.page.url, f"the form stays in the address: {it.page.url}")
            check(not doorman.without_header, f"without the page's header: {doorman.without_header}")

        with visit(launched, before=with_doorman("off"), **size) as it:
            it.open()
            it.connection("Live")
            expect(it.cell(0, 0)).to_be_visible()
            shifts = it.page.evaluate("window.shifts")
            check(sum(value for value, _ in shifts) <= MOST_SHIFT, f"at {width} px the layout shifts: {shifts}")
            notice = it.page.get_by_text("Authentication is off: everyone who can reach this address can export.")
            for where in (0, 10_000):
                it.page.evaluate("(to) => scrollTo(0, to)", where)
                it.page.wait_for_timeout(300)
                expect(notice).to_be_in_viewport(ratio=1)
                shot(it, f"{width}-open-{where}")
            found = violations(it.page)
            check(not found, f"without authentication at {width} px: {found}")
            expect(it.page.get_by_role("button", name="Sign out")).to_have_count(0)
        with visit(launched, before=with_doorman("on", Doorman.KEYS["right"]), **size) as it:
            it.open()
            it.connection("Live")
            expect(it.page.locator("#access")).to_contain_text("Signed in as reports (shop)")
            shot(it, f"{width}-signed-in")
            shifts = it.page.evaluate("window.shifts")
            check(sum(value for value, _ in shifts) <= MOST_SHIFT, f"at {width} px the layout shifts: {shifts}")


@scenario
def key(launched):
    """Signing in to a service that asks for it, in two tabs with one stream, and a session that ends."""
    with visit(launched, forgiven=[r"/(exports|events|session|datasets)"]) as it:
        box, dialog = it.page.get_by_label("API key"), it.page.get_by_role("dialog", name="Sign in")

        def sign_in(page, given):
            page.get_by_label("API key").fill(given)
            page.get_by_role("button", name="Sign in").click()

        it.page.goto(f"{API_URL}/")
        expect(box).to_be_focused()
        for wrong in ("nonsense", f"{os.environ['API_KEY'][:-4]}0000"):
            sign_in(it.page, wrong)
            expect(it.page.locator("#sign-in-error")).to_contain_text("not known here")
        sign_in(it.page, os.environ["API_KEY"])
        expect(dialog).to_be_hidden()
        expect(it.page.locator("#access")).to_contain_text("Signed in as page (shop)")
        cookies = it.page.context.cookies()
        check(len(cookies) == 1 and cookies[0]["httpOnly"] and cookies[0]["sameSite"] == "Strict", f"the cookies are {cookies}")
        it.connection("Live")
        it.choose(DATASET)
        expect(it.cell(0, 0)).to_be_visible()
        first = it.start()
        it.wait_for(first, "completed")
        with it.page.expect_download() as caught:
            it.row(first).get_by_role("link", name="Download").click()
        check(os.path.getsize(caught.value.path()) > 0, "the file is empty")

        # Another tab is signed in by the same cookie, and both hear of what happens.
        other = Visit(it.page.context.new_page(), [r"/(exports|events|session|datasets)"])
        other.open()
        other.connection("Live")
        second = other.start()
        expect(it.row(second)).to_be_attached(timeout=15_000)
        it.wait_for(second, "completed")

        # As after its time, or where the key was revoked.
        it.page.context.clear_cookies()
        it.page.get_by_role("button", name="Start export").click()
        expect(dialog).to_contain_text("Your session has ended")
        expect(other.page.get_by_role("dialog", name="Sign in")).to_be_visible()
        accepted = lambda answer: answer.request.method == "POST" and answer.url.endswith("/exports") and answer.status == 201
        with it.page.expect_response(accepted) as caught:
            sign_in(it.page, os.environ["API_KEY"])
        third = caught.value.json()["exportId"]
        it.wait_for(third, "completed")
        it.connection("Live")
        # The other one goes on by itself, and by events.
        expect(other.page.get_by_role("dialog", name="Sign in")).to_be_hidden()
        other.wait_for(third, "completed")
        other.connection("Live")

        it.page.get_by_role("button", name="Sign out").click()
        expect(dialog).to_be_visible()
        expect(other.page.get_by_role("dialog", name="Sign in")).to_be_visible()
        check(not it.page.context.cookies(), f"the cookies are {it.page.context.cookies()}")
        check(not other.errors, f"the other tab had errors: {other.errors}")


@scenario
def benchmarks(launched):
    """Runs of the benchmark are not among the exports until somebody wants to see them."""
    with visit(launched) as it:
        it.open()
        mine = it.start()
        it.wait_for(mine, "completed")
        before = it.page.locator("#list > li").count()
        get(f"{API_URL}/exports/benchmark?rows=1000&formats=csv,json")
        # Runs of an earlier benchmark would be shown as well.
        runs = sum(export["benchmark"] for export in get(f"{API_URL}/exports")["exports"])
        toggle = it.page.get_by_label(f"Show {runs} benchmark runs")
        expect(toggle).to_be_visible()
        expect(it.page.locator("#list > li")).to_have_count(before)
        toggle.check()
        expect(it.page.locator("#list > li")).to_have_count(before + runs)
        expect(it.page.locator("#list > li").first).to_contain_text("benchmark")
        expect(it.page.locator("#list > li").first.locator(".badge")).to_have_text("Deleted")
        toggle.uncheck()
        expect(it.page.locator("#list > li")).to_have_count(before)
        it.page.reload()
        expect(it.row(mine)).to_be_visible()
        expect(it.page.locator("#list > li").filter(has_text="benchmark")).to_have_count(0)


@scenario
def wording(launched):
    """What the page says is so: compression, rates, estimates and names that are long."""
    with visit(launched) as it:
        it.open()
        it.choose(DATASET)
        expect(it.page.locator("#preview-state")).to_contain_text(re.compile(r"The first 20 of about [\d,]+ rows, by an estimate"))
        check(it.page.locator("#preview-state").get_attribute("role") == "status", "nobody announces the preview")
        it.page.get_by_role("radio", name="Parquet", exact=True).check()
        field = it.page.locator("#compression-field")
        expect(field).to_contain_text("Snappy")
        becomes = [column["becomes"]["parquet"] for column in get(f"{API_URL}/datasets/{DATASET}")["columns"]]
        expect(it.page.locator("#preview thead .becomes")).to_have_text([f"→ {words}" for words in becomes])
        expect(it.page.locator(".preview")).to_contain_text("Values as the file has them")
        expect(field.get_by_text("None", exact=True)).to_be_hidden()
        expect(it.page.locator("#summary")).to_contain_text("Parquet · Snappy")
        it.page.get_by_role("radio", name="CSV", exact=True).check()
        expect(field.get_by_text("None", exact=True)).to_be_visible()
        it.add_filter("id", "<=", "1")
        # Seen without opening a list; only CSV has it.
        it.page.get_by_label("Kind of CSV").select_option("CSV for spreadsheets")
        it.page.get_by_role("radio", name="JSON", exact=True).check()
        expect(it.page.get_by_label("Kind of CSV")).to_be_hidden()
        it.page.get_by_role("radio", name="CSV", exact=True).check()
        export_id = it.start()
        check(get(f"{API_URL}/exports/{export_id}")["request"]["options"] == {"profile": "spreadsheet"}, "the kind of CSV is not asked for")
        it.wait_for(export_id, "completed")
        facts = it.row(export_id).locator(".facts").first.text_content()
        check("rows/s" not in facts and "in 0 s" not in facts, f"a small export has {facts!r}")
    long = os.environ["LONG_DATASET"]
    for width in (360, 1440):
        with visit(launched, viewport={"width": width, "height": 740}) as it:
            it.open()
            it.choose(long)
            export_id = it.start()
            it.wait_for(export_id, "completed")
            row = it.row(export_id)
            row.get_by_text("Request").click()
            expect(row.locator(".request dl")).to_be_visible()
            outside = it.page.evaluate("""() => [...document.querySelectorAll('.card')].flatMap((card) => {
                const edge = card.getBoundingClientRect().right;
                return [...card.querySelectorAll('*')].filter((it) => !it.closest('.scroller, .unseen, .columns') && it.getBoundingClientRect().right > edge)
                    .map((it) => `${it.tagName}.${it.className} ${it.textContent.slice(0, 30)}`);
            })""")
            check(not outside, f"at {width} px these run out of their card: {outside[:5]}")


# Compressed, with the heads of the answers as browsers count them.
MOST_TRANSFERRED = 60 * 1024
MOST_SHIFT = 0.1

OBSERVE_SHIFTS = """
    window.shifts = [];
    new PerformanceObserver((list) => window.shifts.push(...list.getEntries().filter((it) => !it.hadRecentInput).map((it) =>
        [it.value, it.sources.map(({ node }) => node?.id || node?.className || node?.nodeName)])))
        .observe({ type: 'layout-shift', buffered: true });
"""


@scenario
def loading(launched):
    """Little is transferred, and nothing jumps while it comes."""
    def slow(page):
        page.add_init_script(OBSERVE_SHIFTS)
        # The answers come one after the other, as over a slow line.
        for pattern, milliseconds in ((r"/datasets$", 400), (r"/exports\?", 900), (r"/exports/preview$", 600)):
            page.route(re.compile(pattern), lambda route, _=None, wait=milliseconds: (page.wait_for_timeout(wait), route.continue_()))

    for width in (360, 1440):
        for before in (lambda page: page.add_init_script(OBSERVE_SHIFTS), slow):
            with visit(launched, viewport={"width": width, "height": 740 if width < 400 else 900}, before=before) as it:
                it.open()
                expect(it.cell(0, 0)).to_be_visible()
                it.connection("Live")
                it.page.wait_for_timeout(700)
                shifts = it.page.evaluate("window.shifts")
                total = sum(value for value, _ in shifts)
                check(total <= MOST_SHIFT, f"at {width} px the layout shifts by {total:.3f}: {shifts}")
                print(f"  {width} px: shift {total:.3f}")
    with visit(launched) as it:
        it.open()
        it.connection("Live")
        files = it.page.evaluate("""() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
            .filter((it) => /\\/(assets\\/.*)?$/.test(new URL(it.name).pathname)).map((it) => [it.name, it.transferSize, it.decodedBodySize])""")
        total, plain = sum(size for _, size, _ in files), sum(size for _, _, size in files)
        check(len(files) > 20, f"the page loads {files}")
        check(total <= MOST_TRANSFERRED, f"{total} bytes are transferred: {sorted(files, key=lambda it: -it[1])[:5]}")
        print(f"  {len(files)} files, {total} bytes transferred of {plain}")


def violations(page):
    """What the accessibility rules that a program can check say against the page."""
    import axe_playwright_python

    source = os.path.join(os.path.dirname(axe_playwright_python.__file__), "axe.min.js")
    with open(source, encoding="utf-8") as file:
        page.evaluate(file.read())
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    return [f"{it['id']}: {it['help']}: {[node['target'] for node in it['nodes']][:3]}" for it in found]


@scenario
def axe(launched):
    """No violation of the accessibility rules that a program can check, and nothing in focus is covered."""
    for width in (360, 1440):
        for scheme in ("light", "dark"):
            with visit(launched, forgiven=[r"/exports(/preview)?$"], viewport={"width": width, "height": 900}, color_scheme=scheme) as it:
                it.open()
                it.choose(os.environ["FAIL_DATASET"])
                it.wait_for(it.start(), "failed")
                it.choose(DATASET)
                it.add_filter("id", "<=", "30")
                it.wait_for(it.start(), "completed")
                expect(it.cell(0, 0)).to_be_visible()
                found = violations(it.page)
                check(not found, f"at {width} px, {scheme}: {found}")
                unfold(it)
                it.page.locator("#filters > li").first.get_by_label("Value of filter").fill("no number")
                expect(it.page.locator("#preview.stale")).to_be_visible()
                expect(it.page.locator(".request dl").first).to_be_visible()
                found = violations(it.page)
                check(not found, f"at {width} px, {scheme}, with everything open: {found}")
            with visit(launched, viewport={"width": width, "height": 900}, color_scheme=scheme) as it:
                it.page.goto(f"{API_URL}/docs/")
                # Swagger UI takes seconds to lay the page out while others use the machine.
                expect(it.page.locator(".opblock").first).to_be_visible(timeout=20_000)
                for operation in it.page.locator(".opblock-summary-control").all()[:3]:
                    operation.click()
                expect(it.page.locator(".opblock.is-open .responses-table").nth(2)).to_be_visible(timeout=20_000)
                found = violations(it.page)
                check(not found, f"/docs at {width} px, {scheme}: {found}")


# (state, attempt, rows) that is known, that comes, and whether it is the newer one or the same.
ORDERS = [
    (("pending", 0, 0), ("planning", 1, 0), True),
    (("running", 1, 500), ("running", 1, 500), True),
    (("running", 1, 500), ("running", 1, 400), False),
    (("running", 1, 500), ("planning", 1, 0), False),
    (("running", 1, 500), ("pending", 1, 0), True),  # given back
    (("pending", 1, 0), ("running", 1, 500), False),
    (("pending", 1, 0), ("planning", 2, 0), True),
    (("running", 2, 10), ("finishing", 1, 900), False),
    (("finishing", 1, 900), ("completed", 1, 900), True),
    (("completed", 1, 900), ("finishing", 1, 900), False),
    (("completed", 1, 900), ("running", 2, 900), False),
    (("completed", 1, 900), ("expired", 1, 900), True),
    (("expired", 1, 900), ("completed", 1, 900), False),
    (("running", 3, 10), ("cancelled", 3, 10), True),
    (("cancelled", 3, 10), ("running", 3, 20), False),
    (("failed", 3, 10), ("pending", 3, 10), False),
]


@scenario
def order(launched):
    """Documents come in any order, and an old one changes nothing."""
    with visit(launched) as it:
        it.open()
        answers = it.page.evaluate("""async (orders) => {
            const { supersedes } = await import('/assets/known-exports.js');
            const document = ([status, attempt, rows]) => ({ status, attempt, progress: { rows } });
            return orders.map(([known, next]) => supersedes(document(next), document(known)));
        }""", ORDERS)
        wrong = [(known, then) for (known, then, wanted), answer in zip(ORDERS, answers) if answer != wanted]
        check(not wrong, f"wrong about {wrong}")


@scenario
def failover(launched):
    """One of two apis dies under the page, which goes on with the other one."""
    proxy = os.environ["PROXY_URL"].rstrip("/")
    with visit(launched, forgiven=["."]) as it:
        it.open(proxy)
        it.connection("Live")
        it.choose(DATASET)
        export_id = it.start()
        it.wait_for(export_id, "running", "completed")
        check(it.status(export_id) != "completed", "the export was over before an api could die: it needs more rows")
        print("KILL", flush=True)
        check(sys.stdin.readline() != "", "nobody said that the api is dead")
        values = percentages(it.wait_for(export_id, "completed"))
        it.connection("Live", patience=60)
        check(document(export_id, proxy)["status"] == "completed", "the list says completed and the service does not")
        second = it.start()
        it.wait_for(second, "completed")
        print(f"  went on after the death, the bar at {values}")


NAMED = {"textbox", "searchbox", "combobox", "checkbox", "radio", "button", "link", "progressbar", "spinbutton", "listbox",
         "region", "image", "img", "group", "table", "navigation"}


def unnamed(page):
    """What a screen reader would have no name for, out of the browser's own accessibility tree."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    found = []
    for node in nodes:
        role = node.get("role", {}).get("value", "").lower()
        if node.get("ignored") or role not in NAMED or node.get("name", {}).get("value", "").strip():
            continue
        # A group that only folds, or a picture beside its words, needs none.
        if role in ("group", "image", "img"):
            continue
        found.append(f"{role} ({node.get('backendDOMNodeId')})")
    return found


def unfold(it):
    """Everything that can be open at once: options, filters of each kind, an order, the question before a removal."""
    it.page.locator("details").evaluate_all("(all) => all.forEach((it) => { it.open = true; })")
    it.add_filter("id", ">=", "1")
    it.page.get_by_role("button", name="Add a filter").click()
    line = it.page.locator("#filters > li").last
    line.get_by_label("Condition of filter").select_option("in")
    line.get_by_label("Values of filter").fill("1, 2, 3")
    it.page.get_by_role("button", name="Sort by a column").click()
    for button in it.page.locator(".export").get_by_role("button", name="Delete").all()[:1]:
        button.click()


@scenario
def access(launched):
    """Names for everything, no sideways scrolling, the keyboard alone, and mistakes that are told at their fields."""
    with visit(launched) as it:
        it.open()
        it.choose(DATASET)
        small = it.start()
        it.wait_for(small, "completed")
        unfold(it)
        expect(it.cell(0, 0)).to_be_visible()
        nameless = unnamed(it.page)
        check(not nameless, f"without a name: {nameless}")
        twice = it.page.evaluate("() => { const ids = [...document.querySelectorAll('[id]')].map((it) => it.id); return ids.filter((id, at) => ids.indexOf(id) !== at); }")
        check(not twice, f"ids that are there twice: {twice}")
        dangling = it.page.evaluate("""() => [...document.querySelectorAll('[aria-describedby], [aria-labelledby]')].flatMap((it) =>
            `${it.getAttribute('aria-describedby') ?? ''} ${it.getAttribute('aria-labelledby') ?? ''}`.split(' ').filter((id) => id && !document.getElementById(id)))""")
        check(not dangling, f"described by what is not there: {dangling}")
        levels = it.page.locator("h1, h2, h3").evaluate_all("(all) => all.map((it) => Number(it.tagName[1]))")
        check(levels[0] == 1 and levels.count(1) == 1, f"headings begin with {levels[:3]}")

    # 320: 400 % of 1280, and 200 % of the narrow one.
    for width in (320, 360, 720, 1024, 1440):
        for scheme in ("light", "dark"):
            with visit(launched, viewport={"width": width, "height": 740}, color_scheme=scheme) as it:
                it.open()
                it.choose(DATASET)
                expect(it.cell(0, 0)).to_be_visible()
                unfold(it)
                it.page.wait_for_timeout(300)
                wide = it.page.evaluate("document.documentElement.scrollWidth")
                culprits = it.page.evaluate("""(width) => [...document.querySelectorAll('body *')].filter((it) => it.getBoundingClientRect().right > width + 1
                    && !it.closest('.scroller, .unseen, .columns')).slice(0, 5).map((it) => `${it.tagName}.${it.className}#${it.id}`)""", width)
                check(wide <= width and not culprits, f"at {width} px the page is {wide} px wide: {culprits}")
                faint = it.page.evaluate(FAINT)
                check(not faint, f"too little contrast at {width} px, {scheme}: {faint[:8]}")
    keyboard(launched)


def keyboard(launched):
    with visit(launched) as it:
        it.open()
        it.choose(DATASET)
        expect(it.cell(0, 0)).to_be_visible()
        it.page.evaluate("document.activeElement.blur()")
        passed = []
        for _ in range(150):
            it.page.keyboard.press("Tab")
            at, seen = it.page.evaluate("""() => {
                const it = document.activeElement;
                const visible = (element) => {
                    const { outlineStyle, outlineWidth } = getComputedStyle(element);
                    return outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1;
                };
                return [`${it.tagName} ${it.id || it.name || it.textContent.trim()}`, visible(it) || visible(it.nextElementSibling ?? it)];
            }""")
            check(seen, f"the focus is not to be seen on {at}")
            covered = it.page.evaluate("""() => {
                const bar = document.getElementById('start-bar');
                const it = document.activeElement;
                if (bar.contains(it) || getComputedStyle(bar).position !== 'sticky') return false;
                const { top, bottom } = it.getBoundingClientRect();
                return bottom - top < innerHeight / 2 && bottom > bar.getBoundingClientRect().top + 1 && top < bar.getBoundingClientRect().bottom;
            }""")
            check(not covered, f"the bar with the button covers {at}")
            passed.append(at)
            if at == "BUTTON start":
                break
        check(passed[-1] == "BUTTON start", f"Tab does not lead to Start export: {passed}")
        check(passed[0].startswith("A"), f"the first stop is no skip link: {passed[0]}")
        accepted = lambda answer: answer.request.method == "POST" and answer.url.endswith("/exports")
        with it.page.expect_response(accepted) as caught:
            it.page.keyboard.press("Enter")
        export_id = caught.value.json()["exportId"]
        it.wait_for(export_id, "running", "finishing", "completed")
        check(it.page.evaluate("document.activeElement.id") == "start", "the focus was lost by starting")
        expect(it.page.locator("#outcome")).to_contain_text("Started")
        it.wait_for(export_id, "completed")
        print(f"  Start export is reached in {len(passed)} steps")


# Text of less than 4.5 to 1 (3 to 1 if large) against what is behind it, where that is one colour.
FAINT = """() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgba = (text) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return { r, g, b, a: a / 255 };
    };
    const over = (top, under) => Object.fromEntries([...'rgb'].map((it) => [it, top[it] * top.a + under[it] * (1 - top.a)]));
    const behind = (element) => {
        if (!element) return rgba(matchMedia('(prefers-color-scheme: dark)').matches ? 'black' : 'white');
        const colour = rgba(getComputedStyle(element).backgroundColor);
        return colour.a === 1 ? colour : colour.a === 0 ? behind(element.parentElement) : over(colour, behind(element.parentElement));
    };
    const light = ({ r, g, b }) => {
        const [x, y, z] = [r, g, b].map((it) => (it /= 255) <= .03928 ? it / 12.92 : ((it + .055) / 1.055) ** 2.4);
        return .2126 * x + .7152 * y + .0722 * z;
    };
    const faint = [];
    for (const element of document.querySelectorAll('body *')) {
        if (element.closest('.unseen, [disabled], .skips, svg') || element.matches('.segments input:disabled + span, option')) continue;
        const own = [...element.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
        if (!(own || element.matches('input:not([type=checkbox], [type=radio]), select, textarea')) || !element.checkVisibility({ checkOpacity: true })) continue;
        const style = getComputedStyle(element);
        const ground = behind(element);
        const [one, other] = [light(over(rgba(style.color), ground)), light(ground)].sort((a, b) => b - a);
        const ratio = (one + .05) / (other + .05);
        if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) faint.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
    }
    return [...new Set(faint)];
}"""


@scenario
def screens(launched):
    """Pictures of the page: narrow and wide, light and dark, with exports in several states."""
    folder = os.environ["SHOTS"]
    os.makedirs(folder, exist_ok=True)
    for width, height in ((1440, 1000), (360, 740)):
        for scheme in ("light", "dark"):
            with visit(launched, forgiven=[r"/exports/preview$"], viewport={"width": width, "height": height}, color_scheme=scheme,
                       device_scale_factor=1 if width > 400 else 2) as it:
                it.open()
                it.choose(os.environ["FAIL_DATASET"])
                it.wait_for(it.start(), "failed")
                it.choose(DATASET)
                it.add_filter("id", "<=", "5000")
                it.wait_for(it.start(), "completed")
                it.page.get_by_role("button", name="Remove filter").click()
                it.page.get_by_role("radio", name="gzip", exact=True).check()
                running = it.start()
                it.wait_for(running, "running", "completed")
                expect(it.cell(0, 0)).to_be_visible()
                bar = it.row(running).locator("progress")
                for _ in range(100):
                    if float(bar.get_attribute("value") or 0) > 20 or it.status(running) == "completed":
                        break
                    it.page.wait_for_timeout(100)
                it.page.evaluate("scrollTo(0, 0)")
                it.page.wait_for_timeout(300)
                it.page.screenshot(path=f"{folder}/{width}-{scheme}.png")
                # In a window that is as tall as the page: what is out of sight is not drawn.
                tall = min(it.page.evaluate("document.documentElement.scrollHeight"), 4000)
                it.page.set_viewport_size({"width": width, "height": tall})
                it.page.wait_for_timeout(200)
                it.page.screenshot(path=f"{folder}/{width}-{scheme}-whole.png")
                it.wait_for(running, "completed")


def main(names):
    if names == ["all"]:
        names = [name for name in SCENARIOS if name != "key" or "API_KEY" in os.environ]
    unknown = [name for name in names if name not in SCENARIOS]
    if not names or unknown:
        sys.exit(f"usage: page.py SCENARIO...; there is {', '.join(SCENARIOS)}, all")
    failed = []
    with browser() as launched:
        for name in names:
            print(f"{name}: {SCENARIOS[name].__doc__}", flush=True)
            try:
                SCENARIOS[name](launched)
            except Exception as error:
                failed.append(name)
                where = [f"line {frame.lineno}" for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__]
                print(f"FAILED {name}: {', '.join(where)}: {error}", file=sys.stderr, flush=True)
            else:
                print(f"ok {name}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
