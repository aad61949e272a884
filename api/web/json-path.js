// Paths into documents of JSON, and the values that are compared with what is there, as people write them and as a submission has
// them.

/// The steps of a path: keys with dots between them, or an array of JSON, where a key has a dot. What is neither goes to the service
/// as it is, which says what is wrong with it.
export function pathOf(text) {
  const path = text.trim();
  if (!path.startsWith('[')) return path.split('.');
  const steps = parsed(path);
  if (!Array.isArray(steps)) return path;
  return steps.map((step) => (typeof step === 'number' ? String(step) : step));
}

export function pathText(path) {
  if (!Array.isArray(path)) return String(path);
  const dotted = path.join('.');
  const back = pathOf(dotted);
  return path.length && Array.isArray(back) && JSON.stringify(back) === JSON.stringify(path) ? dotted : JSON.stringify(path);
}

/// A number, true, false or null, and text in quotation marks, is that value of JSON; all else is text as it is.
export function typedValue(text) {
  const value = parsed(text);
  if (value === undefined || (typeof value === 'object' && value !== null)) return text;
  if (typeof value !== 'number' || JSON.stringify(value) === text.trim()) return value;
  // A double does not hold these digits. Where the browser can, they are sent as they were written.
  return typeof JSON.rawJSON === 'function' ? JSON.rawJSON(text.trim()) : value;
}

export function typedText(value) {
  if (typeof value !== 'string') return JSON.stringify(value);
  return typedValue(value) === value ? value : JSON.stringify(value);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
