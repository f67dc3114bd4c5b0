// The way of an answer to the server: kept first, sent until the server has said yes or no to it.

import { post, Refused } from "./server.js";

const POST_MOST = 50;     // answers in one POST, as the server takes them
const RETRY_FIRST = 500;
const RETRY_LAST = 10_000;
const FINAL = [400, 409, 413];  // a no to the answer itself; any other may be a yes later

export class Sender {
  /** `told` has heard(reply, started), trouble(error), back(), refused(answer), changed(). */
  constructor(outbox, told) {
    this.outbox = outbox;
    this.told = told;
    this.unsent = [];
    this.refused = [];
    this.isSending = false;
  }

  /** Read what an earlier page left. */
  async open() {
    this.unsent = await this.outbox.all();
    this.refused = await this.outbox.allRefused();
  }

  /** Keep an answer and send it; it is safe in this browser when this resolves. */
  async keep(query, status, className, milliseconds, prediction = null) {
    const kept = await this.outbox.add({
      uuid: crypto.randomUUID(), query_id: query.query_id, status, class_name: className, milliseconds,
      prediction, query,
    });
    this.unsent.push(kept);  // the list as it is now: while this was kept, others may have been sent
    this.told.changed();
    this.send();
  }

  /** Send everything; what fails by the network is tried again until it does not. */
  async send() {
    if (this.isSending) return;
    this.isSending = true;
    try {
      await this.sendAll();
    } catch (error) {
      this.told.trouble(error);
    } finally {
      this.isSending = false;
    }
  }

  async sendAll() {
    let pause = RETRY_FIRST;
    let isAlone = false;
    while (this.unsent.length) {
      const batch = this.unsent.slice(0, isAlone ? 1 : POST_MOST);
      const started = Date.now();
      let problem = null;
      try {
        const answers = batch.map(({ order, query, ...answer }) => answer);
        this.told.heard(await post("/api/answers", { answers }), started);
      } catch (error) {
        problem = error;
      }
      const isFinal = problem instanceof Refused && FINAL.includes(problem.status);
      if (problem === null) {
        await this.outbox.remove(batch);
        this.drop(batch);
        if (pause !== RETRY_FIRST) this.told.back();
        pause = RETRY_FIRST;
        isAlone = false;
      } else if (isFinal && batch.length > 1) {
        isAlone = true;  // find the one that is refused; the others are taken
      } else if (isFinal) {
        await this.outbox.refuse(batch[0], problem.message);
        this.refused = await this.outbox.allRefused();
        this.drop(batch);
        this.told.refused(batch[0]);
      } else {
        this.told.trouble(problem);
        await new Promise((resolve) => setTimeout(resolve, pause));
        pause = Math.min(2 * pause, RETRY_LAST);
      }
    }
  }

  drop(batch) {
    const gone = new Set(batch.map((one) => one.order));
    this.unsent = this.unsent.filter((one) => !gone.has(one.order));
    this.told.changed();
  }

  /** Send again what was refused. */
  async retry() {
    await this.outbox.retry();
    await this.open();
    this.told.changed();
    this.send();
  }

  async forget() {
    await this.outbox.forgetRefused();
    this.refused = [];
    this.told.changed();
  }
}
