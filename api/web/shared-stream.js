// The event stream as a page uses it: that of all tabs where the browser has shared workers, else one of its own.

import { EventStream } from './event-stream.js';

const STILL_VISIBLE = 15_000;

/// Milliseconds for which a hidden page keeps a stream of its own. There are six connections for all tabs.
const HIDDEN = 10_000;

export class SharedStream {
  #report;
  #hear;
  #sessionChanged;
  #started = false;
  #allowed = true;
  #port = null;
  #own = null;
  #isOpen = false;
  #falling = null;

  /// `report(isOpen, isAsleep)` hears that the stream was opened, is not open, or was given back while nobody looks at the
  /// page; `hear(kind, data)` each event, and `sessionChanged()` that somebody has signed in or out in another tab.
  constructor({ report, hear, sessionChanged }) {
    this.#report = report;
    this.#hear = hear;
    this.#sessionChanged = sessionChanged;
  }

  get isOpen() {
    return this.#isOpen;
  }

  /// The stream is that of a session: it ends with it, and another one is for the next.
  signedIn(is) {
    this.#allowed = is;
    if (!this.#started) return;
    this.#tell(is ? { signedIn: true, visible: !document.hidden } : { signedOut: true });
    if (!this.#own) return;
    this.#own.close();
    if (is && !document.hidden) this.#own.open();
    else if (!is) this.#set(false);
  }

  start() {
    this.#started = true;
    if (!this.#connect()) this.#useOwn();
    document.addEventListener('visibilitychange', () => this.#visibility());
    setInterval(() => this.#tell({ visible: !document.hidden }), STILL_VISIBLE);
    window.addEventListener('online', () => {
      this.#tell({ visible: !document.hidden, online: true });
      if (this.#own && this.#allowed && !this.#own.isClosed) this.#own.openNow();
    });
    window.addEventListener('pagehide', () => this.#tell({ bye: true }));
    window.addEventListener('pageshow', (event) => {
      if (event.persisted) this.#tell({ visible: !document.hidden });
    });
  }

  /// Whether there is a shared worker to ask.
  #connect() {
    const name = document.querySelector('meta[name="stream-worker"]')?.content;
    if (typeof SharedWorker !== 'function' || !name) return false;
    try {
      // The name changes with the worker's code, so that a page does not talk to the worker of an earlier version.
      const worker = new SharedWorker(workerAddress(), { type: 'module', name });
      worker.addEventListener('error', () => this.#useOwn());
      this.#port = worker.port;
    } catch {
      // Storage may be switched off for the page, and shared workers with it.
      return false;
    }
    this.#port.addEventListener('message', ({ data }) => {
      if ('kind' in data) this.#hear(data.kind, data.data);
      else if (data.sessionChanged) this.#sessionChanged();
      else this.#set(data.isOpen, data.isAsleep);
    });
    this.#port.start();
    this.#tell({ visible: !document.hidden });
    return true;
  }

  #tell(message) {
    this.#port?.postMessage({ ...message, allowed: this.#allowed });
  }

  #useOwn() {
    if (this.#own) return;
    this.#port?.close();
    this.#port = null;
    this.#own = new EventStream({ report: (isOpen) => this.#set(isOpen), hear: this.#hear });
    if (!document.hidden && this.#allowed) this.#own.open();
  }

  #set(isOpen, isAsleep = false) {
    this.#isOpen = isOpen;
    this.#report(isOpen, isAsleep);
  }

  #visibility() {
    this.#tell({ visible: !document.hidden });
    if (!this.#own) return;
    clearTimeout(this.#falling);
    if (document.hidden) {
      this.#falling = setTimeout(() => {
        this.#own.close();
        this.#set(false, true);
      }, HIDDEN);
    } else if (this.#own.isClosed && this.#allowed) {
      this.#own.open();
    }
  }
}

/// A worker's address is code to Trusted Types; this one is a constant.
function workerAddress() {
  const address = '/assets/stream-worker.js';
  if (!window.trustedTypes) return address;
  return window.trustedTypes.createPolicy('stream-worker', { createScriptURL: () => address }).createScriptURL('');
}
