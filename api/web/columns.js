// Which columns the file has, in which order, and what each is called in it.

import { element, setHidden, setText, unseen } from './element.js';
import { count } from './words.js';

/// From so many columns on they can be searched.
const MANY = 12;

export class Columns {
  #parts;
  #changed;
  #offered = [];
  #rows = [];

  /// `parts`: the elements `list`, `count`, `all`, `none`, `find`, `findField` and `fieldset`.
  constructor({ parts, changed }) {
    this.#parts = parts;
    this.#changed = changed;
    parts.all.addEventListener('click', () => this.#tickAll(true));
    parts.none.addEventListener('click', () => this.#tickAll(false));
    parts.find.addEventListener('input', () => this.#find());
    parts.find.addEventListener('keydown', (event) => {
      // Enter in a search is not the start of an export.
      if (event.key === 'Enter') event.preventDefault();
    });
  }

  /// The columns of another dataset, all of them ticked.
  offer(columns) {
    this.#offered = columns;
    this.#place(columns.map((column) => this.#row(column)));
  }

  /// The `columns` of a submission: those are ticked, in their order, and the others come behind them. The answer is the names
  /// that the dataset does not have.
  fill(mappings) {
    const known = new Map(this.#offered.map((column) => [column.name, column]));
    const chosen = mappings.filter(({ source }) => known.has(source));
    const names = new Set(chosen.map(({ source }) => source));
    const rows = chosen.map(({ source, target }) => this.#row(known.get(source), target));
    const others = this.#offered.filter(({ name }) => !names.has(name)).map((column) => this.#row(column));
    for (const row of others) row.tick.checked = false;
    this.#place([...rows, ...others]);
    return mappings.map(({ source }) => source).filter((source) => !known.has(source));
  }

  /// Whether every column is ticked, in the order of the dataset and under its own name.
  get isDefault() {
    return this.#rows.length === this.#offered.length
      && this.#rows.every(({ name, tick, target }, at) => tick.checked && target.value === name && name === this.#offered[at].name);
  }

  #place(rows) {
    this.#rows = rows;
    this.#parts.list.replaceChildren(...rows.map((row) => row.element));
    this.#parts.find.value = '';
    setHidden(this.#parts.findField, rows.length < MANY);
    this.#describe();
  }

  #row({ name, type, nullable }, given = name) {
    const tick = element('input', { type: 'checkbox', checked: true });
    const target = element('input', { value: given, spellcheck: 'false', autocapitalize: 'off', 'aria-label': `Name of ${name} in the file` });
    const move = (step, words, sign) => element('button', {
      type: 'button', class: 'icon', title: words, on: { click: (event) => this.#move(row, step, event.currentTarget) },
    }, element('span', { 'aria-hidden': 'true' }, sign), unseen(`${words} ${name}`));
    const row = { name, tick, target, element: null };
    row.element = element('li', { class: 'column', 'data-errors': true },
      element('label', { class: 'tick', title: name }, tick, element('span', { class: 'name' }, name)),
      element('span', { class: 'type', title: nullable ? `${type}, may be NULL` : type }, type),
      element('span', { class: 'arrow', 'aria-hidden': 'true' }, '→'),
      target,
      element('span', { class: 'moves' }, move(-1, 'Move up', '↑'), move(1, 'Move down', '↓')));
    tick.addEventListener('change', () => this.#edited());
    target.addEventListener('input', () => this.#changed());
    return row;
  }

  #edited() {
    this.#describe();
    this.#changed();
  }

  #tickAll(ticked) {
    // What a search hides is not meant.
    for (const row of this.#rows) if (!row.element.hidden) row.tick.checked = ticked;
    this.#edited();
  }

  #find() {
    const wanted = this.#parts.find.value.trim().toLowerCase();
    for (const row of this.#rows) setHidden(row.element, !row.name.toLowerCase().includes(wanted));
  }

  #move(row, step, button) {
    const from = this.#rows.indexOf(row);
    const to = from + step;
    if (to < 0 || to >= this.#rows.length) return;
    const [other] = this.#rows.splice(to, 1, row);
    this.#rows[from] = other;
    if (step < 0) other.element.before(row.element);
    else other.element.after(row.element);
    button.focus();
    this.#changed();
  }

  #describe() {
    const ticked = this.#rows.filter((row) => row.tick.checked).length;
    setText(this.#parts.count, `${count(ticked)} of ${count(this.#rows.length)}`);
    for (const row of this.#rows) {
      row.element.classList.toggle('left-out', !row.tick.checked);
      row.target.disabled = !row.tick.checked;
    }
  }

  /// The `columns` of a submission; each control goes into `fields` under its field's name.
  read(fields) {
    fields.set('columns', this.#parts.fieldset);
    return this.#rows.filter((row) => row.tick.checked).map((row, index) => {
      fields.set(`columns[${index}].source`, row.tick);
      fields.set(`columns[${index}].target`, row.target);
      fields.set(`columns[${index}]`, row.target);
      return { source: row.name, target: row.target.value };
    });
  }
}
