// One export in the list: its elements are made once, and each document writes into them what is another than before.

import * as curl from './curl.js';
import { ConfirmedRemoval } from './confirmed-removal.js';
import { element, newId, setAttribute, setHidden, setText, unseen } from './element.js';
import { ExportRequest } from './export-request.js';
import { ManifestFiles } from './manifest-files.js';
import { isActive } from './known-exports.js';
import { Shards } from './shards.js';
import {
  count, counted, duration, errorName, estimated, formatName, moment, momentInFull, percent, size, stateMeaning, stateName, statusMeaning, waitWords,
} from './words.js';

/// The end of a UUIDv7 tells exports apart; its beginning is the time.
export function shortId(id) {
  return id.slice(-8);
}

/// How an export is called in a sentence.
export function titleOf({ dataset, format, exportId }) {
  return `${formatName(format)} of ${dataset}, ${shortId(exportId)}`;
}

/// Seconds. What took less is mostly the beginning and the end, which have nothing to do with the rows.
const SHORTEST_RATE = 1;

class Moment {
  element = element('span', { class: 'moment', hidden: true });
  #time = element('time');
  #words = element('span');
  #at = null;

  constructor() {
    this.element.append(this.#words, ' ', this.#time);
  }

  write(at, words) {
    setHidden(this.element, !at);
    setText(this.#words, words);
    if (!at || at === this.#at) return;
    this.#at = at;
    const date = new Date(at);
    this.#time.dateTime = at;
    this.#time.title = momentInFull(date);
    this.#time.textContent = moment(date);
  }
}

export class ExportRow {
  element;
  #badge = element('span', { class: 'badge' });
  #bar;
  #percent = element('span', { class: 'percent', 'aria-hidden': 'true' });
  #barLine;
  #facts = {};
  #shards = new Shards();
  #error = { line: null, words: element('strong'), code: element('code') };
  #moments = { createdAt: new Moment(), finishedAt: new Moment(), expiresAt: new Moment() };
  #download;
  #manifest;
  #curl;
  #removal;
  #files;
  #request;
  #written = null;

  constructor(document, actions) {
    const { exportId, dataset, format, compression, layout, benchmark } = document;
    const name = titleOf(document);
    const title = newId('export');
    const encoding = [formatName(format), compression, layout === 'files' ? 'several files' : null, benchmark ? 'benchmark' : null].filter(Boolean).join(' · ');
    this.#bar = element('progress', { max: 100, 'aria-label': `Progress of ${name}` });
    this.#barLine = element('div', { class: 'bar' }, this.#bar, this.#percent);
    this.#error.line = element('p', { class: 'export-error', hidden: true },
      this.#error.words, ' ', this.#error.code);
    const link = (words) => element('a', { class: 'plain', hidden: true }, words, unseen(` ${name}`));
    this.#download = link('Download');
    this.#manifest = link('Manifest');
    // What is chosen in the form stays where it is.
    this.#manifest.target = '_blank';
    this.#manifest.append(unseen(', in a new tab'));
    this.#curl = element('button', { type: 'button', class: 'quiet', hidden: true }, 'Copy curl', unseen(` for ${name}`));
    this.#curl.addEventListener('click', () => {
      const it = this.#written;
      actions.copy(this.#curl, it.layout === 'files' ? curl.listing(it) : curl.download(it));
    });
    this.#removal = new ConfirmedRemoval(name, () => actions.remove(exportId));
    this.#files = layout === 'files' ? new ManifestFiles(exportId, name) : null;
    this.#request = new ExportRequest(exportId, name, actions);
    this.element = element('li', { class: 'export', id: `export-${exportId}`, tabIndex: -1, 'aria-labelledby': title },
      element('div', { class: 'export-head' },
        this.#badge,
        element('h3', { id: title }, element('span', { class: 'name' }, dataset), ' ', element('span', { class: 'encoding' }, encoding)),
        element('code', { class: 'export-id', title: exportId }, exportId)),
      this.#barLine,
      this.#shards.element,
      element('p', { class: 'facts' }, ['rows', 'bytes', 'pace', 'left', 'shards', 'attempt', 'stream'].map((fact) => this.#fact(fact))),
      this.#error.line,
      element('div', { class: 'export-foot' },
        element('p', { class: 'facts moments' }, Object.values(this.#moments).map((it) => it.element)),
        element('div', { class: 'actions' }, this.#download, this.#manifest, this.#curl, this.#removal.button)),
      this.#removal.question,
      this.#files?.element ?? null,
      this.#request.element);
  }

  #fact(name) {
    this.#facts[name] = element('span', { hidden: true });
    return this.#facts[name];
  }

  get hasFocus() {
    return this.element.contains(document.activeElement);
  }

  /// `pace`: rows and bytes a second at the moment, or null.
  update(it, pace) {
    const active = isActive(it.status);
    this.#written = it;
    setAttribute(this.element, 'data-status', it.status);
    setText(this.#badge, stateName(it));
    setAttribute(this.#badge, 'title', stateMeaning(it));
    this.#writeBar(it, active);
    this.#writeFacts(it, active, pace);
    const failure = it.status === 'failed' ? it : it.lastFailure;
    setHidden(this.#error.line, !failure);
    if (failure) {
      // The service's own sentence says more than the name of the code.
      const words = failure.error || errorName(failure.errorCode);
      setText(this.#error.words, it.status === 'failed' ? words : `Tried again: ${words}`);
      setText(this.#error.code, failure.errorCode);
    }
    const completed = it.status === 'completed';
    const words = { createdAt: 'Asked for', finishedAt: 'ended', expiresAt: completed ? 'kept until' : stateName(it).toLowerCase() };
    for (const [field, line] of Object.entries(this.#moments)) line.write(it[field], words[field]);
    this.#writeLink(this.#download, completed ? it.links.download : null);
    this.#writeLink(this.#manifest, it.links.manifest);
    setHidden(this.#curl, !completed);
    this.#removal.offer(active ? 'cancel' : completed ? 'delete' : null, this.element);
    this.#files?.offer(completed);
    this.#request.offer(it);
  }

  #writeBar({ status, progress: { rows, rowsTotal } }, active) {
    setHidden(this.#barLine, !active);
    if (!active) return;
    const waiting = status === 'pending' || status === 'planning';
    const known = rowsTotal !== null && rowsTotal > 0;
    // The total is an estimate: the bar is full when the file is there.
    const part = status === 'finishing' ? 0.99 : known ? Math.min(rows / rowsTotal, 0.99) : 0;
    if (waiting && rows === 0) {
      setAttribute(this.#bar, 'value', 0);
      setAttribute(this.#bar, 'aria-valuetext', statusMeaning(status));
      setText(this.#percent, '');
    } else if (known || status === 'finishing') {
      setAttribute(this.#bar, 'value', (part * 100).toFixed(1));
      setAttribute(this.#bar, 'aria-valuetext', `${percent(part)}, ${this.#rowsWords(rows, rowsTotal)}`);
      setText(this.#percent, percent(part));
    } else {
      setAttribute(this.#bar, 'value', null);
      setAttribute(this.#bar, 'aria-valuetext', this.#rowsWords(rows, null));
      setText(this.#percent, '');
    }
  }

  #rowsWords(rows, total) {
    return total === null ? counted(rows, 'row') : `${count(rows)} of about ${estimated(Math.max(total, rows), 'row')}`;
  }

  #writeFacts(it, active, pace) {
    const { rows, rowsTotal, bytes, shards, shardsDone, etaSeconds } = it.progress;
    const running = it.status === 'running' || it.status === 'finishing';
    const waiting = active && !running;
    const written = running || (active && rows > 0);
    const kept = it.status === 'completed' || it.status === 'expired';
    const seconds = it.startedAt && it.finishedAt ? (new Date(it.finishedAt) - new Date(it.startedAt)) / 1000 : null;
    const left = pace && rowsTotal ? (rowsTotal - rows) / pace.rows : etaSeconds;
    const facts = {
      // What failed and cancelled exports have written is thrown away.
      rows: written ? this.#rowsWords(rows, rowsTotal) : kept ? counted(rows, 'row') : waiting ? (it.waiting ? waitWords(it.waiting) : statusMeaning(it.status)) : '',
      bytes: written || kept ? size(bytes) : '',
      pace: '',
      left: it.status === 'running' && left !== null ? `about ${duration(Math.max(left, 0.1))} left` : '',
      shards: shards > 1 && kept ? `${count(shards)} shards` : '',
      attempt: it.attempt > 1 ? `attempt ${count(it.attempt)}` : '',
      stream: active && it.singleStream ? `one stream: ${it.singleStream.reason}` : '',
    };
    if (running && pace) facts.pace = `${count(pace.rows)} rows/s, ${size(pace.bytes)}/s`;
    else if (kept && seconds !== null) facts.pace = `in ${duration(seconds)}${seconds >= SHORTEST_RATE ? `, ${count(rows / seconds)} rows/s` : ''}`;
    for (const [name, words] of Object.entries(facts)) setText(this.#facts[name], words);
    this.#shards.write(active ? shardsDone : 0, active ? shards : 0);
  }

  #writeLink(link, address) {
    // Only paths of this service: an address is not to become a script.
    const usable = typeof address === 'string' && /^\/(?!\/)/.test(address);
    setAttribute(link, 'href', usable ? address : null);
    setHidden(link, !usable);
  }
}
