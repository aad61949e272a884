// The button that cancels an export or deletes its file, and the question that comes before: nothing is lost by one press.

import { element, newId, setHidden, unseen } from './element.js';

const WORDS = {
  cancel: { button: 'Cancel', ask: 'Cancel this export? What is written so far is thrown away.', yes: 'Cancel the export', no: 'Let it run' },
  delete: { button: 'Delete', ask: 'Delete this file? It cannot be had back.', yes: 'Delete the file', no: 'Keep it' },
};

export class ConfirmedRemoval {
  button = element('button', { type: 'button', class: 'quiet', hidden: true, 'aria-expanded': 'false' });
  question;
  #what = null;
  #name;
  #remove;
  #ask = element('p', { id: newId('ask') });
  #yes = element('button', { type: 'button', class: 'danger' });
  #no = element('button', { type: 'button', class: 'plain' });
  #failed = element('p', { class: 'error-text', role: 'alert' });
  #asked = false;

  /// `remove` does it, and fails with a Problem.
  constructor(name, remove) {
    this.#name = name;
    this.#remove = remove;
    this.question = element('div', { class: 'question', role: 'group', 'aria-labelledby': this.#ask.id, hidden: true },
      this.#ask, element('div', { class: 'actions' }, this.#yes, this.#no), this.#failed);
    this.button.addEventListener('click', () => this.#toggle(this.question.hidden));
    this.#no.addEventListener('click', () => this.#toggle(false));
    this.#yes.addEventListener('click', () => this.#confirm());
    this.question.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.#toggle(false);
    });
  }

  /// What there is to do: `cancel`, `delete` or null. Where that changes under a question, the question is withdrawn.
  offer(what, home) {
    if (what === this.#what) return;
    const hadFocus = this.question.contains(document.activeElement) || this.button === document.activeElement;
    this.#what = what;
    this.#asked = false;
    setHidden(this.question, true);
    this.button.setAttribute('aria-expanded', 'false');
    this.#failed.textContent = '';
    setHidden(this.button, what === null);
    if (what) {
      const words = WORDS[what];
      this.#enable(words.button);
      this.#ask.textContent = words.ask;
      this.#yes.textContent = words.yes;
      this.#no.textContent = words.no;
    }
    if (hadFocus) (what ? this.button : home).focus({ preventScroll: true });
  }

  #enable(words) {
    this.button.replaceChildren(words, unseen(` ${this.#name}`));
    this.button.setAttribute('aria-disabled', String(this.#asked));
  }

  #toggle(open) {
    if (this.#asked) return;
    setHidden(this.question, !open);
    this.button.setAttribute('aria-expanded', String(open));
    this.#failed.textContent = '';
    (open ? this.#no : this.button).focus();
  }

  async #confirm() {
    const what = this.#what;
    if (this.#asked) return;
    this.#asked = true;
    setHidden(this.question, true);
    this.button.setAttribute('aria-expanded', 'false');
    this.#enable(what === 'cancel' ? 'Cancelling …' : 'Deleting …');
    this.button.focus();
    try {
      await this.#remove();
    } catch (problem) {
      // The export may have ended meanwhile, and there is something else to do now.
      if (what !== this.#what) return;
      this.#asked = false;
      this.#enable(WORDS[what].button);
      this.#toggle(true);
      this.#failed.textContent = problem.message;
    }
  }
}
