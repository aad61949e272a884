// What an export was asked for, fetched when somebody wants to see it, and asking for the same again: at once, or changed in the
// form. Lists and events do not have it.

import { element, newId, setHidden, setText, unseen } from './element.js';
import { OPTIONS } from './formats.js';
import { pathText } from './json-path.js';
import * as service from './service.js';
import { counted, formatName } from './words.js';

export class ExportRequest {
  element;
  #id;
  #name;
  #actions;
  #content = element('div');
  #state = null;
  #request = null;
  /// Of a submission that may have arrived without an answer.
  #key = null;

  /// `actions`: `runAgain(request, key)`, which submits it and answers words for people, and `edit(request)`.
  constructor(id, name, actions) {
    this.#id = id;
    this.#name = name;
    this.#actions = actions;
    this.element = element('details', { class: 'request' },
      element('summary', {}, 'Request', unseen(` of ${name}`)), this.#content);
    this.element.addEventListener('toggle', () => {
      if (this.element.open && !this.#request) this.#load();
    });
  }

  /// A deletion removes the values of the filters, so what is shown is fetched again when the state has changed.
  offer({ status, deleted }) {
    const state = `${status} ${deleted}`;
    if (state === this.#state) return;
    this.#state = state;
    if (!this.#request) return;
    this.#request = null;
    if (this.element.open) this.#load();
  }

  async #load() {
    if (!this.#content.hasChildNodes()) this.#content.replaceChildren(element('p', { class: 'hint' }, 'Looking up the request …'));
    try {
      const { request } = await service.inspect(this.#id);
      if (request) this.#show(request);
      else this.#content.replaceChildren(element('p', { class: 'hint' }, 'This version of the service cannot read the request.'));
    } catch (problem) {
      const again = element('button', { type: 'button', class: 'plain', on: { click: () => this.#load() } }, 'Try again');
      this.#content.replaceChildren(element('p', { class: 'error-text', role: 'alert' }, problem.message), again);
    }
  }

  #show(request) {
    this.#request = request;
    const lines = described(request).flatMap(([name, words]) => [element('dt', {}, name), element('dd', {}, words)]);
    const isWhole = (request.filters ?? []).every((filter) => 'value' in filter || WITHOUT_VALUE.has(filter.op));
    const why = element('p', { class: 'hint', id: newId('why'), hidden: isWhole },
      'The values of the filters were removed when the export was cancelled or deleted. Write them anew in the form.');
    const said = element('p', { class: 'hint', role: 'status' });
    setHidden(said, true);
    const again = element('button', { type: 'button', class: 'plain', 'aria-disabled': isWhole ? null : 'true', 'aria-describedby': isWhole ? null : why.id },
      'Run again', unseen(` ${this.#name}`));
    again.addEventListener('click', () => this.#runAgain(again, said));
    const edit = element('button', { type: 'button', class: 'plain', on: { click: () => this.#actions.edit(request) } },
      'Edit and run', unseen(` ${this.#name}`));
    this.#content.replaceChildren(element('dl', {}, lines), why, element('div', { class: 'actions' }, again, edit), said);
  }

  async #runAgain(button, said) {
    if (button.getAttribute('aria-disabled') === 'true') return;
    button.setAttribute('aria-disabled', 'true');
    this.#key ??= service.newKey();
    said.classList.remove('error-text');
    try {
      setText(said, await this.#actions.runAgain(this.#request, this.#key));
      this.#key = null;
    } catch (problem) {
      said.classList.add('error-text');
      setText(said, `Not started. ${problem.message}`);
      // What was refused is another submission when it is sent again.
      if (!problem.passing) this.#key = null;
    } finally {
      button.removeAttribute('aria-disabled');
    }
  }
}

const WITHOUT_VALUE = new Set(['is_null', 'is_not_null']);
const OPERATORS = { in: 'is one of', like: 'is like', ilike: 'is like, whatever the case,', is_null: 'is NULL', is_not_null: 'is not NULL', '!=': '≠', '<=': '≤', '>=': '≥' };

/// The choices of a request, each with its words.
function described({ format, columns, compression, filters = [], orderBy = [], options = {}, layout, parallelism }) {
  const renamed = ({ source, target }) => (source === target ? source : `${source} → ${target}`);
  return [
    ['Format', [formatName(format), compression].filter(Boolean).join(' · ')],
    [counted(columns.length, 'column'), columns.map(renamed).join(', ')],
    ['Rows', filters.length ? filters.map(filterWords).join(' and ') : 'every row'],
    ['Order', orderBy.map(({ column, direction }) => (direction === 'desc' ? `${column} descending` : column)).join(', ')],
    ['Options', Object.entries(options).map(([name, value]) => `${labelOf(name)}: ${JSON.stringify(value)}`).join(', ')],
    ['Layout', layout === 'files' ? 'a file for each shard' : ''],
    ['Shards at a time', parallelism ? `at most ${parallelism}` : ''],
  ].filter(([, words]) => words);
}

function filterWords({ column, path, op, value }) {
  const operator = OPERATORS[op] ?? op;
  const subject = path === undefined ? column : `${column} at ${pathText(path)}`;
  if (WITHOUT_VALUE.has(op)) return `${subject} ${operator}`;
  const values = value === undefined ? '(value removed)' : [value].flat().map((it) => JSON.stringify(it)).join(', ');
  return `${subject} ${operator} ${values}`;
}

function labelOf(name) {
  return OPTIONS.find((option) => option.name === name)?.label ?? name;
}
