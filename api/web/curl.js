// The commands that do on a command line what the page does, and putting them on the clipboard.

import { element } from './element.js';
import { FORMATS } from './formats.js';

/// One word of a POSIX shell, whatever is in it.
export function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/// What a command line needs where the service asks who it is: its key in a variable, as it is not the page's to know.
let authorization = '';

export function needKey(isNeeded) {
  authorization = isNeeded ? ' -H "Authorization: Bearer $API_KEY"' : '';
}

export function submission(body) {
  const url = new URL('/exports', location.href).href;
  return `curl -i${authorization} ${quoted(url)} \\\n  -H 'Content-Type: application/json' \\\n  --data-raw ${quoted(JSON.stringify(body))}`;
}

function extension(format) {
  return FORMATS.find(({ name }) => name === format)?.extension ?? format;
}

export function download({ exportId, dataset, format, compression }) {
  const url = new URL(`/exports/${exportId}/download`, location.href).href;
  const ending = { gzip: '.gz', zstd: '.zst' }[compression] ?? '';
  // A name from outside is not to lead out of the folder, nor to look like an option.
  const name = dataset.replaceAll(/[^\w.-]+/g, '_').replace(/^[.-]+/, '_') || 'export';
  return `curl -L${authorization} -o ${quoted(`${name}.${extension(format)}${ending}`)} ${quoted(url)}`;
}

export function listing({ exportId }) {
  return `curl${authorization} ${quoted(new URL(`/exports/${exportId}/manifest`, location.href).href)}`;
}

/// Whether it worked. Without TLS browsers have no clipboard API, and what copies a selection is still there.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelection(text);
  }
}

function copySelection(text) {
  const before = document.activeElement;
  const area = element('textarea', { class: 'unseen', readonly: true, 'aria-hidden': 'true', tabIndex: -1, value: text });
  document.body.append(area);
  area.select();
  let copied = false;
  try {
    copied = document.execCommand('copy');
  } catch {
    // Nothing is left to try; the caller shows the text instead.
  }
  area.remove();
  before?.focus({ preventScroll: true });
  return copied;
}

/// A button's answer to being pressed, in its own words, for a moment. Where nothing copies, the text is shown to be taken.
export async function copyBy(button, text, announcements) {
  const copied = await copy(text);
  announcements.say(copied ? 'The curl command is on the clipboard.' : 'The clipboard is not available; the command is shown.');
  if (!copied) {
    showBeside(button, text);
    return;
  }
  button.dataset.copied = 'yes';
  setTimeout(() => delete button.dataset.copied, 1600);
}

function showBeside(button, text) {
  button.parentElement.querySelector('.by-hand')?.remove();
  const area = element('textarea', { class: 'by-hand', readonly: true, rows: 4, 'aria-label': 'The curl command', value: text });
  area.addEventListener('blur', () => area.remove());
  button.parentElement.append(area);
  area.select();
}
