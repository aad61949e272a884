// Says what has happened to those who listen to the page instead of looking at it: starts and ends, never each tick of a bar.
// Many at once become one sentence.

import { element } from './element.js';

const GATHER = 700;
const KEPT = 12_000;
const MOST = 3;

export class Announcements {
  #region;
  #waiting = [];
  #timer = null;

  constructor(region) {
    this.#region = region;
  }

  say(text) {
    this.#waiting.push(text);
    this.#timer ??= setTimeout(() => this.#flush(), GATHER);
  }

  #flush() {
    this.#timer = null;
    const said = this.#waiting.splice(0);
    const texts = said.length > MOST ? [...said.slice(-MOST), `And ${said.length - MOST} more exports have changed.`] : said;
    for (const text of texts) {
      const line = element('p', {}, text);
      this.#region.append(line);
      setTimeout(() => line.remove(), KEPT);
    }
  }
}
