// Who uses the page: what the service says of it, the form to sign in with an API key, and signing out. The key is sent once; the
// browser keeps a cookie that the page itself cannot read.

import { element, setText } from './element.js';
import * as service from './service.js';

const OPEN = 'Authentication is off: everyone who can reach this address can export.';
const FIRST = 'This service asks who you are. Its operator makes API keys, with polyglot-api keys create.';
const AGAIN = 'Your session has ended. What you have chosen stays as it is, and goes on when you have signed in.';

export class Session {
  #parts;
  #changed;
  #document = null;
  /// Of calls that wait until somebody has signed in.
  #waiting = null;

  /// `parts`: the elements `about`, `dialog`, `form`, `why`, `key`, `error` and `button`. `changed(isSignedIn)` hears when the session
  /// has ended, and when there is one again.
  constructor({ parts, changed }) {
    this.#parts = parts;
    this.#changed = changed;
    parts.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#signIn();
    });
    // There is nothing behind the dialog that would work without a session.
    parts.dialog.addEventListener('cancel', (event) => event.preventDefault());
    parts.dialog.addEventListener('close', () => {
      if (this.#waiting) this.#open();
    });
  }

  get isKnown() {
    return this.#document !== null;
  }

  get needsKey() {
    return this.#document?.auth === 'on';
  }

  /// Asks the service who this is. Without a session that is needed this ends when there is one; without an answer, at once: the calls
  /// of the page then say what is wrong.
  async look() {
    const before = this.#document;
    const document = await service.session().catch(() => null);
    if (!document) return;
    if (isOther(before, document)) {
      location.reload();
      return;
    }
    if (document.auth === 'on' && !document.signedIn) {
      // Who was signed in is remembered: what is on the page is that person's, and whoever signs in next may be another.
      this.#document ??= document;
      await this.ask();
      return;
    }
    this.#document = document;
    this.#goOn();
  }

  /// Shows the form, and ends when somebody has signed in.
  ask() {
    if (!this.#waiting) {
      this.#waiting = Promise.withResolvers?.() ?? withResolvers();
      setText(this.#parts.why, this.#document?.signedIn ? AGAIN : FIRST);
      this.#say('');
      this.#parts.about.replaceChildren();
      this.#open();
      this.#changed(false);
    }
    return this.#waiting.promise;
  }

  #open() {
    if (!this.#parts.dialog.open) this.#parts.dialog.showModal();
    this.#parts.key.focus();
  }

  async #signIn() {
    const { key, button } = this.#parts;
    const given = key.value.trim();
    if (button.getAttribute('aria-disabled') === 'true') return;
    if (!given) {
      this.#say('Enter an API key.');
      return;
    }
    button.setAttribute('aria-disabled', 'true');
    try {
      const document = await service.signIn(given);
      // What is on the page is of somebody else. The form is in the address, and comes back with it.
      if (isOther(this.#document, document)) location.reload();
      else {
        this.#document = document;
        key.value = '';
        this.#goOn();
      }
    } catch (problem) {
      this.#say(problem.message);
    } finally {
      button.removeAttribute('aria-disabled');
    }
  }

  #goOn() {
    this.#show();
    const waiting = this.#waiting;
    if (!waiting) return;
    this.#waiting = null;
    this.#parts.dialog.close();
    this.#changed(true);
    waiting.resolve();
  }

  #say(words) {
    const { error, key } = this.#parts;
    // Not hidden when it is empty: only what changes in a live region that is there is announced.
    error.textContent = words;
    if (words) {
      key.setAttribute('aria-invalid', 'true');
      key.focus();
    } else {
      key.removeAttribute('aria-invalid');
    }
  }

  #show() {
    const { auth, signedIn, name, tenant } = this.#document;
    const { about } = this.#parts;
    about.dataset.tone = auth === 'off' ? 'wait' : '';
    if (auth === 'off') {
      about.replaceChildren(element('p', {}, OPEN));
    } else if (signedIn) {
      const out = element('button', { type: 'button', class: 'quiet', on: { click: () => this.#signOut() } }, 'Sign out');
      const of = tenant && tenant !== name ? ` (${tenant})` : '';
      about.replaceChildren(element('p', {}, 'Signed in as ', element('strong', {}, name ?? 'an API key'), of), out);
    }
  }

  async #signOut() {
    try {
      await service.signOut();
    } catch (problem) {
      this.#parts.about.append(element('p', { class: 'error-text', role: 'alert' }, `Not signed out. ${problem.message}`));
      return;
    }
    this.#changed(false);
    // Nothing of the session stays: neither what the page shows nor the form in its address.
    history.replaceState(null, '', location.pathname);
    location.reload();
  }
}

/// Whether somebody is signed in who is another than before.
function isOther(before, now) {
  return Boolean(before?.signedIn && now.signedIn && (before.name !== now.name || before.tenant !== now.tenant));
}

function withResolvers() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}
