"""What a page of another site can do to the service through a real browser whose user is signed in or trusted by address.

usage: foreign_pages.py cross_site    against a service that asks who its clients are; API_KEY is a key of theirs
       foreign_pages.py rebinding     against a service with AUTH=off on this machine's own address

environment: API_URL, API_KEY, EXPORT_ID (`cross_site`: a finished export of the key's tenant)

Exits with 1 and says what was not so.
"""

import http.server
import json
import os
import sys
import threading
import urllib.request
from urllib.parse import urlsplit

from page import API_URL, ARGUMENTS, CHROMIUM, check
from playwright.sync_api import expect, sync_playwright

REQUEST = json.dumps({"format": "csv", "columns": [{"source": "id", "target": "id"}], "dataset": "records"})

# Every way by which a page asks another site for something. Each resolves to what the page could see of it.
ATTEMPTS = """async ({api, id, request}) => {
    const seen = {};
    const attempt = async (name, action) => {
        try { seen[name] = await action(); } catch (error) { seen[name] = `refused: ${error.name}`; }
    };
    const read = async (answer) => answer.type === 'opaque' ? 'opaque' : `${answer.status} ${await answer.text()}`;
    const ask = (path, options) => async () => read(await fetch(`${api}${path}`, {credentials: 'include', ...options}));
    await attempt('list', ask('/exports'));
    await attempt('list without cors', ask('/exports', {mode: 'no-cors'}));
    await attempt('download', ask(`/exports/${id}/download`));
    await attempt('session', ask('/session'));
    await attempt('submit as text', ask('/exports', {method: 'POST', mode: 'no-cors', body: request}));
    await attempt('submit as json', ask('/exports', {method: 'POST', body: request, headers: {'content-type': 'application/json'}}));
    await attempt('submit as the page does', ask('/exports', {method: 'POST', body: request,
        headers: {'content-type': 'application/json', 'x-polyglot-request': 'page'}}));
    await attempt('delete', ask(`/exports/${id}`, {method: 'DELETE', headers: {'x-polyglot-request': 'page'}}));
    await attempt('beacon', async () => String(navigator.sendBeacon(`${api}/exports`, request)));
    const load = (tag, attribute, path, parent = document.body) => () => new Promise((resolve) => {
        const element = document.createElement(tag);
        element.onload = () => resolve('loaded');
        element.onerror = () => resolve('refused');
        element[attribute] = `${api}${path}`;
        parent.append(element);
        setTimeout(() => resolve('nothing'), 3000);
    });
    await attempt('script', load('script', 'src', '/exports'));
    await attempt('picture', load('img', 'src', `/exports/${id}/download`));
    await attempt('stream', () => new Promise((resolve) => {
        const stream = new EventSource(`${api}/events`, {withCredentials: true});
        stream.onopen = () => resolve('open');
        stream.onerror = () => { stream.close(); resolve('refused'); };
    }));
    return seen;
}"""

# A form goes to a frame, so that the page stays. text/plain can be made to look like JSON.
FORM = """async ({url, name, value}) => {
    const frame = Object.assign(document.createElement('iframe'), {name: 'target'});
    const form = Object.assign(document.createElement('form'), {method: 'post', action: url, target: 'target', enctype: 'text/plain'});
    form.append(Object.assign(document.createElement('input'), {name, value}));
    document.body.append(frame, form);
    const loaded = new Promise((resolve) => { frame.onload = resolve; setTimeout(resolve, 3000); });
    form.submit();
    await loaded;
    frame.remove();
    form.remove();
}"""


def exports():
    request = urllib.request.Request(f"{API_URL}/exports", headers={"authorization": f"Bearer {os.environ['API_KEY']}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return [(it["exportId"], it["status"]) for it in json.load(answer)["exports"]]


class Blank(http.server.BaseHTTPRequestHandler):
    """A page of nobody."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title><body></body>")

    def log_message(self, *_):
        pass


def cross_site(playwright):
    """`localhost` and `127.0.0.1` are two sites for a browser, so a page of one is foreign to the other."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    foreign = f"http://localhost:{server.server_address[1]}"
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{API_URL}/")
    page.get_by_label("API key").fill(os.environ["API_KEY"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#access")).to_contain_text("Signed in as")
    cookies, before = context.cookies(), exports()
    check(len(before) == 1 and len(cookies) == 1, f"{before} {cookies}")

    page.goto(foreign)
    answers = []
    page.on("response", lambda answer: answers.append((answer.request.method, urlsplit(answer.url).path, answer.status)))
    seen = page.evaluate(ATTEMPTS, {"api": API_URL, "id": os.environ["EXPORT_ID"], "request": REQUEST})
    for name, result in seen.items():
        check(result.startswith("refused") or result in ("opaque", "nothing", "true"), f"{name}: {result}")
    page.evaluate(FORM, {"url": f"{API_URL}/exports", "name": REQUEST[:-1] + ', "coalesce": false, "x": "', "value": '"}'})
    page.evaluate(FORM, {"url": f"{API_URL}/session", "name": f'{{"key": "{os.environ["API_KEY"]}", "x": "', "value": '"}'})
    page.wait_for_timeout(500)
    for method, path, status in answers:
        check(urlsplit(API_URL).path + path in ("/", "") or status >= 400 or method == "OPTIONS", f"{method} {path} was answered with {status}")
    check(any(method == "POST" and status >= 400 for method, _, status in answers), f"no POST reached the service: {answers}")

    # The page in a frame of another site, where clicks could be led astray.
    page.evaluate("(url) => { const it = document.createElement('iframe'); it.src = url; document.body.append(it); }", f"{API_URL}/")
    page.wait_for_timeout(1000)
    framed = [frame for frame in page.frames if frame is not page.main_frame]
    check(len(framed) == 1 and "chrome-error" in framed[0].url, f"the page is shown in a frame: {[frame.url for frame in framed]}")
    # A window of it is out of reach.
    with context.expect_page() as opened:
        page.evaluate("(url) => { window.other = window.open(url); }", f"{API_URL}/")
    opened.value.wait_for_load_state()
    # For its opener a window of another group of browsing contexts is closed.
    check(page.evaluate("() => window.other === null || window.other.closed"), "a foreign page has a hold of the window")

    check(exports() == before, f"there were {before} and are {exports()}")
    check(context.cookies() == cookies, "the cookies have changed")
    browser.close()
    server.shutdown()


def rebinding(playwright):
    """A name of somebody else that points at this machine: for the browser, the service is then that name's own."""
    port = urlsplit(API_URL).port
    rules = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, rules])
    # The attacker's page, loaded before the name was moved, has no policy.
    page = browser.new_context(bypass_csp=True).new_page()
    answer = page.goto(f"http://rebound.example:{port}/")
    check(answer.status >= 400, f"the page is there under a foreign name: {answer.status}")
    ask = """async ([method, path, body]) => {
        const headers = {'x-polyglot-request': 'page', ...(body ? {'content-type': 'application/json'} : {})};
        const answer = await fetch(path, {method, body, headers});
        return [answer.status, await answer.text()];
    }"""
    for method, path, body in [
        ("GET", "/exports", None),
        ("GET", "/datasets", None),
        ("GET", "/openapi.json", None),
        ("GET", "/metrics", None),
        ("GET", "/session", None),
        ("POST", "/exports", REQUEST),
        ("POST", "/exports/preview", REQUEST),
    ]:
        status, text = page.evaluate(ask, [method, path, body])
        check(status >= 400 and "records" not in text, f"{method} {path} under a foreign name: {status} {text}")
    with urllib.request.urlopen(f"{API_URL}/exports", timeout=30) as answer:
        check(json.load(answer)["exports"] == [], "an export was made")
    browser.close()


if __name__ == "__main__":
    with sync_playwright() as playwright:
        {"cross_site": cross_site, "rebinding": rebinding}[sys.argv[1]](playwright)
