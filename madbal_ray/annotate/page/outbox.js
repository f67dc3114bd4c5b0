// Answers that the server has not confirmed, and those that it refused, in IndexedDB: they outlive a
// reload and a cut network.

const promised = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

export class Outbox {
  constructor(database) {
    this.database = database;
  }

  static async open(name) {
    const request = indexedDB.open(name, 2);
    request.onupgradeneeded = ({ oldVersion }) => {
      const database = request.result;
      if (oldVersion < 1) database.createObjectStore("answers", { keyPath: "order", autoIncrement: true });
      database.createObjectStore("refused", { keyPath: "uuid" });
    };
    return new Outbox(await promised(request));
  }

  /** Keep an answer; it lies on the disk's queue when this resolves to it, with its order. */
  async add(answer) {
    let adding;
    await this.write((answers) => { adding = answers.add(answer); });
    return { ...answer, order: adding.result };
  }

  /** Return what is kept to be sent, oldest first. */
  all() {
    return promised(this.database.transaction("answers").objectStore("answers").getAll());
  }

  /** Return what the server refused, each with its `reason`. */
  allRefused() {
    return promised(this.database.transaction("refused").objectStore("refused").getAll());
  }

  remove(batch) {
    return this.write((answers) => batch.forEach((one) => answers.delete(one.order)));
  }

  /** Put an answer aside: it is not sent again by itself, nor lost. */
  refuse(answer, reason) {
    return this.write((answers, refused) => {
      answers.delete(answer.order);
      refused.put({ ...answer, reason });
    });
  }

  /** Put what was refused back among what is to be sent. */
  async retry() {
    const again = await this.allRefused();
    return this.write((answers, refused) => {
      refused.clear();
      for (const { order, reason, ...answer } of again) answers.add(answer);
    });
  }

  forgetRefused() {
    return this.write((_, refused) => refused.clear());
  }

  write(change) {
    return new Promise((resolve, reject) => {
      const writing = this.database.transaction(["answers", "refused"], "readwrite");
      change(writing.objectStore("answers"), writing.objectStore("refused"));
      writing.oncomplete = () => resolve();
      writing.onabort = () => reject(writing.error);
    });
  }
}
