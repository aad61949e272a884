// How the file is written: the compression that a format may have, and the options of each format. Only what is another than
// the default goes into a submission.

import { element, newId, setHidden, setText } from './element.js';
import { counted, formatName } from './words.js';

const EVERY = ['csv', 'json', 'jsonl', 'xml', 'parquet'];
const YES_OR_NO = { true: true, false: false };

/// `choices` have the default first; `suggestions` may be written over. `make` turns text into what is submitted.
const OPTIONS = [
  {
    name: 'profile', of: ['csv'], label: 'Profile',
    choices: [['', 'Plain (RFC 4180)'], ['spreadsheet', 'Spreadsheet']],
    hint: 'Spreadsheet: BOM, CRLF, and text that would run as a formula is defused.',
  },
  {
    name: 'delimiter', of: ['csv'], label: 'Delimiter', placeholder: ',', suggestions: [';', '\\t', '|'],
    hint: 'One punctuation mark; \\t is a tab.',
    make: (text) => text.replace(/^\\t$/, '\t'),
  },
  {
    name: 'header', of: ['csv'], label: 'Header',
    choices: [['', 'Names in the first line'], ['false', 'None']], make: (text) => YES_OR_NO[text],
  },
  { name: 'null', of: ['csv'], label: 'NULL is written as', placeholder: 'nothing' },
  {
    name: 'bom', of: ['csv'], label: 'Byte order mark',
    choices: [['', 'As the profile has it'], ['true', 'Yes'], ['false', 'No']], make: (text) => YES_OR_NO[text],
  },
  {
    name: 'lineEnding', of: ['csv'], label: 'Line ends',
    choices: [['', 'As the profile has them'], ['lf', 'LF (Unix)'], ['crlf', 'CRLF (Windows)']],
  },
  {
    name: 'bigint', of: ['json', 'jsonl'], label: 'bigint',
    choices: [['', 'Number'], ['string', 'String']],
    hint: 'JavaScript rounds numbers beyond 2⁵³; strings keep every digit.',
  },
  {
    name: 'numeric', of: ['parquet'], label: 'numeric without precision', placeholder: 'string',
    suggestions: ['double', 'decimal(38,2)', 'decimal(38,9)'], hint: 'string, double or decimal(38,s).',
  },
  { name: 'codec', of: ['parquet'], label: 'Compression of pages', choices: [['', 'Snappy'], ['zstd', 'zstd']] },
  {
    name: 'rowGroupBytes', of: ['parquet'], label: 'Bytes of a row group', placeholder: '6291456', numeric: true,
    hint: 'From 1 to 32 MiB, held in the memory of the worker.',
    make: (text) => (/^\d{1,15}$/.test(text) ? Number(text) : text),
  },
  {
    name: 'onUnrepresentable', of: EVERY, label: 'A value that the format cannot hold',
    choices: [['', 'Fails the export'], ['replace', 'Is replaced and counted']],
  },
];

export class Options {
  #parts;
  #controls = new Map();

  /// `parts`: the elements `grid`, `format` and `changed`.
  constructor({ parts, changed }) {
    this.#parts = parts;
    for (const option of OPTIONS) {
      const { field, control } = made(option);
      control.addEventListener(control.matches('select') ? 'change' : 'input', () => {
        this.#describe();
        changed();
      });
      this.#controls.set(option, { field, control });
      parts.grid.append(field);
    }
  }

  #format = 'csv';

  /// Shows those of a format. The others keep what was chosen.
  offer(format) {
    this.#format = format;
    setText(this.#parts.format, formatName(format));
    for (const [option, { field }] of this.#controls) setHidden(field, !option.of.includes(format));
    this.#describe();
  }

  #chosen() {
    return [...this.#controls].filter(([option, { control }]) => option.of.includes(this.#format) && control.value !== '');
  }

  #describe() {
    const chosen = this.#chosen().length;
    setText(this.#parts.changed, chosen ? `${counted(chosen, 'choice')} made` : 'defaults');
  }

  /// The `options` of a submission.
  read(fields) {
    for (const [option, { control }] of this.#controls) fields.set(`options.${option.name}`, control);
    const members = this.#chosen().map(([{ name, make = (text) => text }, { control }]) => [name, make(control.value)]);
    return Object.fromEntries(members);
  }
}

function made({ label, choices, placeholder, suggestions, numeric, hint }) {
  const id = newId('option');
  const hintId = hint ? `${id}-hint` : null;
  const listId = suggestions ? `${id}-list` : null;
  const control = choices
    ? element('select', { id, 'aria-describedby': hintId }, choices.map(([value, words]) => element('option', { value }, words)))
    : element('input', {
      id, placeholder, list: listId, spellcheck: 'false', autocapitalize: 'off', 'aria-describedby': hintId,
      inputmode: numeric ? 'numeric' : null,
    });
  const field = element('div', { class: 'field', 'data-errors': true },
    element('label', { htmlFor: id }, label),
    control,
    suggestions ? element('datalist', { id: listId }, suggestions.map((value) => element('option', { value }))) : null,
    hint ? element('p', { class: 'hint', id: hintId }, hint) : null);
  return { field, control };
}
