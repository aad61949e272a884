// The options of each format, as the service's registry of formats describes them. Only what is another than the default goes
// into a submission.

import { element, newId, setHidden, setText } from './element.js';
import { FORMATS, OPTIONS } from './formats.js';
import { counted, formatName } from './words.js';

/// What the text of a control is submitted as, by the kind of the option.
const MAKE = {
  boolean: (text) => text === 'true',
  integer: (text) => (/^\d{1,15}$/.test(text) ? Number(text) : text),
  character: (text) => text.replace(/^\\t$/, '\t'),
};

/// Options that many people need and nobody would look for in a folded list.
const SEEN = new Set(['profile']);

export class Options {
  #parts;
  #controls = new Map();

  /// `parts`: the elements `grid`, `seen`, `format` and `changed`.
  constructor({ parts, changed }) {
    this.#parts = parts;
    for (const option of OPTIONS) {
      const { field, control } = made(option);
      control.addEventListener(control.matches('select') ? 'change' : 'input', () => {
        this.#describe();
        changed();
      });
      this.#controls.set(option, { field, control });
      (SEEN.has(option.name) ? parts.seen : parts.grid).append(field);
    }
  }

  #format = 'csv';

  /// Shows those of a format. The others keep what was chosen.
  offer(format) {
    this.#format = format;
    setText(this.#parts.format, formatName(format));
    for (const [option, { field }] of this.#controls) setHidden(field, !has(format, option));
    this.#describe();
  }

  /// The `options` of a submission in place of what is chosen.
  fill(options) {
    for (const [{ name }, { control }] of this.#controls) {
      const value = options[name];
      control.value = value === undefined ? '' : value === '\t' ? '\\t' : String(value);
    }
    this.#describe();
  }

  /// What the control of an option says; null where the format does not have it.
  words(name) {
    const [option, { control }] = [...this.#controls].find(([it]) => it.name === name) ?? [null, {}];
    return option && has(this.#format, option) ? (control.selectedOptions?.[0]?.textContent ?? control.value) : null;
  }

  #chosen() {
    return [...this.#controls].filter(([option, { control }]) => has(this.#format, option) && control.value !== '');
  }

  #describe() {
    const chosen = this.#chosen().filter(([{ name }]) => !SEEN.has(name)).length;
    setText(this.#parts.changed, chosen ? `${counted(chosen, 'choice')} made` : 'defaults');
  }

  /// The `options` of a submission.
  read(fields) {
    for (const [option, { control }] of this.#controls) fields.set(`options.${option.name}`, control);
    const members = this.#chosen().map(([{ name, kind }, { control }]) => [name, (MAKE[kind] ?? String)(control.value)]);
    return Object.fromEntries(members);
  }
}

function has(format, option) {
  return FORMATS.find(({ name }) => name === format)?.options.includes(option.name) ?? false;
}

function made({ label, kind, choices, placeholder, suggestions, hint }) {
  const id = newId('option');
  const hintId = hint ? `${id}-hint` : null;
  const listId = suggestions ? `${id}-list` : null;
  const control = choices
    ? element('select', { id, 'aria-describedby': hintId }, choices.map(([value, words]) => element('option', { value }, words)))
    : element('input', {
      id, placeholder, list: listId, spellcheck: 'false', autocapitalize: 'off', 'aria-describedby': hintId,
      inputmode: kind === 'integer' ? 'numeric' : null,
    });
  const field = element('div', { class: 'field', 'data-errors': true },
    element('label', { htmlFor: id }, label),
    control,
    suggestions ? element('datalist', { id: listId }, suggestions.map((value) => element('option', { value }))) : null,
    hint ? element('p', { class: 'hint', id: hintId }, hint) : null);
  return { field, control };
}
