// Where the page begins: makes its parts and tells them of each other.

import { Announcements } from './announcements.js';
import { Benchmark } from './benchmark.js';
import { copyBy, needKey } from './curl.js';
import { byId, setText } from './element.js';
import { ExportList } from './export-list.js';
import { shortId, titleOf } from './export-row.js';
import { isActive, KnownExports } from './known-exports.js';
import { Live } from './live.js';
import { NewExport } from './new-export.js';
import * as service from './service.js';
import { Session } from './session.js';
import { counted, errorName } from './words.js';

const CONNECTION = {
  connecting: ['Connecting', 'Waiting for the service'],
  live: ['Live', 'Changes are shown as they happen'],
  polling: ['Polling', 'No live connection: the page asks every two seconds'],
  'signed-out': ['Signed out', 'The page goes on when you have signed in'],
  offline: ['Offline', 'The service does not answer; the page keeps trying'],
};

const known = new KnownExports();
const announcements = new Announcements(byId('announcements'));

const list = new ExportList({
  known,
  parts: {
    list: byId('list'), count: byId('list-count'), status: byId('list-status'), benchmarks: byId('list-benchmarks'),
    benchmarksField: byId('list-benchmarks-field'), benchmarksWords: byId('list-benchmarks-words'), state: byId('list-state'),
    more: byId('list-more'), moreState: byId('list-more-state'),
  },
  actions: {
    say: (words) => announcements.say(words),
    copy: (button, command) => copyBy(button, command, announcements),
    async remove(id) {
      const answer = await service.remove(id);
      known.learn(answer ?? (await service.inspect(id)));
    },
    async runAgain(request, key) {
      const { exportId } = await service.submit(request, key);
      // Events and lists bring it as well; this only brings it sooner.
      await service.inspect(exportId).then((it) => known.learn(it), () => {});
      return `Started the export ${shortId(exportId)}.`;
    },
    edit: (request) => newExport.edit(request),
  },
});

const newExport = new NewExport({
  known,
  actions: {
    reveal: (id) => list.reveal(id),
    copy: (button, command) => copyBy(button, command, announcements),
  },
});

// Starts and ends are said aloud, of exports that the page has seen under way.
known.onChange((it, before) => {
  if (!before || before.status === it.status) return;
  const name = titleOf(it);
  if (it.status === 'running' && before.status !== 'finishing') announcements.say(`Started: ${name}.`);
  else if (it.status === 'completed') announcements.say(`Completed: ${name}, ${counted(it.progress.rows, 'row')}.`);
  else if (it.status === 'failed') announcements.say(`Failed: ${name}. ${it.error || errorName(it.errorCode)}`);
  else if (it.status === 'cancelled') announcements.say(`Cancelled: ${name}.`);
});

const title = document.title;
let underWay = 0;
known.onChange((it, before) => {
  underWay += Number(isActive(it.status)) - Number(Boolean(before) && isActive(before.status));
  document.title = underWay ? `(${underWay}) ${title}` : title;
});

const connection = byId('connection');
function showConnection(state) {
  const [words, meaning] = CONNECTION[state];
  if (connection.dataset.state === state) return;
  connection.dataset.state = state;
  if (state === 'live' || state === 'polling') {
    if (!session.isKnown) session.look();
    newExport.recover();
  }
  connection.title = meaning;
  setText(connection, words);
}

const session = new Session({
  parts: {
    about: byId('access'), dialog: byId('sign-in'), form: byId('sign-in-form'), why: byId('sign-in-why'), key: byId('sign-in-key'),
    error: byId('sign-in-error'), button: byId('sign-in-button'),
  },
  changed(isSignedIn) {
    needKey(session.needsKey);
    live.signedIn(isSignedIn);
    showConnection(isSignedIn ? 'connecting' : 'signed-out');
  },
});
service.onSignedOut(() => session.ask());

const live = new Live({ known, list, show: showConnection, sessionChanged: () => session.look() });

// The form is in the fragment of the address, so a link within the page must not replace it.
document.addEventListener('click', (event) => {
  const link = event.target.closest('a[href^="#"]');
  const target = link && byId(link.hash.slice(1));
  if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  target.focus({ preventScroll: true });
  target.scrollIntoView();
});

// What is brought into view is not to be under the bar that sticks to the lower edge.
const bar = byId('start-bar');
new ResizeObserver(() => {
  const covered = getComputedStyle(bar).position === 'sticky' ? bar.offsetHeight : 0;
  document.documentElement.style.setProperty('--covered', `${covered}px`);
}).observe(bar);

new Benchmark({ say: (words) => announcements.say(words) });
await session.look();
needKey(session.needsKey);
newExport.load();
list.load();
live.start();
