// A measure by name as horizontal bars, in SVG. It only draws: the numbers themselves are in a table beside it.

import { svgElement } from './element.js';

const WIDTH = 320;
const ROW = 26;
const NAMES = 74;
const NUMBERS = 76;

/// `bars`: `{name, value, words}`; a value of null has words and no bar.
export function barChart(label, bars) {
  const height = bars.length * ROW;
  const longest = Math.max(...bars.map(({ value }) => value ?? 0), Number.MIN_VALUE);
  const rows = bars.flatMap(({ name, value, words }, at) => {
    const middle = at * ROW + ROW / 2;
    const width = ((value ?? 0) / longest) * (WIDTH - NAMES - NUMBERS);
    return [
      text(name, { x: 0, y: middle, class: 'chart-name' }),
      svgElement('rect', { x: NAMES, y: middle - 7, width: Math.max(width, value === null ? 0 : 2), height: 14, rx: 3, class: 'chart-bar' }),
      text(words, { x: NAMES + width + 7, y: middle, class: 'chart-words' }),
    ];
  });
  return svgElement('svg', { viewBox: `0 0 ${WIDTH} ${height}`, role: 'img', 'aria-label': label, class: 'chart' }, ...rows);
}

function text(words, attributes) {
  return svgElement('text', { ...attributes, 'dominant-baseline': 'central' }, words);
}
