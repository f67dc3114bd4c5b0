// The annotator's own answers, oldest first, and the way back and forth through them.

export class Trail {
  constructor() {
    this.answers = [];  // {query, status, class_name}
    this.back = 0;      // answers back from the end; 0: the query that waits
  }

  /** Take up what the server knows, then what this browser has not sent. */
  fill(history, unsent) {
    this.answers = history.map(({ status, class_name, ...query }) => ({ query, status, class_name }));
    for (const { query, status, class_name } of unsent) {
      this.remove(query);
      if (status !== "undone") this.answers.push({ query, status, class_name });
    }
  }

  get length() {
    return this.answers.length;
  }

  /** Return the answer that is looked at again, null where none is. */
  get current() {
    return this.back ? this.answers[this.length - this.back] : null;
  }

  add(query, status, className) {
    this.answers.push({ query, status, class_name: className });
  }

  remove(query) {
    this.answers = this.answers.filter((one) => one.query.query_id !== query.query_id);
    this.back = Math.min(this.back, this.length);
  }

  /** Go back (1) or forth (-1); return whether that led anywhere. */
  move(step) {
    const before = this.back;
    this.back = Math.max(0, Math.min(this.length, this.back + step));
    return this.back !== before;
  }
}
