// What the fields of a submission are called on the page: `filters[0].value` is "Filter 1: value".

import { OPTIONS } from './formats.js';

const LISTS = {
  columns: ['Column', { source: 'column of the dataset', target: 'name in the file' }],
  filters: ['Filter', { column: 'column', path: 'path', op: 'condition', value: 'value' }],
  orderBy: ['Sort key', { column: 'column', direction: 'direction' }],
};

const SINGLE = {
  dataset: 'Dataset', format: 'Format', compression: 'Compression', columns: 'Columns', filters: 'Rows', orderBy: 'Order',
  options: 'Options', layout: 'Layout', parallelism: 'Shards at a time', coalesce: 'Join an identical export', body: 'Request',
};

export function fieldName(field) {
  const [, list, index, member, place] = /^(\w+)\[(\d+)\](?:\.(\w+))?(?:\[(\d+)\])?$/.exec(field) ?? [];
  if (list in LISTS) {
    const [name, members] = LISTS[list];
    const part = members[member] ?? member;
    return `${name} ${Number(index) + 1}${part ? `: ${part}` : ''}${place === undefined ? '' : ` ${Number(place) + 1}`}`;
  }
  const option = OPTIONS.find(({ name }) => field === `options.${name}`);
  return option ? `Option “${option.label}”` : SINGLE[field] ?? field;
}
