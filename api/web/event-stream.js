// The service's stream of events (`GET /events`), opened again whenever it ends. It runs in a page or, for all tabs at once, in
// a shared worker, so it uses nothing of the document.

const SHORTEST_BACKOFF = 1_000;
const LONGEST_BACKOFF = 30_000;

const KINDS = ['export', 'state'];

export class EventStream {
  #source = null;
  #backoff = SHORTEST_BACKOFF;
  #retry = null;
  #report;
  #hear;

  /// `report(isOpen)` hears that the stream was opened, or that it is not open; `hear(kind, data)` each event.
  constructor({ report, hear }) {
    this.#report = report;
    this.#hear = hear;
  }

  get isOpen() {
    return this.#source?.readyState === EventSource.OPEN;
  }

  get isClosed() {
    return this.#source === null;
  }

  open() {
    clearTimeout(this.#retry);
    this.#source?.close();
    const source = new EventSource('/events');
    this.#source = source;
    source.addEventListener('open', () => {
      this.#backoff = SHORTEST_BACKOFF;
      this.#report(true);
    });
    for (const kind of KINDS) source.addEventListener(kind, (event) => this.#hear(kind, event.data));
    source.addEventListener('error', () => {
      if (source !== this.#source) return;
      // CONNECTING: the browser tries again by itself. CLOSED: it has given up, after a 503 for instance.
      if (source.readyState === EventSource.CLOSED) this.#openLater();
      this.#report(false);
    });
  }

  /// Opens it without the rest of a pause, where it is not open.
  openNow() {
    if (!this.isOpen) this.open();
  }

  close() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  #openLater() {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.open(), this.#backoff * (0.75 + Math.random() / 2));
    this.#backoff = Math.min(this.#backoff * 2, LONGEST_BACKOFF);
  }
}
