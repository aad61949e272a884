// One export in the list: its elements are made once, and each document writes into them what is another than before.

import * as curl from './curl.js';
import { ConfirmedRemoval } from './confirmed-removal.js';
import { element, newId, setAttribute, setHidden, setText, unseen } from './element.js';
import { ManifestFiles } from './manifest-files.js';
import { isActive } from './known-exports.js';
import { Shards } from './shards.js';
import {
  count, counted, duration, errorName, estimated, formatName, moment, momentInFull, percent, size, statusMeaning, statusName, waitWords,
} from './words.js';

/// The end of a UUIDv7 tells exports apart; its beginning is the time.
export function shortId(id) {
  return id.slice(-8);
}

/// How an export is called in a sentence.
export function titleOf({ dataset, format, exportId }) {
  return `${formatName(format)} of ${dataset}, ${shortId(exportId)}`;
}

class Moment {
  element = element('span', { class: 'moment', hidden: true });
  #time = element('time');
  #at = null;

  constructor(words) {
    this.element.append(`${words} `, this.#time);
  }

  write(at) {
    setHidden(this.element, !at);
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
  #error = { line: null, name: element('strong'), words: element('span'), code: element('code') };
  #moments = { createdAt: new Moment('Asked for'), finishedAt: new Moment('ended'), expiresAt: new Moment('kept until') };
  #download;
  #manifest;
  #curl;
  #removal;
  #files;
  #written = null;

  constructor(document, actions) {
    const { exportId, dataset, format, compression, layout } = document;
    const name = titleOf(document);
    const title = newId('export');
    const encoding = [formatName(format), compression, layout === 'files' ? 'several files' : null].filter(Boolean).join(' · ');
    this.#bar = element('progress', { max: 100, 'aria-label': `Progress of ${name}` });
    this.#barLine = element('div', { class: 'bar' }, this.#bar, this.#percent);
    this.#error.line = element('p', { class: 'export-error', hidden: true },
      this.#error.name, ' ', this.#error.words, ' ', this.#error.code);
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
      this.#files?.element ?? null);
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
    setText(this.#badge, statusName(it.status));
    setAttribute(this.#badge, 'title', statusMeaning(it.status));
    this.#writeBar(it, active);
    this.#writeFacts(it, active, pace);
    setHidden(this.#error.line, it.status !== 'failed');
    if (it.status === 'failed') {
      setText(this.#error.name, errorName(it.errorCode));
      setText(this.#error.words, it.error);
      setText(this.#error.code, it.errorCode);
    }
    for (const [field, line] of Object.entries(this.#moments)) line.write(it[field]);
    const completed = it.status === 'completed';
    this.#writeLink(this.#download, completed ? it.links.download : null);
    this.#writeLink(this.#manifest, it.links.manifest);
    setHidden(this.#curl, !completed);
    this.#removal.offer(active ? 'cancel' : completed ? 'delete' : null, this.element);
    this.#files?.offer(completed);
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
      rows: written ? this.#rowsWords(rows, rowsTotal) : kept || rows > 0 ? counted(rows, 'row') : waiting ? (it.waiting ? waitWords(it.waiting) : statusMeaning(it.status)) : '',
      bytes: written || kept || bytes > 0 ? size(bytes) : '',
      pace: '',
      left: it.status === 'running' && left !== null ? `about ${duration(Math.max(left, 0.1))} left` : '',
      shards: shards > 1 && !active ? `${count(shards)} shards` : '',
      attempt: it.attempt > 1 ? `attempt ${count(it.attempt)}` : '',
      stream: active && it.singleStream ? `one stream: ${it.singleStream.reason}` : '',
    };
    if (running && pace) facts.pace = `${count(pace.rows)} rows/s, ${size(pace.bytes)}/s`;
    else if (kept && seconds !== null) facts.pace = `in ${duration(seconds)}${seconds > 0 ? `, ${count(rows / seconds)} rows/s` : ''}`;
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
