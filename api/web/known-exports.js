// The newest document of each export that the page has heard of. They come by events, lists and single look-ups, in any
// order and more than once, so each is compared with what is known: an older one changes nothing.

const ACTIVE = { pending: 0, planning: 1, running: 2, finishing: 3 };
const ENDED = { completed: 0, failed: 1, cancelled: 1, expired: 2 };

/// A state that is given back comes after the others of its attempt, and the next claim counts the attempt up.
const GIVEN_BACK = 4;

export function isActive(status) {
  return status in ACTIVE;
}

function rank({ status, attempt }) {
  return status === 'pending' && attempt > 0 ? GIVEN_BACK : ACTIVE[status];
}

/// Whether `next` is what became of `known`, or says the same once more.
export function supersedes(next, known) {
  if (!known) return true;
  if (!isActive(known.status)) return !isActive(next.status) && ENDED[next.status] >= ENDED[known.status];
  if (!isActive(next.status)) return true;
  if (next.attempt !== known.attempt) return next.attempt > known.attempt;
  if (rank(next) !== rank(known)) return rank(next) > rank(known);
  return next.progress.rows >= known.progress.rows;
}

export class KnownExports {
  #documents = new Map();
  #heard = new Map();
  #listeners = [];

  /// `listener(document, before)`: what is new, and what was known; `before` is undefined for an export never seen.
  onChange(listener) {
    this.#listeners.push(listener);
  }

  get(id) {
    return this.#documents.get(id);
  }

  /// When the export was last heard of, new or not, on the clock of `performance.now()`.
  heardAt(id) {
    return this.#heard.get(id) ?? 0;
  }

  learn(document) {
    const id = document?.exportId;
    if (typeof id !== 'string' || !document.progress) return;
    this.#heard.set(id, performance.now());
    const before = this.#documents.get(id);
    if (!supersedes(document, before)) return;
    this.#documents.set(id, document);
    for (const listener of this.#listeners) listener(document, before);
  }

  /// A change of state without its document. Whether the document has to be fetched is the answer: it does if the state is
  /// news, because only the document has the error, the times and the links that come with it.
  hearOfState({ exportId, status, attempt }) {
    const known = this.#documents.get(exportId);
    if (!known) return true;
    const next = { ...known, status, attempt };
    if ((known.status === status && known.attempt === attempt) || !supersedes(next, known)) return false;
    if (isActive(status)) this.learn(next);
    return true;
  }
}
