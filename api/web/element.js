// Makes DOM elements. All that the page shows is made here or written as text: there is no way from a string to markup, so
// a dataset, a column or an error message cannot become more than words.

const AS_PROPERTY = new Set(['value', 'checked', 'hidden', 'disabled', 'htmlFor', 'tabIndex', 'type', 'selected']);

/// `element('p', {class: 'hint', on: {click}}, 'words', child, null)`: absent attributes and children are left out.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === 'on') {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (AS_PROPERTY.has(key)) {
      made[key] = value;
    } else {
      made.setAttribute(key, value === true ? '' : String(value));
    }
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = 'http://www.w3.org/2000/svg';

export function svgElement(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

/// Text for those who cannot see what stands around.
export function unseen(text) {
  return element('span', { class: 'unseen' }, text);
}

/// Writes the text only where it is another one, and hides what has none.
export function setText(node, text) {
  const words = text ?? '';
  if (node.textContent !== words) node.textContent = words;
  setHidden(node, words === '');
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, String(value));
  }
}

export function byId(id) {
  return document.getElementById(id);
}

let made = 0;

/// An id that nothing else on the page has.
export function newId(prefix) {
  made += 1;
  return `${prefix}-${made}`;
}
