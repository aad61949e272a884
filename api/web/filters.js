// Which rows the file has: conditions on columns, all of which must hold.

import { element, newId, setAttribute, setHidden } from './element.js';

const OPERATORS = [
  ['=', '= equals'],
  ['!=', '≠ differs from'],
  ['<', '< less than'],
  ['<=', '≤ at most'],
  ['>', '> more than'],
  ['>=', '≥ at least'],
  ['in', 'in: one of'],
  ['like', 'like: pattern'],
  ['is_null', 'is NULL'],
  ['is_not_null', 'is not NULL'],
];

const WITHOUT_VALUE = new Set(['is_null', 'is_not_null']);

const HINTS = {
  in: 'Values in lines, or on one line with commas between them.',
  like: '% is any text, _ any one character.',
};

export class Filters {
  #parts;
  #changed;
  #columns = [];
  #rows = [];

  /// `parts`: the elements `list`, `none`, `add` and `fieldset`.
  constructor({ parts, changed }) {
    this.#parts = parts;
    this.#changed = changed;
    parts.add.addEventListener('click', () => {
      this.#add().column.focus();
      this.#changed();
    });
  }

  /// The columns of another dataset. Filters go with the dataset that they were for.
  offer(columns) {
    this.#columns = columns;
    this.#rows = [];
    this.#parts.list.replaceChildren();
    setHidden(this.#parts.none, false);
  }

  /// The `filters` of a submission in place of those that are there. One without a value, as deleted exports have them, waits
  /// for one. The answer is the columns that the dataset does not have.
  fill(filters) {
    this.offer(this.#columns);
    const known = new Set(this.#columns.map(({ name }) => name));
    for (const { column, op, value } of filters.filter((filter) => known.has(filter.column))) {
      const row = this.#add();
      row.column.value = column;
      row.operator.value = op;
      this.#offerValue(row);
      if (op === 'in') row.several.value = lines([value ?? []].flat());
      else row.one.value = value ?? '';
      row.written = value !== undefined;
      row.kept = value;
    }
    return filters.map(({ column }) => column).filter((column) => !known.has(column));
  }

  #add() {
    const hint = element('p', { class: 'hint', id: newId('hint'), hidden: true });
    const column = element('select', {},
      this.#columns.map(({ name }) => element('option', { value: name }, name)));
    const operator = element('select', {},
      OPERATORS.map(([value, words]) => element('option', { value }, words)));
    const one = element('input', { spellcheck: 'false', autocapitalize: 'off', 'aria-describedby': hint.id });
    const several = element('textarea', { rows: 2, spellcheck: 'false', hidden: true, 'aria-describedby': hint.id });
    const remove = element('button', { type: 'button', class: 'icon', title: 'Remove this filter' }, '×');
    const row = { column, operator, one, several, remove, hint, written: false, kept: undefined, element: null };
    row.element = element('li', { class: 'line filter', 'data-errors': true }, column, operator, one, several, remove, hint);
    column.addEventListener('change', () => this.#changed());
    operator.addEventListener('change', () => {
      row.kept = undefined;
      this.#offerValue(row);
      this.#changed();
    });
    for (const value of [one, several]) {
      value.addEventListener('input', () => {
        row.written = true;
        row.kept = undefined;
        this.#changed();
      });
    }
    remove.addEventListener('click', () => this.#remove(row));
    this.#rows.push(row);
    this.#parts.list.append(row.element);
    this.#number();
    setHidden(this.#parts.none, true);
    return row;
  }

  /// Names that tell the controls of one filter from those of another.
  #number() {
    this.#rows.forEach((row, at) => {
      const names = { column: 'Column', operator: 'Condition', one: 'Value', several: 'Values' };
      for (const [part, name] of Object.entries(names)) setAttribute(row[part], 'aria-label', `${name} of filter ${at + 1}`);
      setAttribute(row.remove, 'aria-label', `Remove filter ${at + 1}`);
    });
  }

  /// One value, several or none, as the operator takes them. What was written goes along.
  #offerValue({ operator: { value: operator }, one, several, hint }) {
    const takesSeveral = operator === 'in';
    if (takesSeveral && several.hidden) several.value = one.value;
    if (!takesSeveral && !several.hidden) one.value = several.value.split('\n')[0];
    several.hidden = !takesSeveral;
    one.hidden = takesSeveral || WITHOUT_VALUE.has(operator);
    hint.textContent = HINTS[operator] ?? '';
    hint.hidden = !HINTS[operator];
  }

  #remove(row) {
    const at = this.#rows.indexOf(row);
    this.#rows.splice(at, 1);
    row.element.remove();
    this.#number();
    setHidden(this.#parts.none, this.#rows.length > 0);
    (this.#rows[at] ?? this.#rows[at - 1])?.column.focus();
    if (!this.#rows.length) this.#parts.add.focus();
    this.#changed();
  }

  /// Filters whose value nobody has begun to write.
  get unwritten() {
    return this.#rows.filter((row) => !isWritten(row)).length;
  }

  /// The `filters` of a submission; with `onlyWritten` without those that are still being made.
  read(fields, { onlyWritten = false } = {}) {
    fields.set('filters', this.#parts.fieldset);
    return this.#rows.filter((row) => !onlyWritten || isWritten(row)).map((row, index) => {
      const operator = row.operator.value;
      const value = operator === 'in' ? row.several : row.one;
      fields.set(`filters[${index}].column`, row.column);
      fields.set(`filters[${index}].op`, row.operator);
      fields.set(`filters[${index}].value`, value.hidden ? row.operator : value);
      fields.set(`filters[${index}]`, row.operator);
      const filter = { column: row.column.value, op: operator };
      if (WITHOUT_VALUE.has(operator)) return filter;
      // A control may not hold the value as it is, a line break for instance.
      return { ...filter, value: row.kept ?? (operator === 'in' ? valuesOf(value.value) : value.value) };
    });
  }
}

function isWritten({ operator, written }) {
  return written || WITHOUT_VALUE.has(operator.value);
}

/// The text of several values. One alone ends its line, as a comma may be part of it.
function lines(values) {
  return values.length === 1 ? `${values[0]}\n` : values.join('\n');
}

/// A value with a comma in it goes on a line of its own, with another line.
function valuesOf(text) {
  return text.split(text.includes('\n') ? '\n' : ',').map((value) => value.trim()).filter((value) => value !== '');
}
