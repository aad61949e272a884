// Keeps what is known of the exports up to date: by the service's events while they come, by asking every two seconds while
// they do not. Events may have been missed wherever the connection was away, so after that everything shown is asked for.

import * as service from './service.js';
import { isActive } from './known-exports.js';

const POLL = 2_000;

/// From the page's opening until it is polled, unless events come.
const FIRST_PATIENCE = 2_500;

/// The document of a change of state is on its way behind it.
const BEHIND = 300;

/// A connection may be dead without anybody being told; an active export that was silent for so long is looked at.
const SILENCE = 10_000;
const LOOK_FOR_SILENCE = 5_000;
const LOOKED_AT_ONCE = 8;

/// A hidden page gives its connection back: a browser has six to a server, for all its tabs.
const HIDDEN = 60_000;

const SHORTEST_BACKOFF = 1_000;
const LONGEST_BACKOFF = 30_000;
const AT_A_TIME = 4;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Live {
  #known;
  #list;
  #show;
  #source = null;
  #backoff = SHORTEST_BACKOFF;
  #retry = null;
  #polling = false;
  #asleep = false;
  #falling = null;

  /// `show(state)`: connecting, live, polling or offline.
  constructor({ known, list, show }) {
    this.#known = known;
    this.#list = list;
    this.#show = show;
  }

  start() {
    this.#connect();
    setTimeout(() => this.#poll(), FIRST_PATIENCE);
    setInterval(() => this.#lookAtSilent(), LOOK_FOR_SILENCE);
    document.addEventListener('visibilitychange', () => this.#visibility());
    window.addEventListener('online', () => this.#connectNow());
  }

  get #isOpen() {
    return this.#source?.readyState === EventSource.OPEN;
  }

  #connect() {
    this.#source?.close();
    const source = new EventSource('/events');
    this.#source = source;
    source.addEventListener('open', () => this.#opened());
    source.addEventListener('export', (event) => this.#read(event, (it) => this.#known.learn(it)));
    source.addEventListener('state', (event) => this.#read(event, (it) => this.#hear(it)));
    source.addEventListener('error', () => {
      if (source !== this.#source) return;
      // CONNECTING: the browser tries again by itself. CLOSED: it has given up, after a 503 for instance.
      if (source.readyState === EventSource.CLOSED) this.#connectLater();
      this.#poll();
    });
  }

  #connectLater() {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#connect(), this.#backoff * (0.75 + Math.random() / 2));
    this.#backoff = Math.min(this.#backoff * 2, LONGEST_BACKOFF);
  }

  #connectNow() {
    if (this.#asleep || this.#isOpen) return;
    clearTimeout(this.#retry);
    this.#connect();
  }

  #opened() {
    this.#backoff = SHORTEST_BACKOFF;
    this.#show('live');
    this.#sync().catch(() => {
      // The events come, and whoever is silent is looked at below.
    });
  }

  #read(event, take) {
    try {
      take(JSON.parse(event.data));
    } catch {
      // What cannot be read is left to the next event, or to the look at silent exports.
    }
  }

  #hear(change) {
    if (!this.#known.hearOfState(change)) return;
    const { exportId, status } = change;
    setTimeout(() => {
      const known = this.#known.get(exportId);
      if (!known || (isActive(known.status) && !isActive(status))) this.#inspect([exportId]).catch(() => {});
    }, BEHIND);
  }

  /// Asks until events come.
  async #poll() {
    if (this.#polling) return;
    this.#polling = true;
    while (!this.#isOpen && !this.#asleep) {
      const answered = await this.#sync().then(() => true, () => false);
      if (!this.#isOpen) this.#show(answered ? 'polling' : 'offline');
      await pause(POLL);
    }
    this.#polling = false;
  }

  /// The first page of the list, and each active export that is shown and not on it.
  async #sync() {
    const since = performance.now();
    await this.#list.refresh();
    await this.#inspect(this.#list.shownActive().filter((id) => this.#known.heardAt(id) < since));
  }

  async #inspect(ids) {
    const waiting = [...ids];
    const look = async () => {
      for (let id = waiting.shift(); id; id = waiting.shift()) {
        await service.inspect(id).then((it) => this.#known.learn(it), (problem) => {
          if (problem.status !== 404) throw problem;
        });
      }
    };
    await Promise.all(Array.from({ length: Math.min(AT_A_TIME, waiting.length) }, look));
  }

  #lookAtSilent() {
    // While the page polls, nothing is silent.
    if (!this.#isOpen) return;
    const before = performance.now() - SILENCE;
    const silent = this.#list.shownActive().filter((id) => this.#known.heardAt(id) < before);
    silent.sort((one, other) => this.#known.heardAt(one) - this.#known.heardAt(other));
    this.#inspect(silent.slice(0, LOOKED_AT_ONCE)).catch(() => {});
  }

  #visibility() {
    clearTimeout(this.#falling);
    if (document.hidden) {
      this.#falling = setTimeout(() => this.#sleep(), HIDDEN);
    } else if (this.#asleep) {
      this.#asleep = false;
      this.#connect();
      this.#poll();
    }
  }

  #sleep() {
    this.#asleep = true;
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#show('connecting');
  }
}
