// The first rows of the file that would be made, fetched again a moment after each change of what is chosen.

import { element, setHidden, setText } from './element.js';
import * as service from './service.js';
import { count, counted } from './words.js';

/// Milliseconds without a change before it is asked for.
const SETTLED = 300;
const MOST_COLUMNS = 100;
const LONGEST_CELL = 500;

const NUMBERS = /^(smallint|integer|bigint|numeric|decimal|real|double precision|money)\b(?!.*\[\])/;

export class Preview {
  #parts;
  #read;
  #errors;
  #timer = null;
  #asking = null;

  /// `parts`: the elements `table`, `state` and `retry`. `read()` has the body to ask with, or words why there is none;
  /// `errors(list, fields)` hears of what is wrong with the body, and of nothing where it is right.
  constructor({ parts, read, errors }) {
    this.#parts = parts;
    this.#read = read;
    this.#errors = errors;
    parts.retry.addEventListener('click', () => this.#ask());
  }

  refresh({ now = false } = {}) {
    clearTimeout(this.#timer);
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
      this.#show(answer, note);
    } catch (problem) {
      if (asking.signal.aborted) return;
      this.#fail(problem, fields);
    }
    this.#parts.table.removeAttribute('aria-busy');
  }

  #say(words, tone = 'calm') {
    setText(this.#parts.state, words);
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

  #show({ columns, rows, more }, note) {
    const shown = columns.slice(0, MOST_COLUMNS);
    const head = element('tr', {}, shown.map(({ target, type }) => element('th', { scope: 'col', class: alignment(type) },
      element('span', { class: 'target', title: target }, target), element('span', { class: 'type', title: type }, type))));
    const body = rows.map((row) => element('tr', {}, shown.map(({ type }, at) => cell(row[at], type))));
    const table = element('table', {}, element('caption', { class: 'unseen' }, 'The first rows of the file'),
      element('thead', {}, head), element('tbody', {}, body));
    this.#parts.table.replaceChildren(table);
    this.#parts.table.classList.toggle('stale', false);
    setHidden(this.#parts.table, false);
    const words = [
      rows.length === 0 ? 'No row matches.' : more ? `The first ${count(rows.length)}; there are more.` : `All ${counted(rows.length, 'row')}.`,
      columns.length > shown.length ? `${count(columns.length - shown.length)} more columns are not shown.` : '',
      note,
    ];
    this.#say(words.filter(Boolean).join(' '));
  }
}

function alignment(type) {
  return NUMBERS.test(type) ? 'number' : null;
}

function cell(value, type) {
  if (value === null || value === undefined) return element('td', { class: 'null' }, 'NULL');
  const text = value.length > LONGEST_CELL ? `${value.slice(0, LONGEST_CELL)}…` : value;
  return element('td', { class: alignment(type), title: text.length > 30 ? text : null }, text);
}
