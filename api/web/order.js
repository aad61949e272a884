// In which order the rows are: the columns that sort them, the first one first.

import { element, setAttribute, setHidden, setText } from './element.js';

export class Order {
  #parts;
  #changed;
  #columns = [];
  #keys = [];

  /// `parts`: the elements `list`, `byDefault`, `add` and `fieldset`.
  constructor({ parts, changed }) {
    this.#parts = parts;
    this.#changed = changed;
    parts.add.addEventListener('click', () => {
      this.#add()?.column.focus();
      this.#changed();
    });
  }

  /// The columns of another dataset, and the order that it has where none is asked for.
  offer({ columns, defaultOrder }) {
    this.#columns = columns;
    this.#keys = [];
    this.#parts.list.replaceChildren();
    const keys = defaultOrder.map(({ column, direction }) => (direction === 'desc' ? `${column} descending` : column));
    setText(this.#parts.byDefault, keys.length ? `By ${keys.join(', ')}.` : 'As the database reads them; no order is promised.');
  }

  /// The `orderBy` of a submission in place of what is there. The answer is the columns that the dataset does not have.
  fill(keys) {
    for (const key of this.#keys.splice(0)) key.element.remove();
    setHidden(this.#parts.byDefault, false);
    const known = new Set(this.#columns.map(({ name }) => name));
    for (const { column, direction } of keys.filter((key) => known.has(key.column))) {
      const key = this.#add();
      key.column.value = column;
      key.direction.value = direction ?? 'asc';
    }
    return keys.map(({ column }) => column).filter((column) => !known.has(column));
  }

  #add() {
    const taken = new Set(this.#keys.map((key) => key.column.value));
    const free = this.#columns.find(({ name }) => !taken.has(name)) ?? this.#columns[0];
    if (!free) return null;
    const column = element('select', {},
      this.#columns.map(({ name }) => element('option', { value: name }, name)));
    column.value = free.name;
    const direction = element('select', {},
      element('option', { value: 'asc' }, 'ascending'), element('option', { value: 'desc' }, 'descending'));
    const remove = element('button', { type: 'button', class: 'icon', title: 'Do not sort by this' }, '×');
    const key = { column, direction, remove, element: element('li', { class: 'line', 'data-errors': true }, column, direction, remove) };
    column.addEventListener('change', () => this.#changed());
    direction.addEventListener('change', () => this.#changed());
    remove.addEventListener('click', () => this.#remove(key));
    this.#keys.push(key);
    this.#parts.list.append(key.element);
    this.#number();
    setHidden(this.#parts.byDefault, true);
    return key;
  }

  #remove(key) {
    const at = this.#keys.indexOf(key);
    this.#keys.splice(at, 1);
    key.element.remove();
    this.#number();
    setHidden(this.#parts.byDefault, this.#keys.length > 0);
    (this.#keys[at]?.column ?? this.#keys[at - 1]?.column ?? this.#parts.add).focus();
    this.#changed();
  }

  /// Names that tell the controls of one key from those of another.
  #number() {
    this.#keys.forEach(({ column, direction, remove }, at) => {
      setAttribute(column, 'aria-label', `Column of sort key ${at + 1}`);
      setAttribute(direction, 'aria-label', `Direction of sort key ${at + 1}`);
      setAttribute(remove, 'aria-label', `Remove sort key ${at + 1}`);
    });
  }

  /// The `orderBy` of a submission.
  read(fields) {
    fields.set('orderBy', this.#parts.fieldset);
    return this.#keys.map(({ column, direction }, index) => {
      fields.set(`orderBy[${index}].column`, column);
      fields.set(`orderBy[${index}].direction`, direction);
      fields.set(`orderBy[${index}]`, column);
      return { column: column.value, direction: direction.value };
    });
  }
}
