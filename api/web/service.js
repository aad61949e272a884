// The HTTP interface as the page calls it. What goes wrong comes back as one kind of error, a Problem, whether the service
// said so itself (application/problem+json), something in between did, or nobody answered.

export class Problem extends Error {
  constructor({ status = 0, type = '', title = '', detail = '', errors = [], retryAfter = null }) {
    super(detail || title || 'The request failed.');
    Object.assign(this, { name: 'Problem', status, type, title, detail, errors, retryAfter });
  }

  /// Whether the same request may well succeed in a moment.
  get passing() {
    return [0, 408, 429, 502, 503, 504].includes(this.status) || this.type.endsWith(':idempotency-key-in-progress');
  }
}

const PATIENCE = 30_000;

/// A header that no page of another site can send. The service wants it of what changes something by the page's cookie.
const OURS = { 'X-Polyglot-Request': 'page' };

let signInAgain = null;

/// `ask()` lets somebody sign in and ends when that is done; then calls that were answered with 401 are made again.
export function onSignedOut(ask) {
  signInAgain = ask;
}

/// The JSON of the answer, or null where it has none. An abort by `signal` is an AbortError, as with fetch.
export async function call(method, path, options = {}) {
  for (;;) {
    try {
      return await callOnce(method, path, options);
    } catch (problem) {
      if (problem.status !== 401 || !signInAgain) throw problem;
      await unlessAborted(signInAgain(), options.signal);
    }
  }
}

function unlessAborted(promise, signal) {
  const aborted = new Promise((_, reject) => {
    signal?.addEventListener('abort', () => reject(new DOMException('Not wanted any more', 'AbortError')), { once: true });
  });
  return Promise.race([promise, aborted]);
}

async function callOnce(method, path, { body, headers = {}, signal, patience = PATIENCE } = {}) {
  const giveUp = new AbortController();
  const stop = () => giveUp.abort();
  signal?.addEventListener('abort', stop);
  if (signal?.aborted) stop();
  const timer = patience && setTimeout(stop, patience);
  try {
    const answer = await fetch(path, {
      method,
      headers: { Accept: 'application/json', ...OURS, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
      body,
      signal: giveUp.signal,
      cache: 'no-store',
    });
    const content = await read(answer);
    if (answer.ok) return content;
    throw problemOf(answer, content);
  } catch (error) {
    if (error instanceof Problem) throw error;
    if (signal?.aborted) throw new DOMException('Not wanted any more', 'AbortError');
    const detail = giveUp.signal.aborted ? 'The service took too long to answer.' : 'The service could not be reached.';
    throw new Problem({ detail });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
}

async function read(answer) {
  const type = answer.headers.get('Content-Type') ?? '';
  if (answer.status === 204 || !/[/+]json/.test(type)) return null;
  return answer.json();
}

function problemOf(answer, content) {
  const { type, title, detail, errors } = content ?? {};
  const text = (value) => (typeof value === 'string' ? value : '');
  return new Problem({
    status: answer.status,
    type: text(type),
    title: text(title),
    detail: text(detail) || `The service answered with the status ${answer.status}.`,
    errors: Array.isArray(errors) ? errors : [],
    retryAfter: Number(answer.headers.get('Retry-After')) || null,
  });
}

/// Who uses the page.
export function session() {
  return callOnce('GET', '/session');
}

export function signIn(key) {
  return callOnce('POST', '/session', { body: JSON.stringify({ key }) });
}

export function signOut() {
  return callOnce('DELETE', '/session');
}

export function datasets() {
  return call('GET', '/datasets').then((answer) => answer.datasets);
}

export function preview(body, signal) {
  return call('POST', '/exports/preview', { body: JSON.stringify(body), signal });
}

export function inspect(id) {
  return call('GET', `/exports/${encodeURIComponent(id)}`);
}

export function manifest(id) {
  return call('GET', `/exports/${encodeURIComponent(id)}/manifest`);
}

/// Stops an export that is under way, takes away the file of one that has ended.
export function remove(id) {
  return call('DELETE', `/exports/${encodeURIComponent(id)}`);
}

export function list({ status = '', cursor = null, limit = 50 }, signal) {
  const parameters = new URLSearchParams({ limit });
  if (status) parameters.set('status', status);
  if (cursor) parameters.set('cursor', cursor);
  return call('GET', `/exports?${parameters}`, { signal });
}

export function benchmark({ rows, formats }, signal) {
  const parameters = new URLSearchParams();
  if (rows) parameters.set('rows', rows);
  // The commas stay: URLSearchParams would write each as %2C, which is the same and harder to read in a log.
  const named = `formats=${formats.map(encodeURIComponent).join(',')}`;
  return call('GET', `/exports/benchmark?${[parameters.toString(), named].filter(Boolean).join('&')}`, { signal, patience: 0 });
}

const TRIES = 4;

/// Asks for an export. What may not have arrived is sent again with the same key, which makes it one export all the same.
export async function submit(body, key) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await call('POST', '/exports', { body: JSON.stringify(body), headers: { 'Idempotency-Key': key } });
    } catch (problem) {
      // Where the service itself says that something is away, the user is told instead of being kept waiting.
      if (!problem.passing || problem.status === 503 || tries === TRIES) throw problem;
      await new Promise((resolve) => setTimeout(resolve, 500 * tries));
    }
  }
}

/// A version 4 UUID. Without TLS browsers have no randomUUID.
export function newKey() {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
