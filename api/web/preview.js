// The first rows of the export that would be made, with each value as the file has it, and what each column becomes in the file.
// They are fetched again a moment after each change of what is chosen.

import { element, setHidden } from './element.js';
import * as service from './service.js';
import { count, counted, estimated } from './words.js';

/// Milliseconds without a change before it is asked for.
const SETTLED = 300;
const MOST_COLUMNS = 100;
const LONGEST_CELL = 500;

const NUMBERS = /^(smallint|integer|bigint|numeric|decimal|real|double precision|money)\b(?!.*\[\])/;

export class Preview {
  #parts;
  #read;
  #errors;
  #becomes;
  #timer = null;
  #asking = null;

  /// `parts`: the elements `table`, `state` and `retry`. `read()` has the body to ask with, or words why there is none;
  /// `errors(list, fields)` hears of what is wrong with the body, and of nothing where it is right;
  /// `becomes(source, format)` says what a column is in a file.
  constructor({ parts, read, errors, becomes }) {
    this.#parts = parts;
    this.#read = read;
    this.#errors = errors;
    this.#becomes = becomes;
    parts.retry.addEventListener('click', () => this.#ask());
  }

  /// The service is there, perhaps again.
  recover() {
    if (!this.#parts.retry.hidden) this.#ask();
  }

  refresh({ now = false } = {}) {
    clearTimeout(this.#timer);
    // What was wrong was wrong with an earlier choice.
    if (this.#parts.state.dataset.tone === 'bad') this.#say('Looking up the first rows …');
    setHidden(this.#parts.retry, true);
    // What is on its way is of an earlier choice.
    this.#asking?.abort();
    this.#timer = setTimeout(() => this.#ask(), now ? 0 : SETTLED);
  }

  async #ask() {
    const { body, fields, missing, note } = this.#read();
    this.#asking?.abort();
    if (missing) {
      this.#errors([], fields);
      this.#say(missing);
      this.#parts.table.replaceChildren();
      setHidden(this.#parts.table, true);
      return;
    }
    const asking = new AbortController();
    this.#asking = asking;
    this.#parts.table.setAttribute('aria-busy', 'true');
    setHidden(this.#parts.retry, true);
    try {
      const answer = await service.preview(body, asking.signal);
      if (asking.signal.aborted) return;
      this.#errors([], fields);
      this.#show(answer, body.format, note);
    } catch (problem) {
      if (asking.signal.aborted) return;
      this.#fail(problem, fields);
    }
    this.#parts.table.removeAttribute('aria-busy');
  }

  #say(words, tone = 'calm') {
    // Not hidden when it is empty: only what changes in a live region that is there is announced.
    if (this.#parts.state.textContent !== words) this.#parts.state.textContent = words;
    this.#parts.state.dataset.tone = tone;
  }

  #fail(problem, fields) {
    const wrong = problem.errors.length;
    this.#errors(problem.errors, fields);
    this.#parts.table.classList.toggle('stale', true);
    setHidden(this.#parts.retry, wrong > 0);
    if (wrong) this.#say(`Not as chosen: ${counted(wrong, 'field')} to look at again.`, 'bad');
    else this.#say(`No preview. ${problem.message}`, 'bad');
  }

  #becomesLine(source, format) {
    const words = this.#becomes(source, format);
    return words ? element('span', { class: 'type becomes', title: `In the file: ${words}` }, '→ ', words) : null;
  }

  #show({ columns, rows, more, estimatedRows }, format, note) {
    const shown = columns.slice(0, MOST_COLUMNS);
    const head = element('tr', {}, shown.map(({ source, target, type }) => element('th', { scope: 'col', class: alignment(type) },
      element('span', { class: 'target', title: target }, target), element('span', { class: 'type', title: type }, type),
      this.#becomesLine(source, format))));
    const body = rows.map((row) => element('tr', {}, shown.map(({ type }, at) => cell(row[at], type))));
    const table = element('table', {}, element('caption', { class: 'unseen' }, 'The first rows of the export, as the file has them'),
      element('thead', {}, head), element('tbody', {}, body));
    this.#parts.table.replaceChildren(table);
    this.#parts.table.classList.toggle('stale', false);
    setHidden(this.#parts.table, false);
    const words = [
      rows.length === 0 ? 'No row matches.' : more ? `The first ${count(rows.length)} of ${total(estimatedRows, rows.length)}.` : `All ${counted(rows.length, 'row')}.`,
      columns.length > shown.length ? `${count(columns.length - shown.length)} more columns are not shown.` : '',
      note,
    ];
    this.#say(words.filter(Boolean).join(' '));
  }
}

/// How many rows there are. An estimate that is below what is seen already says nothing.
function total(estimate, seen) {
  return estimate !== null && estimate > seen ? `about ${estimated(estimate, 'row')}, by an estimate of the database` : 'more';
}

function alignment(type) {
  return NUMBERS.test(type) ? 'number' : null;
}

function cell(value, type) {
  if (value === null || value === undefined) return element('td', { class: 'null' }, 'NULL');
  const text = value.length > LONGEST_CELL ? `${value.slice(0, LONGEST_CELL)}…` : value;
  return element('td', { class: alignment(type), title: text.length > 30 ? text : null }, text);
}
