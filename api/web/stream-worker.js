// The shared worker that holds the one event stream of all tabs: a browser opens six connections to a server over HTTP/1.1, and
// a stream in each tab would leave none for the seventh. The worker lives for as long as any of the tabs does.

import { EventStream } from './event-stream.js';

/// Milliseconds for which the stream stays open while no tab is visible.
const HIDDEN = 60_000;

/// A tab says every 15 s that it is visible. One that has crashed says no goodbye.
const VISIBLE_FOR = 45_000;
const LOOK_FOR_VISIBLE = 5_000;

const ACTIVE = new Set(['pending', 'planning', 'running', 'finishing']);

/// Each tab's port, and when it was last visible.
const tabs = new Map();

/// The last document of each active export, for tabs that come later: the service sends them when the stream is opened.
const active = new Map();

let wanted = 0;

/// Whether the session has ended: the service would refuse the stream.
let isSignedOut = false;

const stream = new EventStream({
  report(isOpen) {
    // What is active is sent anew with each opening; what has ended while the stream was away is not.
    if (!isOpen) active.clear();
    tell({ isOpen });
  },
  hear(kind, data) {
    if (kind === 'export') remember(data);
    tell({ kind, data });
  },
});

function tell(message, except = null) {
  for (const port of tabs.keys()) if (port !== except) port.postMessage(message);
}

function remember(data) {
  let document;
  try {
    document = JSON.parse(data);
  } catch {
    // The tabs look at exports that are silent.
    return;
  }
  if (ACTIVE.has(document.status)) active.set(document.exportId, data);
  else active.delete(document.exportId);
}

function hear(port, { visible, bye, online, allowed, signedIn, signedOut }) {
  if (bye) {
    tabs.delete(port);
    return;
  }
  if (signedIn || signedOut) changeSession(port, signedIn);
  else if (allowed) isSignedOut = false;
  // A tab that said goodbye has come back by the browser's history, and has missed what came meanwhile.
  if (!tabs.has(port)) welcome(port);
  tabs.set(port, visible ? performance.now() : tabs.get(port));
  if (visible) want();
  if (online && !stream.isClosed) stream.openNow();
}

/// What is known is the session's that was. The other tabs look who is signed in.
function changeSession(port, isSignedIn) {
  isSignedOut = !isSignedIn;
  stream.close();
  active.clear();
  tell({ isOpen: false });
  tell({ sessionChanged: true }, port);
}

function want() {
  wanted = performance.now();
  if (stream.isClosed && !isSignedOut) stream.open();
}

setInterval(() => {
  const now = performance.now();
  if ([...tabs.values()].some((at) => now - at < VISIBLE_FOR)) want();
  else if (now - wanted > HIDDEN && !stream.isClosed) {
    // Nobody looks: the connection is given back.
    stream.close();
    active.clear();
    tell({ isOpen: false, isAsleep: true });
  }
}, LOOK_FOR_VISIBLE);

addEventListener('connect', ({ ports: [port] }) => {
  port.addEventListener('message', (event) => hear(port, event.data));
  port.start();
  welcome(port);
});

function welcome(port) {
  tabs.set(port, -Infinity);
  port.postMessage({ isOpen: stream.isOpen });
  for (const data of active.values()) port.postMessage({ kind: 'export', data });
}
