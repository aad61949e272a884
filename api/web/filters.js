// Which rows the file has: conditions on columns, all of which must hold. Each column offers the operators that the service lists
// for it, and a document of JSON a path to what is compared.

import { element, newId, setAttribute, setHidden } from './element.js';
import { pathOf, pathText, typedText, typedValue } from './json-path.js';

const OPERATORS = {
  '=': '= equals',
  '!=': '≠ differs from',
  '<': '< less than',
  '<=': '≤ at most',
  '>': '> more than',
  '>=': '≥ at least',
  in: 'in: one of',
  like: 'like: pattern',
  ilike: 'ilike: pattern, any case',
  is_null: 'is NULL',
  is_not_null: 'is not NULL',
};

const WITHOUT_VALUE = new Set(['is_null', 'is_not_null']);

const PATTERN = '% is any text, _ any one character.';
const HINTS = { in: 'Values in lines, or on one line with commas between them.', like: PATTERN, ilike: PATTERN };

const PATH_HINT = 'Keys with dots between them, as customer.id or items.0.price, or an array: ["a.b", "0"]. Empty: the whole document.';
const TYPED_HINT = 'true, false and numbers are compared as such, all else as text; "17" is the text 17.';

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
    for (const { column, path, op, value } of filters.filter((filter) => known.has(filter.column))) {
      const row = this.#add();
      row.column.value = column;
      row.path.value = path === undefined ? '' : pathText(path);
      row.wanted = op;
      row.isGiven = true;
      this.#offerOperators(row);
      const text = path === undefined ? String : typedText;
      if (op === 'in') row.several.value = lines([value ?? []].flat().map(text));
      else row.one.value = value === undefined ? '' : text(value);
      row.written = value !== undefined;
      row.kept = value;
    }
    return filters.map(({ column }) => column).filter((column) => !known.has(column));
  }

  #add() {
    const hint = element('p', { class: 'hint', id: newId('hint'), hidden: true });
    const pathHint = element('p', { class: 'hint', id: newId('hint'), hidden: true }, PATH_HINT);
    const column = element('select', {},
      this.#columns.map(({ name }) => element('option', { value: name }, name)));
    const path = element('input', { class: 'path', spellcheck: 'false', autocapitalize: 'off', placeholder: 'path', hidden: true, 'aria-describedby': pathHint.id });
    const operator = element('select', { class: 'operator' });
    const one = element('input', { class: 'value', spellcheck: 'false', autocapitalize: 'off', 'aria-describedby': hint.id });
    const several = element('textarea', { class: 'value', rows: 2, spellcheck: 'false', hidden: true, 'aria-describedby': hint.id });
    const remove = element('button', { type: 'button', class: 'icon', title: 'Remove this filter' }, '×');
    const row = {
      column, path, operator, one, several, remove, hint, pathHint,
      // `wanted`: the operator that was chosen, though the column may not have it; `isGiven`: by a request, which says what it says.
      wanted: '=', isGiven: false, written: false, kept: undefined, element: null,
    };
    row.element = element('li', { class: 'line filter', 'data-errors': true }, column, path, operator, one, several, remove, pathHint, hint);
    column.addEventListener('change', () => {
      row.isGiven = false;
      row.kept = undefined;
      this.#offerOperators(row);
      this.#changed();
    });
    path.addEventListener('input', () => {
      row.kept = undefined;
      this.#offerOperators(row);
      this.#changed();
    });
    operator.addEventListener('change', () => {
      row.kept = undefined;
      row.wanted = operator.value;
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
    this.#offerOperators(row);
    this.#number();
    setHidden(this.#parts.none, true);
    return row;
  }

  /// Names that tell the controls of one filter from those of another.
  #number() {
    this.#rows.forEach((row, at) => {
      const names = { column: 'Column', path: 'Path', operator: 'Condition', one: 'Value', several: 'Values' };
      for (const [part, name] of Object.entries(names)) setAttribute(row[part], 'aria-label', `${name} of filter ${at + 1}`);
      setAttribute(row.remove, 'aria-label', `Remove filter ${at + 1}`);
    });
  }

  /// The operators of the column, or of what is in it at the path. The one that was chosen stays where it is among them.
  #offerOperators(row) {
    const { operators, pathOperators } = this.#columns.find(({ name }) => name === row.column.value);
    setHidden(row.path, pathOperators.length === 0);
    setHidden(row.pathHint, row.path.hidden);
    row.element.classList.toggle('with-path', !row.path.hidden);
    const offered = isAtPath(row) ? pathOperators : operators;
    // The service says of a request that asks for more what is wrong with it.
    const names = row.isGiven && !offered.includes(row.wanted) ? [...offered, row.wanted] : offered;
    if (names.join() !== [...row.operator.options].map(({ value }) => value).join()) {
      row.operator.replaceChildren(...names.map((value) => element('option', { value }, OPERATORS[value] ?? value)));
    }
    row.operator.value = names.includes(row.wanted) ? row.wanted : names[0];
    this.#offerValue(row);
  }

  /// One value, several or none, as the operator takes them. What was written goes along.
  #offerValue(row) {
    const { operator: { value: operator }, one, several, hint } = row;
    const takesSeveral = operator === 'in';
    if (takesSeveral && several.hidden) several.value = one.value;
    if (!takesSeveral && !several.hidden) one.value = several.value.split('\n')[0];
    several.hidden = !takesSeveral;
    one.hidden = takesSeveral || WITHOUT_VALUE.has(operator);
    const typed = isAtPath(row) && !WITHOUT_VALUE.has(operator) && HINTS[operator] !== PATTERN ? TYPED_HINT : '';
    const words = [HINTS[operator], typed].filter(Boolean).join(' ');
    if (hint.textContent !== words) hint.textContent = words;
    hint.hidden = !words;
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
      const control = operator === 'in' ? row.several : row.one;
      fields.set(`filters[${index}].column`, row.column);
      fields.set(`filters[${index}].path`, row.path);
      fields.set(`filters[${index}].op`, row.operator);
      fields.set(`filters[${index}].value`, control.hidden ? row.operator : control);
      fields.set(`filters[${index}]`, row.operator);
      const filter = { column: row.column.value, ...(isAtPath(row) ? { path: pathOf(row.path.value) } : {}), op: operator };
      if (WITHOUT_VALUE.has(operator)) return filter;
      const read = isAtPath(row) && HINTS[operator] !== PATTERN ? typedValue : String;
      // A control may not hold the value as it is, a line break for instance.
      return { ...filter, value: row.kept ?? (operator === 'in' ? valuesOf(control.value).map(read) : read(control.value)) };
    });
  }
}

function isAtPath({ path }) {
  return !path.hidden && path.value.trim() !== '';
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
