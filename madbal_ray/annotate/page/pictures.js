// Crops and whole images, fetched and decoded before they are shown.

import { picture } from "./server.js";

const KEPT = 24;

export class Pictures {
  constructor() {
    this.kept = new Map();
  }

  /** Return a promise of {crop, whole}, decoded. */
  of(query) {
    const crop = this.image(`/images/${query.query_id}/crop.png`, query.query_id);
    const whole = this.image(`/images/${query.query_id}/whole.jpg`, `whole ${query.image_id}`);
    return Promise.all([crop, whole]).then(([crop, whole]) => ({ crop, whole }));
  }

  prefetch(queries) {
    for (const query of queries) this.of(query).catch(() => {});
  }

  image(address, key) {
    let found = this.kept.get(key);
    this.kept.delete(key);
    if (!found) {
      found = picture(address);
      found.catch(() => this.kept.delete(key));  // tried again when it is asked for again
    }
    this.kept.set(key, found);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    return found;
  }
}
