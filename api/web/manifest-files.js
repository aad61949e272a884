// The files of an export that has several, out of its manifest: fetched when they are asked for, because their links are
// good for minutes only.

import { element, unseen } from './element.js';
import * as service from './service.js';
import { counted, size } from './words.js';

const MOST = 200;

export class ManifestFiles {
  element;
  #content = element('div');
  #id;

  constructor(id, name) {
    this.#id = id;
    this.element = element('details', { class: 'files', hidden: true },
      element('summary', {}, 'Files', unseen(` of ${name}`)), this.#content);
    this.element.addEventListener('toggle', () => {
      if (this.element.open) this.#load();
    });
  }

  offer(there) {
    this.element.hidden = !there;
  }

  async #load() {
    this.#content.replaceChildren(element('p', { class: 'hint' }, 'Looking up the files …'));
    try {
      const { files = [] } = await service.manifest(this.#id);
      const lines = files.slice(0, MOST).map((file) => this.#line(file));
      const more = files.length > MOST ? element('p', { class: 'hint' }, `And ${files.length - MOST} more, in the manifest.`) : null;
      this.#content.replaceChildren(element('ol', {}, lines), ...(more ? [more] : []));
    } catch (problem) {
      const again = element('button', { type: 'button', class: 'plain', on: { click: () => this.#load() } }, 'Try again');
      this.#content.replaceChildren(element('p', { class: 'error-text', role: 'alert' }, problem.message), again);
    }
  }

  #line({ name, rows, bytes, url }) {
    // The links lead to the object store, and to nothing that runs here.
    const usable = /^https?:/i.test(url ?? '');
    return element('li', {}, usable ? element('a', { href: url }, name) : name,
      element('span', { class: 'hint' }, ` ${counted(rows, 'row')}, ${size(bytes)}`));
  }
}
