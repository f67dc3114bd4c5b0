// The queries that this page holds: when more are asked for, how long they stay ours.

import { post } from "./server.js";

export const AHEAD = 5;   // pictures decoded ahead; fewer queries than this: lease more
const RENEW_EVERY = 30_000;
const POLL_EVERY = 4_000;
const HAVE_MOST = 500;    // names of queries in one request, as the server takes them

export class Leases {
  /** `told` has unsent(): query_ids in the outbox, heard(reply), changed(), trouble(error). */
  constructor(ttlSeconds, told) {
    this.ttl = 1000 * ttlSeconds;
    this.told = told;
    this.queue = [];         // to be answered; the first one is shown
    this.taken = new Set();  // left the queue while a request was on its way
    this.isDry = false;      // the last request brought nothing
    this.isAsking = false;
    this.timer = null;
    this.renewed = 0;        // when the server last put off the end of what we hold
    this.tried = 0;
    document.addEventListener("visibilitychange", () => this.ask());
  }

  /** Ask for more where few are left: at once, or after a while where nothing came last time. */
  ask() {
    if (this.timer !== null || this.isAsking || this.queue.length >= AHEAD || document.hidden) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.lease();
    }, this.isDry ? POLL_EVERY : 0);
  }

  async lease() {
    if (this.isAsking) return;
    this.isAsking = true;
    this.taken.clear();
    const started = Date.now();
    const isLost = started - this.renewed > this.ttl;  // what we hold may be others' by now
    const have = [...isLost ? [] : this.queue.map((one) => one.query_id), ...this.told.unsent()];
    try {
      const reply = await post("/api/lease", { have: [...new Set(have)].slice(-HAVE_MOST) });
      if (isLost || !this.queue.length) this.renewed = started;
      if (isLost) this.queue = [];
      const known = new Set([...this.queue.map((one) => one.query_id), ...this.taken]);
      const fresh = reply.queries.filter((one) => !known.has(one.query_id));
      this.queue.push(...fresh);
      this.isDry = !fresh.length;
      this.told.heard(reply);
    } catch (error) {
      this.isDry = true;
      this.told.trouble(error);
    } finally {
      this.isAsking = false;
    }
    this.told.changed();
  }

  /** Take a query out: it was answered. */
  take(query) {
    this.taken.add(query.query_id);
    this.queue = this.queue.filter((one) => one.query_id !== query.query_id);
  }

  /** Put a query first: its answer was taken back. */
  put(query) {
    this.take(query);
    this.taken.delete(query.query_id);
    this.queue.unshift(query);
  }

  /** The annotator did something: what is held stays held, unless that is over. */
  touched() {
    const now = Date.now();
    if (now - this.renewed < RENEW_EVERY || now - this.tried < RENEW_EVERY) return;
    this.tried = now;
    if (now - this.renewed > this.ttl) this.lease();
    else post("/api/renew", {}).then(() => { this.renewed = now; }, () => {});
  }

  /** Answers that were sent at `started` were taken, which renews as well. */
  confirmed(started) {
    this.renewed = Math.max(this.renewed, started);
  }
}
