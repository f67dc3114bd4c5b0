// Answers that the server has not confirmed, in IndexedDB: they outlive a reload and a cut network.

const promised = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

export class Outbox {
  constructor(database) {
    this.database = database;
  }

  static async open(name) {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("answers", { keyPath: "order", autoIncrement: true });
    };
    return new Outbox(await promised(request));
  }

  /** Keep an answer; it lies on the disk's queue when this resolves. */
  add(answer) {
    return new Promise((resolve, reject) => {
      const writing = this.database.transaction("answers", "readwrite");
      writing.objectStore("answers").add(answer);
      writing.oncomplete = () => resolve();
      writing.onabort = () => reject(writing.error);
    });
  }

  /** Return what is kept, oldest first. */
  all() {
    return promised(this.database.transaction("answers").objectStore("answers").getAll());
  }

  remove(answers) {
    return new Promise((resolve, reject) => {
      const writing = this.database.transaction("answers", "readwrite");
      for (const answer of answers) writing.objectStore("answers").delete(answer.order);
      writing.oncomplete = () => resolve();
      writing.onabort = () => reject(writing.error);
    });
  }
}
