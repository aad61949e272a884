// The benchmark: runs on demand, shows time, size and memory of each format, and keeps the last result in this browser.

import { barChart } from './bar-chart.js';
import { byId, element, setHidden, setText } from './element.js';
import { FieldErrors } from './field-errors.js';
import * as service from './service.js';
import { count, counted, duration, formatName, momentInFull, size } from './words.js';

const KEPT_AS = 'polyglot.benchmark';

const MEASURES = [
  { name: 'Time', of: (it) => it.durationSeconds, words: (value) => duration(value) },
  { name: 'File size', of: (it) => it.fileSizeBytes, words: (value) => size(value) },
  { name: 'Peak memory', of: (it) => it.peakMemoryMB, words: (value) => size(value * 1024 * 1024) },
];

export class Benchmark {
  #running = null;
  #errors = new FieldErrors();
  #say;

  /// `say` announces.
  constructor({ say }) {
    this.#say = say;
    byId('benchmark-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#run();
    });
    byId('benchmark-stop').addEventListener('click', () => this.#running?.abort());
    const kept = restored();
    if (kept) this.#show(kept);
  }

  async #run() {
    if (this.#running) return;
    const rows = byId('benchmark-rows').value.trim();
    const ticked = [...byId('benchmark-formats').querySelectorAll('input:checked')];
    const fields = new Map([['rows', byId('benchmark-rows')], ['formats', byId('benchmark-formats-field')]]);
    if (!ticked.length) {
      this.#errors.show([{ field: 'formats', message: 'tick at least one' }], fields);
      return;
    }
    this.#errors.clear();
    const running = new AbortController();
    this.#began(running);
    const began = Date.now();
    const clock = setInterval(() => setText(byId('benchmark-clock'), duration(Math.round((Date.now() - began) / 1000))), 1000);
    try {
      const answer = await service.benchmark({ rows, formats: ticked.map((it) => it.value) }, running.signal);
      const result = { ...answer, rows: Number(rows) || null, at: new Date().toISOString() };
      keep(result);
      this.#show(result);
      setText(byId('benchmark-state'), 'Done.');
      this.#say('The benchmark is done.');
    } catch (problem) {
      if (problem.name === 'AbortError') setText(byId('benchmark-state'), 'Stopped.');
      else setText(byId('benchmark-state'), problem.message);
      if (problem.errors?.length) this.#errors.show(problem.errors, fields);
    } finally {
      clearInterval(clock);
      this.#ended();
    }
  }

  #began(running) {
    this.#running = running;
    byId('benchmark-run').setAttribute('aria-disabled', 'true');
    setHidden(byId('benchmark-stop'), false);
    setText(byId('benchmark-state'), 'Running. This may take minutes; the page stays usable.');
  }

  #ended() {
    this.#running = null;
    const stop = byId('benchmark-stop');
    if (document.activeElement === stop) byId('benchmark-run').focus();
    byId('benchmark-run').removeAttribute('aria-disabled');
    setHidden(stop, true);
    setText(byId('benchmark-clock'), '');
  }

  #show({ datasetRowCount, results, rows, at }) {
    const values = (measure) => results.map((it) => ({ name: formatName(it.format), value: measure.of(it), words: inWords(measure, it) }));
    const charts = MEASURES.map((measure) => element('figure', {},
      element('figcaption', {}, measure.name),
      barChart(`${measure.name}: ${values(measure).map(({ name, words }) => `${name} ${words}`).join(', ')}`, values(measure))));
    const table = element('table', {},
      element('caption', {}, `${rows ? `The first ${counted(rows, 'row')} of ${count(datasetRowCount)}` : counted(datasetRowCount, 'row')}, measured on ${momentInFull(new Date(at))}`),
      element('thead', {}, element('tr', {}, element('th', { scope: 'col' }, 'Format'),
        MEASURES.map(({ name }) => element('th', { scope: 'col', class: 'number' }, name)))),
      element('tbody', {}, results.map((it) => element('tr', {}, element('th', { scope: 'row' }, formatName(it.format)),
        MEASURES.map((measure) => element('td', { class: 'number' }, inWords(measure, it)))))));
    byId('benchmark-result').replaceChildren(element('div', { class: 'charts' }, charts),
      element('div', { class: 'scroller', role: 'region', 'aria-label': 'Results of the benchmark', tabIndex: 0 }, table));
  }
}

function inWords(measure, it) {
  const value = measure.of(it);
  return value === null || value === undefined ? 'not told' : measure.words(value);
}

/// Storage may be switched off or full, and what is in it may be anything.
function keep(result) {
  try {
    localStorage.setItem(KEPT_AS, JSON.stringify(result));
  } catch {
    // The result is on the page; the next visit begins without it.
  }
}

function restored() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT_AS));
    const usable = Array.isArray(kept?.results) && kept.results.every((it) => typeof it.format === 'string' && Number.isFinite(it.durationSeconds));
    return usable && !Number.isNaN(Date.parse(kept.at)) ? kept : null;
  } catch {
    return null;
  }
}
