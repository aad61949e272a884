// Puts what the service says about a field, `columns[1].target` for instance, at the control that has it, and tells which
// messages have no control.

import { element, newId } from './element.js';

const CONTROLS = 'input, select, textarea';

export class FieldErrors {
  #shown = [];
  #last = '';

  clear() {
    for (const shown of this.#shown) withdraw(shown);
    this.#shown = [];
    this.#last = '';
  }

  /// Withdraws what was said of a control that is being changed: whether it is still wrong is for the service to say.
  changed(target) {
    const isAbout = ({ control }) => control === target || control.contains(target);
    if (!this.#shown.some(isAbout)) return;
    for (const shown of this.#shown.filter(isAbout)) withdraw(shown);
    this.#shown = this.#shown.filter((shown) => !isAbout(shown));
    this.#last = '';
  }

  /// `fields`: the control of each field's name. The answer has every error with its control, or null.
  show(errors, fields) {
    const found = errors.map(({ field, message }) => ({ field: String(field), message: String(message), control: controlOf(field, fields) }));
    const now = JSON.stringify(errors);
    // The same again would make the page jump, and be read out again.
    if (now === this.#last && this.#shown.every(({ line }) => line.isConnected)) return found;
    this.clear();
    this.#last = now;
    for (const { field, message, control } of found) {
      if (control) this.#showOne(control, inWords(field, message));
    }
    return found;
  }

  #showOne(control, words) {
    const id = newId('error');
    const line = element('p', { class: 'error-text', id }, words);
    control.closest('[data-errors]').append(line);
    if (control.matches(CONTROLS)) control.setAttribute('aria-invalid', 'true');
    const described = control.getAttribute('aria-describedby');
    control.setAttribute('aria-describedby', described ? `${described} ${id}` : id);
    this.#shown.push({ control, line, id });
  }
}

function withdraw({ control, line, id }) {
  line.remove();
  control.removeAttribute('aria-invalid');
  const others = (control.getAttribute('aria-describedby') ?? '').split(' ').filter((it) => it && it !== id);
  if (others.length) control.setAttribute('aria-describedby', others.join(' '));
  else control.removeAttribute('aria-describedby');
}

/// The control of the field, or of the nearest one around it: `filters[0].value[2]` is shown at `filters[0].value`.
function controlOf(field, fields) {
  for (let name = String(field); name; name = around(name)) {
    const control = fields.get(name);
    if (control?.isConnected) return control;
  }
  return null;
}

/// `a[0].b[1]`, `a[0].b`, `a[0]`, `a`, nothing.
function around(name) {
  return name.slice(0, Math.max(name.lastIndexOf('.'), name.lastIndexOf('['), 0));
}

function inWords(field, message) {
  const place = /\.value\[(\d+)\]$/.exec(field);
  const words = place ? `value ${Number(place[1]) + 1}: ${message}` : message;
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/// Brings a control into focus, wherever it is folded away.
export function focusOn(control) {
  for (let around = control.closest('details'); around; around = around.parentElement.closest('details')) around.open = true;
  const target = control.matches(CONTROLS) ? control : control.querySelector(`${CONTROLS}, button`);
  target?.focus();
}
