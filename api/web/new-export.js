// The form for a new export: what is chosen becomes the body of a submission, which is previewed, shown as a curl command,
// and sent.

import { shortId } from './export-row.js';
import { byId, element, setHidden, setText } from './element.js';
import { Columns } from './columns.js';
import * as curl from './curl.js';
import { FieldErrors, focusOn } from './field-errors.js';
import { fieldName } from './field-names.js';
import { Filters } from './filters.js';
import { FormAddress } from './form-address.js';
import { FORMATS } from './formats.js';
import { Options } from './options.js';
import { Order } from './order.js';
import { Preview } from './preview.js';
import * as service from './service.js';
import { counted, estimated, formatName } from './words.js';

export class NewExport {
  #form = byId('new-form');
  #dataset = byId('dataset');
  #datasets = new Map();
  #errors = new FieldErrors();
  #columns;
  #filters;
  #order;
  #options;
  #preview;
  #address = new FormAddress();
  #known;
  #actions;
  /// The key of the last submission that may have arrived without an answer, and what it asked for.
  #sent = { key: null, body: null };
  #isSending = false;
  #hasFailed = false;

  constructor({ known, actions }) {
    this.#known = known;
    this.#actions = actions;
    const changed = () => this.#changed();
    const part = (prefix, names) => Object.fromEntries(names.map((name) => [name, byId(`${prefix}-${name}`)]));
    this.#columns = new Columns({
      parts: {
        ...part('columns', ['count', 'all', 'none', 'find']),
        list: byId('columns'), findField: byId('columns-find-field'), fieldset: byId('columns-field'),
      },
      changed,
    });
    this.#filters = new Filters({ parts: { ...part('filters', ['none', 'add']), list: byId('filters'), fieldset: byId('filters-field') }, changed });
    this.#order = new Order({
      parts: { add: byId('order-add'), byDefault: byId('order-default'), list: byId('order'), fieldset: byId('order-field') }, changed,
    });
    this.#options = new Options({ parts: { ...part('options', ['format', 'changed', 'seen']), grid: byId('options') }, changed });
    this.#preview = new Preview({
      parts: { ...part('preview', ['state', 'retry']), table: byId('preview') },
      read: () => this.#readForPreview(),
      errors: (errors, fields) => this.#tell(errors, fields),
      becomes: (source, format) => this.#datasets.get(this.#dataset.value).columns.find(({ name }) => name === source)?.becomes?.[format],
    });
    this.#dataset.addEventListener('change', () => this.#choose());
    byId('formats').addEventListener('change', () => this.#formatChosen());
    byId('compressions').addEventListener('change', changed);
    for (const id of ['layout', 'coalesce']) byId(id).addEventListener('change', changed);
    byId('parallelism').addEventListener('input', changed);
    byId('curl').addEventListener('click', (event) => this.#actions.copy(event.currentTarget, curl.submission(this.#read().body)));
    for (const event of ['input', 'change']) this.#form.addEventListener(event, ({ target }) => this.#mending(target));
    window.addEventListener('hashchange', () => {
      const linked = this.#address.read();
      if (linked && this.#datasets.size) this.#fill(linked);
    });
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#start();
    });
  }

  /// The service is there, perhaps again.
  recover() {
    if (this.#hasFailed) this.load();
    else if (this.#datasets.size) this.#preview.recover();
  }

  /// Puts the request of an export into the form, to be changed and started.
  edit(request) {
    if (!this.#datasets.has(request.dataset)) {
      this.#say('bad', element('p', {}, `There is no dataset “${request.dataset}” any more.`));
    } else {
      this.#say();
      this.#fill(request);
    }
    byId('new').focus({ preventScroll: true });
    byId('new').scrollIntoView();
  }

  async load() {
    const state = byId('datasets-state');
    this.#hasFailed = false;
    setHidden(this.#form, true);
    byId('new').classList.add('loading');
    state.dataset.tone = 'busy';
    setText(state, 'Looking up the datasets …');
    try {
      this.#offer(await service.datasets());
    } catch (problem) {
      const again = element('button', { type: 'button', class: 'plain', on: { click: () => this.load() } }, 'Try again');
      this.#hasFailed = true;
      state.dataset.tone = 'bad';
      state.replaceChildren(element('p', {}, `The datasets could not be loaded. ${problem.message}`), again);
    }
  }

  #offer(datasets) {
    const state = byId('datasets-state');
    if (!datasets.length) {
      state.dataset.tone = 'empty';
      setText(state, 'There is no dataset to export. The operator says in the configuration DATASETS what may be exported.');
      return;
    }
    setHidden(state, true);
    this.#datasets = new Map(datasets.map((dataset) => [dataset.name, dataset]));
    this.#dataset.replaceChildren(...datasets.map(({ name }) => element('option', { value: name }, name)));
    const linked = this.#address.read();
    this.#dataset.value = this.#datasets.has('records') ? 'records' : datasets[0].name;
    if (linked) {
      this.#fill(linked, { now: true });
    } else {
      this.#describeFormat();
      this.#choose({ now: true });
    }
    setHidden(this.#form, false);
    byId('new').classList.remove('loading');
  }

  /// Every choice of a submission, in place of what is chosen. A dataset that is not there leaves the one that is.
  #fill(request, { now = false } = {}) {
    if (this.#datasets.has(request.dataset)) this.#dataset.value = request.dataset;
    check(this.#form.elements.format, request.format);
    check(this.#form.elements.compression, request.compression ?? '');
    this.#describeFormat();
    this.#offerDataset();
    const missing = [
      ...(request.columns ? this.#columns.fill(request.columns) : []),
      ...this.#filters.fill(request.filters ?? []), ...this.#order.fill(request.orderBy ?? []),
    ];
    this.#options.fill(request.options ?? {});
    byId('layout').value = request.layout === 'files' ? 'files' : '';
    byId('parallelism').value = request.parallelism ?? '';
    byId('coalesce').checked = request.coalesce === true;
    if (missing.length) {
      const names = [...new Set(missing)].map((name) => `“${name}”`).join(', ');
      this.#say('bad', element('p', {}, `The dataset does not have ${names}. What names it is left out.`));
    }
    this.#changed({ now });
  }

  get #format() {
    return this.#form.elements.format.value;
  }

  #choose({ now = false } = {}) {
    this.#offerDataset();
    this.#changed({ now });
  }

  #offerDataset() {
    const dataset = this.#datasets.get(this.#dataset.value);
    this.#columns.offer(dataset.columns);
    this.#filters.offer(dataset.columns);
    this.#order.offer(dataset);
    const rows = dataset.estimatedRows === null ? 'rows not counted' : `about ${estimated(dataset.estimatedRows, 'row')}`;
    setText(byId('dataset-about'), [dataset.relation, dataset.kind, rows].join(' · '));
  }

  #formatChosen() {
    this.#describeFormat();
    this.#changed();
  }

  #describeFormat() {
    const why = FORMATS.find(({ name }) => name === this.#format)?.compressionHint ?? null;
    // What was chosen is chosen anew with the next format.
    if (why !== null) check(this.#form.elements.compression, '');
    setHidden(byId('compressions'), why !== null);
    setText(byId('compression-why'), why);
    this.#options.offer(this.#format);
  }

  #changed({ now = false } = {}) {
    const { body } = this.#read();
    const codec = this.#options.words('codec');
    setText(byId('compression-codec'), codec && `Chosen: ${codec}.`);
    const compression = body.compression ?? codec;
    setText(byId('summary'), `${formatName(body.format)}${compression ? ` · ${compression}` : ''} · ${counted(body.columns.length, 'column')}`);
    const advanced = ['layout', 'parallelism', 'coalesce'].filter((name) => name in body).length;
    setText(byId('advanced-changed'), advanced ? `${counted(advanced, 'choice')} made` : 'defaults');
    const { columns, ...rest } = body;
    const isKept = now || this.#address.keep(this.#columns.isDefault ? rest : body);
    setText(byId('address-state'), isKept ? '' : 'Too much is chosen for the address of this page: a reload keeps dataset and format alone.');
    this.#preview.refresh({ now });
  }

  /// What was said of a mistake is over as soon as it is being mended; whether it is, the service says a moment later.
  #mending(target) {
    this.#errors.changed(target);
    if (byId('outcome').dataset.tone === 'bad') this.#say();
  }

  /// The body of a submission, and the control of each of its fields.
  #read({ onlyWritten = false } = {}) {
    const fields = new Map([
      ['dataset', this.#dataset], ['format', byId('format-field')], ['compression', byId('compression-field')],
      ['layout', byId('layout')], ['parallelism', byId('parallelism')], ['coalesce', byId('coalesce')],
    ]);
    const body = { dataset: this.#dataset.value, format: this.#format, columns: this.#columns.read(fields) };
    const filters = this.#filters.read(fields, { onlyWritten });
    const orderBy = this.#order.read(fields);
    const options = this.#options.read(fields);
    const compression = this.#form.elements.compression.value;
    const parallelism = byId('parallelism').value.trim();
    if (compression) body.compression = compression;
    if (filters.length) body.filters = filters;
    if (orderBy.length) body.orderBy = orderBy;
    if (Object.keys(options).length) body.options = options;
    if (byId('layout').value) body.layout = byId('layout').value;
    if (parallelism) body.parallelism = /^\d{1,9}$/.test(parallelism) ? Number(parallelism) : parallelism;
    if (byId('coalesce').checked) body.coalesce = true;
    return { body, fields };
  }

  #readForPreview() {
    const { body, fields } = this.#read({ onlyWritten: true });
    const unwritten = this.#filters.unwritten;
    const note = unwritten ? `${counted(unwritten, 'filter')} without a value ${unwritten === 1 ? 'is' : 'are'} not applied yet.` : '';
    return { body, fields, note, missing: body.columns.length ? null : 'Tick a column to see rows.' };
  }

  /// What the preview found wrong.
  #tell(errors, fields) {
    this.#errors.show(errors, fields);
  }

  async #start() {
    if (this.#isSending) return;
    const start = byId('start');
    const { body, fields } = this.#read();
    const text = JSON.stringify(body);
    // The same again after a failure is the same export, in case the first one has arrived.
    if (this.#sent.body !== text) this.#sent = { key: service.newKey(), body: text };
    this.#sending(true);
    this.#say();
    try {
      const { exportId } = await service.submit(body, this.#sent.key);
      this.#sent = { key: null, body: null };
      this.#errors.clear();
      await this.#started(exportId, body);
    } catch (problem) {
      this.#refused(problem, fields);
    } finally {
      this.#sending(false);
      if (document.activeElement === document.body) start.focus();
    }
  }

  #sending(is) {
    this.#isSending = is;
    const start = byId('start');
    start.setAttribute('aria-disabled', String(is));
    setText(start, is ? 'Starting …' : 'Start export');
  }

  #say(tone = '', ...content) {
    const outcome = byId('outcome');
    outcome.dataset.tone = tone;
    outcome.replaceChildren(...content);
  }

  async #started(id, body) {
    const joined = this.#known.get(id);
    const show = element('button', { type: 'button', class: 'quiet', on: { click: () => this.#reveal(id) } }, 'Show it');
    this.#say('good', element('p', {}, `${joined && body.coalesce ? 'Joined' : 'Started'} the export ${shortId(id)}. `, show));
    // Events and lists bring it as well; this only brings it sooner.
    await service.inspect(id).then((it) => this.#known.learn(it), () => {});
  }

  #reveal(id) {
    if (!this.#actions.reveal(id)) this.#say('good', element('p', {}, 'The list shows exports of another state; choose “All” there.'));
  }

  #refused(problem, fields) {
    const found = this.#errors.show(problem.errors, fields);
    if (!found.length) {
      this.#say('bad', element('p', {}, `Not started. ${problem.message}`, problem.passing ? ' What you have chosen stays as it is.' : ''));
      return;
    }
    const lines = found.map(({ field, message, control }) => element('li', {},
      control ? element('button', { type: 'button', class: 'link', on: { click: () => focusOn(control) } }, fieldName(field)) : fieldName(field),
      ` ${message}`));
    this.#say('bad', element('p', {}, `Not started: ${counted(lines.length, 'mistake')} to mend.`), element('ul', {}, lines));
    const first = found.find(({ control }) => control);
    if (first) focusOn(first.control);
  }
}

/// Checks the radio of a value; where there is none, the checked one stays.
function check(radios, value) {
  const radio = [...radios].find((it) => it.value === value);
  if (radio) radio.checked = true;
}
