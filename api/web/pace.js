// How fast an export goes right now, from the documents as they arrive: the service says how far it is, not how fast.

/// Milliseconds of the past that count.
const WINDOW = 8_000;
const SHORTEST = 400;

export class Pace {
  #samples = [];
  #attempt = null;

  note({ attempt, progress: { rows, bytes } }, now = performance.now()) {
    // An attempt that begins anew begins at no rows.
    if (attempt !== this.#attempt) this.#samples = [];
    this.#attempt = attempt;
    this.#samples.push({ now, rows, bytes });
    while (this.#samples.length > 2 && this.#samples[1].now < now - WINDOW) this.#samples.shift();
  }

  /// `{rows, bytes}` a second; null until there is enough to tell.
  get now() {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    const elapsed = last ? last.now - first.now : 0;
    if (elapsed < SHORTEST || last.rows <= first.rows) return null;
    const aSecond = (from, to) => ((to - from) * 1000) / elapsed;
    return { rows: aSecond(first.rows, last.rows), bytes: Math.max(0, aSecond(first.bytes, last.bytes)) };
  }
}
