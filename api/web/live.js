// Keeps what is known of the exports up to date: by the service's events while they come, by asking every two seconds while
// they do not. Events may have been missed wherever the connection was away, so after that everything shown is asked for.

import * as service from './service.js';
import { isActive } from './known-exports.js';
import { SharedStream } from './shared-stream.js';

const POLL = 2_000;

/// From the page's opening until it is polled, unless events come.
const FIRST_PATIENCE = 2_500;

/// The document of a change of state is on its way behind it.
const BEHIND = 300;

/// A connection may be dead without anybody being told; an active export that was silent for so long is looked at.
const SILENCE = 10_000;
const LOOK_FOR_SILENCE = 5_000;
const LOOKED_AT_ONCE = 8;
const AT_A_TIME = 4;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Live {
  #known;
  #list;
  #show;
  #stream;
  #begun = false;
  #polling = false;
  #asleep = false;

  /// `show(state)`: connecting, live, polling or offline. `sessionChanged()` hears that somebody has signed in or out in another tab.
  constructor({ known, list, show, sessionChanged }) {
    this.#known = known;
    this.#list = list;
    this.#show = show;
    this.#stream = new SharedStream({
      report: (isOpen, isAsleep) => this.#report(isOpen, isAsleep),
      sessionChanged,
      hear: (kind, data) => this.#read(data, (it) => (kind === 'export' ? this.#known.learn(it) : this.#hear(it))),
    });
  }

  start() {
    this.#stream.start();
    setTimeout(() => {
      this.#begun = true;
      this.#poll();
    }, FIRST_PATIENCE);
    setInterval(() => this.#lookAtSilent(), LOOK_FOR_SILENCE);
    document.addEventListener('visibilitychange', () => {
      if (document.hidden || !this.#asleep) return;
      this.#asleep = false;
      this.#poll();
    });
  }

  /// Without a session there are no events.
  signedIn(is) {
    this.#stream.signedIn(is);
  }

  #report(isOpen, isAsleep) {
    // A page that nobody looks at neither listens nor asks.
    this.#asleep = isAsleep && document.hidden;
    if (isOpen) this.#opened();
    else if (this.#asleep) this.#show('connecting');
    // The stream may just not be open yet.
    else if (this.#begun) this.#poll();
  }

  #opened() {
    this.#begun = true;
    this.#show('live');
    this.#sync().catch(() => {
      // The events come, and whoever is silent is looked at below.
    });
  }

  #read(data, take) {
    try {
      take(JSON.parse(data));
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
    while (!this.#stream.isOpen && !this.#asleep) {
      const answered = await this.#sync().then(() => true, () => false);
      if (!this.#stream.isOpen) this.#show(answered ? 'polling' : 'offline');
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
    if (!this.#stream.isOpen) return;
    const before = performance.now() - SILENCE;
    const silent = this.#list.shownActive().filter((id) => this.#known.heardAt(id) < before);
    silent.sort((one, other) => this.#known.heardAt(one) - this.#known.heardAt(other));
    this.#inspect(silent.slice(0, LOOKED_AT_ONCE)).catch(() => {});
  }
}
