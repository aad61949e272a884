// Numbers, sizes, times, states and error codes in the words of the page, so that one thing is called the same everywhere.

import { FORMATS } from './formats.js';

const LOCALE = 'en';
const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });
const threeDigits = new Intl.NumberFormat(LOCALE, { maximumSignificantDigits: 3 });
const percentage = new Intl.NumberFormat(LOCALE, { style: 'percent', maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(LOCALE, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const dayAndClock = new Intl.DateTimeFormat(LOCALE, {
  day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23',
});
const full = new Intl.DateTimeFormat(LOCALE, { dateStyle: 'full', timeStyle: 'long', hourCycle: 'h23' });

export function count(number) {
  return whole.format(number);
}

export function counted(number, one, many = `${one}s`) {
  return `${whole.format(number)} ${number === 1 ? one : many}`;
}

/// A number that nobody has counted, in the digits that mean something.
export function estimated(number, one, many = `${one}s`) {
  return number < 1000 ? counted(number, one, many) : `${threeDigits.format(number)} ${many}`;
}

export function percent(part) {
  return percentage.format(part);
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 1000 ? whole.format(value) : threeDigits.format(value)} ${UNITS[unit]}`;
}

export function duration(seconds) {
  if (seconds < 0.05) return 'less than 0.1 s';
  if (seconds < 10) return `${threeDigits.format(Math.round(seconds * 10) / 10)} s`;
  const all = Math.round(seconds);
  if (all < 60) return `${all} s`;
  const two = (number) => String(number).padStart(2, '0');
  if (all < 3600) return `${Math.floor(all / 60)} min ${two(all % 60)} s`;
  return `${whole.format(Math.floor(all / 3600))} h ${two(Math.floor((all % 3600) / 60))} min`;
}

/// A moment as short as today allows.
export function moment(at, now = new Date()) {
  return at.toDateString() === now.toDateString() ? clock.format(at) : dayAndClock.format(at);
}

export function momentInFull(at) {
  return full.format(at);
}

export function formatName(format) {
  return FORMATS.find(({ name }) => name === format)?.title ?? format;
}

const STATUSES = {
  pending: ['Waiting', 'No worker has taken it yet'],
  planning: ['Planning', 'A worker looks at the table and cuts it into shards'],
  running: ['Running', 'Rows are being read and written'],
  finishing: ['Finishing', 'Every row is written; the file is being made visible'],
  completed: ['Completed', 'The file can be downloaded'],
  expired: ['Expired', 'The time for which the file was kept is over'],
  failed: ['Failed', 'There is no file'],
  cancelled: ['Cancelled', 'Stopped on request; there is no file'],
};

const DELETED = ['Deleted', 'The file was deleted on request'];

/// The state of an export in a word, and what it means. The service calls a deleted file expired, too.
export function stateName({ status, deleted }) {
  return deleted ? DELETED[0] : statusName(status);
}

export function stateMeaning({ status, deleted }) {
  return deleted ? DELETED[1] : statusMeaning(status);
}

export function statusName(status) {
  return STATUSES[status]?.[0] ?? status;
}

const WAITS = { places: 'Waits until another large export ends', workers: 'Waits for a free worker', tenant: 'Waits until another export of your tenant ends' };

/// What a pending export waits for, as of the moment at which the server said so.
export function waitWords({ reason, before }) {
  const words = WAITS[reason] ?? 'Waits for its turn';
  if (before === 0) return words;
  return `${words}, behind ${before >= 100 ? '100 or more exports' : counted(before, 'export')}`;
}

export function statusMeaning(status) {
  return STATUSES[status]?.[1] ?? '';
}

const ERRORS = {
  source_unavailable: 'The source database could not be reached.',
  storage_unavailable: 'The object store could not be reached.',
  worker_lost: 'The workers that took the export were not heard of again.',
  source_refused: 'The rows could not be read.',
  policy_not_applicable: 'What the operator lets clients have of the table could not be applied.',
  dataset_changed: 'The table has changed since the export was asked for.',
  unrepresentable_value: 'One of the values does not fit the format.',
  undecodable_value: 'The source database sent a value that makes no sense.',
  storage_refused: 'The object store refused the file.',
  row_too_large: 'One of the rows is too large.',
  dataset_limit: 'The file would have more than the operator gives out in one export.',
  file_too_large: 'The file would be larger than the object store takes.',
  deadline_exceeded: 'The export took longer than exports may.',
  snapshot_lost: 'The moment in time that the export showed was lost.',
  snapshot_too_old: 'The export held its moment in time for longer than it may.',
  temporary_file: 'A worker had no room for a temporary file.',
  request_unreadable: 'No worker could read the request.',
  internal: 'Something went wrong on the side of the service.',
};

/// What a code of `errorCode` means to somebody who does not know the codes.
export function errorName(code) {
  return ERRORS[code] ?? 'The export failed.';
}
