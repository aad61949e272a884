// The form in the page's address, so that a reload, a bookmark and a link have all of it. It is in the fragment, which browsers
// send to no server: values of filters may be personal data.

/// Characters of the fragment. Browsers take more; mail and chat programs cut longer links.
const LONGEST = 8_000;

/// Milliseconds without a change. Browsers limit how often a page may write its address.
const SETTLED = 250;

export class FormAddress {
  #timer = null;
  #next = null;

  constructor() {
    window.addEventListener('pagehide', () => this.#write());
  }

  /// What the address holds: `dataset`, `format` and the rest of a submission; null where it holds none.
  read() {
    const parameters = new URLSearchParams(location.hash.slice(1));
    if (!parameters.has('dataset')) return null;
    const base = { dataset: parameters.get('dataset'), format: parameters.get('format') };
    try {
      const rest = JSON.parse(parameters.get('form') ?? '{}');
      return isForm(rest) ? { ...rest, ...base } : base;
    } catch {
      // A link that was cut short still has its beginning.
      return base;
    }
  }

  /// Writes a submission a moment later. The answer is whether all of it has room.
  keep({ dataset, format, ...rest }) {
    const base = { dataset, format };
    const whole = new URLSearchParams(Object.keys(rest).length ? { ...base, form: JSON.stringify(rest) } : base).toString();
    const fits = whole.length <= LONGEST;
    this.#next = fits ? whole : new URLSearchParams(base).toString();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#write(), SETTLED);
    return fits;
  }

  #write() {
    clearTimeout(this.#timer);
    if (this.#next === null) return;
    history.replaceState(null, '', `#${this.#next}`);
    this.#next = null;
  }
}

/// Whether members that are lists of objects are such: an address may hold anything.
function isForm(rest) {
  const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
  const isList = (value) => value === undefined || (Array.isArray(value) && value.every(isObject));
  return isObject(rest) && [rest.columns, rest.filters, rest.orderBy].every(isList) && (rest.options === undefined || isObject(rest.options));
}
