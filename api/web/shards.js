// The shards of an export as cells that fill. So many cells as can be told apart: of more shards, each cell is several.

import { element, setHidden, setText } from './element.js';
import { count } from './words.js';

const MOST_CELLS = 64;

export class Shards {
  #cells = element('div', { class: 'cells', 'aria-hidden': 'true' });
  #words = element('span');
  element = element('div', { class: 'shards', hidden: true }, this.#cells, this.#words);
  #shards = 0;
  #done = -1;

  write(done, shards) {
    // One shard is what the bar shows.
    setHidden(this.element, shards < 2);
    if (shards < 2 || (done === this.#done && shards === this.#shards)) return;
    const each = Math.ceil(shards / MOST_CELLS);
    if (shards !== this.#shards) {
      const cells = Array.from({ length: Math.ceil(shards / each) }, () => element('i'));
      this.#cells.replaceChildren(...cells);
    }
    this.#shards = shards;
    this.#done = done;
    setText(this.#words, `${count(done)} of ${count(shards)} shards`);
    const { children } = this.#cells;
    for (let at = 0; at < children.length; at += 1) {
      const first = at * each;
      const inCell = Math.min(each, shards - first);
      const filled = Math.max(0, Math.min(done - first, inCell));
      const state = filled === inCell ? 'done' : filled > 0 ? 'begun' : 'open';
      if (children[at].className !== state) children[at].className = state;
    }
  }
}
