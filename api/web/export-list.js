// The list of exports: which of them are shown, in which order, and how more are loaded. A row is made once and then only
// written to, a few times a second for all that has changed, so that hundreds of exports may change at once.

import { element, setHidden, setText } from './element.js';
import { ExportRow } from './export-row.js';
import { isActive } from './known-exports.js';
import { Pace } from './pace.js';
import * as service from './service.js';
import { count, counted, stateName, statusName } from './words.js';

/// Pages that are loaded to close a gap between the newest exports and the ones that are shown; then the list begins anew.
const MOST_PAGES = 4;

/// Milliseconds: a hundred bars may move at once, and nobody reads numbers more often.
const BETWEEN_WRITES = 150;

/// A choice of the page's own.
const DELETED = 'deleted';

export class ExportList {
  #known;
  #parts;
  #actions;
  #rows = new Map();
  /// The ids of the rows, newest first: UUIDv7 sorts by time.
  #ids = [];
  /// Runs of benchmarks that match the chosen state and are not shown.
  #benchmarks = new Set();
  #paces = new Map();
  #changed = new Set();
  #frame = null;
  #wrote = 0;
  #cursor = null;
  #loading = new AbortController();
  #underWay = null;
  #loaded = false;

  /// `parts`: the elements `list`, `count`, `status`, `benchmarks`, `benchmarksField`, `benchmarksWords`, `state`, `more` and
  /// `moreState`.
  constructor({ known, parts, actions }) {
    this.#known = known;
    this.#parts = parts;
    this.#actions = actions;
    known.onChange((document) => this.#note(document));
    parts.status.addEventListener('change', () => this.load());
    parts.benchmarks.addEventListener('change', () => this.#showBenchmarks());
    parts.more.addEventListener('click', () => this.#loadMore());
  }

  /// The state to ask the service for, which calls deleted exports expired, too.
  get #status() {
    return this.#chosen === DELETED ? 'expired' : this.#chosen;
  }

  get #chosen() {
    return this.#parts.status.value;
  }

  #hasState({ status, deleted }) {
    return this.#chosen === '' || this.#chosen === (deleted ? DELETED : status);
  }

  #matches(document) {
    return this.#hasState(document) && (!document.benchmark || this.#parts.benchmarks.checked);
  }

  #showBenchmarks() {
    const ids = this.#parts.benchmarks.checked ? [...this.#benchmarks] : this.#ids.filter((id) => this.#known.get(id).benchmark);
    for (const id of ids) this.#touch(id);
  }

  shownActive() {
    return this.#ids.filter((id) => isActive(this.#known.get(id).status));
  }

  #note(document) {
    const id = document.exportId;
    if (isActive(document.status)) {
      if (!this.#paces.has(id)) this.#paces.set(id, new Pace());
      this.#paces.get(id).note(document);
    } else {
      this.#paces.delete(id);
    }
    this.#touch(id);
  }

  #touch(id) {
    this.#changed.add(id);
    this.#frame ??= setTimeout(() => requestAnimationFrame(() => this.#write()), this.#wrote + BETWEEN_WRITES - performance.now());
  }

  #write() {
    this.#frame = null;
    this.#wrote = performance.now();
    for (const id of this.#changed) {
      const document = this.#known.get(id);
      const row = this.#rows.get(id);
      if (!document) continue;
      if (document.benchmark && this.#hasState(document)) this.#benchmarks.add(id);
      else this.#benchmarks.delete(id);
      if (this.#matches(document)) {
        (row ?? this.#insert(id)).update(document, this.#paces.get(id)?.now ?? null);
      } else if (row && !row.hasFocus) {
        this.#drop(id);
      }
    }
    this.#changed.clear();
    this.#describe();
  }

  #place(id) {
    let low = 0;
    let high = this.#ids.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ids[middle] > id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #insert(id) {
    const row = new ExportRow(this.#known.get(id), this.#actions);
    const at = this.#place(id);
    this.#parts.list.insertBefore(row.element, this.#rows.get(this.#ids[at])?.element ?? null);
    this.#ids.splice(at, 0, id);
    this.#rows.set(id, row);
    return row;
  }

  #drop(id) {
    this.#rows.get(id).element.remove();
    this.#rows.delete(id);
    this.#ids.splice(this.#ids.indexOf(id), 1);
  }

  #describe() {
    const active = this.shownActive().length;
    const shown = this.#ids.length;
    setText(this.#parts.count, shown ? `${count(shown)} shown${active ? `, ${count(active)} under way` : ''}` : '');
    const runs = this.#benchmarks.size;
    setHidden(this.#parts.benchmarksField, runs === 0);
    setText(this.#parts.benchmarksWords, counted(runs, 'benchmark run'));
    if (shown) setHidden(this.#parts.state, true);
    else if (this.#loaded) this.#sayEmpty();
  }

  #say(tone, ...content) {
    const { state } = this.#parts;
    state.dataset.tone = tone;
    state.replaceChildren(...content);
    setHidden(state, false);
  }

  #sayEmpty() {
    if (this.#parts.state.dataset.tone === 'empty' && !this.#parts.state.hidden) return;
    const words = this.#chosen
      ? `No export${this.#cursor ? ' among the newest' : ''} has the state “${this.#chosen === DELETED ? stateName({ deleted: true }) : statusName(this.#chosen)}”.`
      : 'No export yet. Choose a dataset and its columns, then press Start export.';
    this.#say('empty', element('p', {}, words));
  }

  #sayFailed(problem) {
    const retry = element('button', { type: 'button', class: 'plain', on: { click: () => this.load() } }, 'Try again');
    this.#say('bad', element('p', {}, `The exports could not be loaded. ${problem.message}`), retry);
  }

  /// The first page anew, for the state that is chosen.
  load() {
    this.#loading?.abort();
    this.#loading = new AbortController();
    this.#underWay = null;
    this.#rows.clear();
    this.#ids = [];
    this.#benchmarks.clear();
    this.#changed.clear();
    this.#loaded = false;
    this.#parts.list.replaceChildren();
    setHidden(this.#parts.more, true);
    setText(this.#parts.moreState, '');
    this.#say('busy', element('p', {}, 'Looking up the exports …'));
    return this.#first().catch((problem) => {
      if (problem.name !== 'AbortError') this.#sayFailed(problem);
    });
  }

  /// The first page into an empty list. Asked for twice at a time, it is fetched once.
  #first() {
    if (this.#underWay) return this.#underWay;
    const { signal } = this.#loading;
    const loading = this.#fill(signal);
    const over = () => {
      if (this.#underWay === loading) this.#underWay = null;
    };
    loading.then(over, over);
    this.#underWay = loading;
    return loading;
  }

  /// Pages until one has an export to show.
  async #fill(signal) {
    let cursor = null;
    for (let pages = 0; pages < MOST_PAGES; pages += 1) {
      const page = await service.list({ status: this.#status, cursor }, signal);
      if (signal.aborted) return;
      this.#takeLast(page);
      cursor = page.nextCursor;
      if (!cursor || page.exports.some((document) => this.#matches(document))) return;
    }
  }

  #take({ exports }) {
    for (const document of exports) {
      this.#known.learn(document);
      // Also where it is no news: it may not be shown yet.
      this.#touch(document.exportId);
    }
  }

  /// A page behind which the list does not go on yet.
  #takeLast(page) {
    this.#take(page);
    this.#cursor = page.nextCursor;
    this.#loaded = true;
    setHidden(this.#parts.more, !this.#cursor);
    if (!page.exports.length) this.#describe();
  }

  async #loadMore() {
    const { more, moreState } = this.#parts;
    if (more.getAttribute('aria-disabled') === 'true') return;
    more.setAttribute('aria-disabled', 'true');
    setText(moreState, '');
    const { signal } = this.#loading;
    try {
      let fresh;
      do {
        const page = await service.list({ status: this.#status, cursor: this.#cursor }, signal);
        if (signal.aborted) return;
        // Active exports came by events, wherever they stand; a page of those alone would be nothing new.
        fresh = page.exports.filter((it) => !this.#rows.has(it.exportId) && this.#matches(it));
        this.#takeLast(page);
      } while (!fresh.length && this.#cursor);
      this.#actions.say(`${counted(fresh.length, 'export')} more.`);
      // The button goes away with the last page; whoever pressed it stays where reading goes on.
      if (more.hidden && fresh.length) requestAnimationFrame(() => this.#rows.get(fresh[0].exportId)?.element.focus());
    } catch (problem) {
      if (problem.name !== 'AbortError') setText(moreState, `No more could be loaded. ${problem.message}`);
    } finally {
      more.removeAttribute('aria-disabled');
    }
  }

  /// The newest exports, and what lies between them and those that are shown.
  async refresh() {
    const { signal } = this.#loading;
    try {
      if (!this.#loaded) return await this.#first();
      const newest = this.#ids[0];
      let page = await service.list({ status: this.#status }, signal);
      // An empty list has grown, perhaps beyond a page.
      if (!newest) return this.#takeLast(page);
      this.#take(page);
      for (let pages = 1; page.nextCursor && page.exports.at(-1).exportId > newest; pages += 1) {
        if (pages === MOST_PAGES) return this.load();
        page = await service.list({ status: this.#status, cursor: page.nextCursor }, signal);
        this.#take(page);
      }
    } catch (problem) {
      // Another state was chosen meanwhile, and its list is loaded.
      if (problem.name !== 'AbortError') throw problem;
    }
  }

  /// Brings an export into view and into focus; false where the chosen state hides it.
  reveal(id) {
    const row = this.#rows.get(id);
    row?.element.focus();
    return Boolean(row);
  }
}
