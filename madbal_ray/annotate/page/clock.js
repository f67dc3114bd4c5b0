// Milliseconds that a query was looked at: hidden tabs do not count, nor does a pause beyond a minute.

const LONGEST_PAUSE = 60_000;

export class Clock {
  constructor() {
    this.restart();
    const tick = () => this.tick();
    for (const name of ["keydown", "pointermove", "pointerdown"]) {
      document.addEventListener(name, tick, { capture: true, passive: true });
    }
    document.addEventListener("visibilitychange", tick);
  }

  restart() {
    this.total = 0;
    this.last = performance.now();
    this.wasVisible = !document.hidden;
  }

  tick() {
    const moment = performance.now();
    if (this.wasVisible) this.total += Math.min(moment - this.last, LONGEST_PAUSE);
    this.last = moment;
    this.wasVisible = !document.hidden;
  }

  read() {
    this.tick();
    return Math.round(this.total);
  }
}
