// The labelling page: what a key does and what is shown, from the query that waits to the next one.

import { Clock } from "./clock.js";
import { AHEAD, Leases } from "./leases.js";
import { showNumbers } from "./numbers.js";
import { Outbox } from "./outbox.js";
import { Palette } from "./palette.js";
import { Pictures } from "./pictures.js";
import { showRefused } from "./refused.js";
import { Sender } from "./sender.js";
import { get, Refused, speakFor, Unreached } from "./server.js";
import { Trail } from "./trail.js";
import { draw, HALVES } from "./view.js";

const NUMBERS_EVERY = 8_000;
const PICTURE_AGAIN = 2_000;

const at = (id) => document.getElementById(id);
const button = (deed) => document.querySelector(`[data-do=${deed}]`);
const canvas = at("view");
const clock = new Clock();
const pictures = new Pictures();
const trail = new Trail();

let leases, palette, sender;
let shown = null;  // {query, pictures}: what is on the canvas
let unseen = null; // the query whose picture does not come: it can be skipped
let waiting = 0;
let earlier = 0;   // own answers that the trail does not reach
let isHeld = false; // Shift hides the ring
const look = { zoom: 2, hasMarker: true, hasOutline: false, segments: null };

const item = () => trail.current
  ?? (leases.queue.length ? { query: leases.queue[0], status: null, class_name: null } : null);

function say(text, isBad = false) {
  at("message").textContent = text;
  at("message").classList.toggle("bad", isBad);
}

function trouble(error) {
  if (error instanceof Refused && error.status === 401) {
    say(`You are signed out here: ${error.message}. Answers that were not sent stay in this browser.`, true);
  } else if (error instanceof Refused) {
    say(error.message, true);
  } else if (error instanceof Unreached) {
    say("The server is not reached. You may go on; answers are kept in this browser.", true);
  } else {
    say(`This browser cannot keep the answer (a private window?): ${error}`, true);
  }
}

// ---- what the annotator does -----------------------------------------------------------------

/** Answer what is seen now; without a picture there is nothing but to skip. */
function answer(status, className = null) {
  const seen = shown?.query ?? (status === "skipped" ? unseen : null);
  palette.changing = null;
  enqueue(() => answerSeen(seen, status, className));
}

async function answerSeen(seen, status, className) {
  const current = item();
  if (!current || seen?.query_id !== current.query.query_id) return;  // it was pressed twice, or before the picture came
  await sender.keep(current.query, status, className, clock.read(), seen.prediction);
  if (trail.current) {
    Object.assign(current, { status, class_name: className });
    trail.back -= 1;
  } else {
    leases.take(current.query);
    trail.add(current.query, status, className);
  }
  say(`${current.query.image_id}: ${className ?? status}`);
  show();
}

async function undo() {
  const taken = trail.current ?? trail.answers.at(-1);
  if (!taken) return say("There is nothing to undo.");
  await sender.keep(taken.query, "undone", null, trail.current ? clock.read() : 0);
  trail.remove(taken.query);
  trail.back = 0;
  leases.put(taken.query);
  say("Taken back; answer it again.");
  show();
}

function move(step) {
  if (!trail.move(step)) return;
  const total = earlier + trail.length;
  say(trail.back ? `Your answer ${total - trail.back + 1} of ${total}; another one replaces it.` : "");
  show();
}

function zoom(step) {
  look.zoom = Math.max(0, Math.min(HALVES.length - 1, look.zoom + step));
  redraw();
}

function mark(isVisible) {
  look.hasMarker = isVisible;
  button("marker").setAttribute("aria-pressed", String(!isVisible));
  redraw();
}

function hold(isDown) {
  isHeld = isDown;
  mark(!isDown);
}

/** Say what the network says, where it is shown. */
function accept() {
  const predicted = shown?.query.prediction;
  if (predicted) answer("labelled", predicted);
}

function toggleOutline() {
  look.hasOutline = !look.hasOutline;
  button("outline").setAttribute("aria-pressed", String(look.hasOutline));
  outline();
}

/** Draw the border of the superpixel: where it is wanted, and where the answer is for all of it. */
async function outline() {
  const query = shown?.query;
  look.segments = null;
  redraw();
  if (!query || !(look.hasOutline || query.unit === "superpixel")) return;
  try {
    const { segments } = await get(`/api/outline/${query.query_id}`);
    if (shown?.query !== query) return;
    look.segments = segments;
    redraw();
  } catch (error) {
    trouble(error);
  }
}

const DEEDS = {
  accept,
  outline: toggleOutline,
  void: () => answer("void"),
  skip: () => answer("skipped"),
  unsure: () => answer("unsure"),
  undo: () => enqueue(undo),
  back: () => enqueue(() => move(1)),
  forth: () => enqueue(() => move(-1)),
  closer: () => zoom(-1),
  wider: () => zoom(1),
  marker: () => mark(!look.hasMarker),
};
const KEYS = {
  0: "void", ".": "skip", "?": "unsure", Backspace: "undo", ArrowLeft: "back", ArrowRight: "forth",
  ",": "outline", "+": "closer", "=": "closer", "-": "wider",
};

let work = Promise.resolve();
/** Do one thing after the other: a key that comes while an answer is being kept waits for it. */
function enqueue(deed) {
  work = work.then(deed).catch(trouble);
}

function pressed(event) {
  if (event.repeat && [" ", "Enter"].includes(event.key)) return event.preventDefault();  // it would press the button that has the focus
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (event.key === "Shift" && !event.repeat) return hold(true);
  if (event.repeat && !event.key.startsWith("Arrow")) return;
  const name = palette.nameOf(event.key);
  if (palette.changing !== null) palette.changeKey(event.key);
  else if (name !== null) answer("labelled", name);
  else if (event.key === "Enter" && shown?.query.prediction && !document.activeElement.matches(":focus-visible")) accept();
  else if (KEYS[event.key]) DEEDS[KEYS[event.key]]();
  else return;
  event.preventDefault();
}

// ---- what is seen ----------------------------------------------------------------------------

let asked = 0;
async function show() {
  const current = item();
  progress();
  const predicted = current?.query.prediction ?? null;
  palette.mark(current?.status === "labelled" ? current.class_name : null, predicted);
  at("accept").hidden = predicted === null;
  at("accept").querySelector("span").textContent = `as the network says: ${predicted}`;
  for (const [deed, status] of [["void", "void"], ["skip", "skipped"], ["unsure", "unsure"]]) {
    button(deed).classList.toggle("given", current?.status === status);
  }
  leases.ask();
  const turn = ++asked;
  if (!current) {
    shown = unseen = null;
    at("where").textContent = "";
    return redraw();
  }
  const isOf = (query) => query?.query_id === current.query.query_id;
  try {
    const found = await pictures.of(current.query);
    if (turn !== asked) return;
    if (isOf(unseen)) say("");
    if (!isOf(shown?.query)) clock.restart();
    shown = { query: current.query, pictures: found };
    unseen = null;
    outline();
  } catch (error) {
    if (turn !== asked) return;
    if (!isOf(unseen)) clock.restart();
    shown = null;
    unseen = current.query;
    redraw();
    const why = error instanceof Unreached ? "the server is not reached" : error.message;
    say(`The picture does not come: ${why}. It is tried again; skip goes on to the next.`, true);
    setTimeout(() => turn === asked && show(), PICTURE_AGAIN);
  }
  at("where").textContent = `${current.query.image_id}, column ${current.query.x}, row ${current.query.y}`;
  pictures.prefetch(leases.queue.slice(trail.current ? 0 : 1, AHEAD + 1));
}

function redraw() {
  const centre = draw(canvas, shown?.query ?? null, shown?.pictures, look);
  canvas.dataset.query = shown?.query.query_id ?? "";
  canvas.dataset.centre = JSON.stringify(centre);
}

function progress() {
  const answered = earlier + trail.length;
  at("bar").max = Math.max(1, answered + waiting);
  at("bar").value = answered;
  at("count").textContent = `${answered} answered by you, ${waiting} waiting in all`;
  at("unsent").textContent = sender.unsent.length ? `${sender.unsent.length} not sent` : "";
}

async function numbers() {
  if (!at("numbers").open || document.hidden) return;
  try {
    showNumbers(at("table"), await get("/api/numbers"));
  } catch (error) {
    trouble(error);
  }
}

function leased(reply) {
  waiting = reply.waiting;
  const disputed = reply.disputed ? ` On ${reply.disputed} of them two people differ: a third one settles that `
    + "(madbal annotate RUN --annotator NAME), or one of the two who changes their answer (←)." : "";
  if (!leases.queue.length) say(waiting
    ? `Nothing waits for you; ${waiting} wait for somebody else.${disputed}`
    : "All is answered. The run's command carries on; new pixels come up here by themselves.");
  else if (!shown) say("");
}

// ---- start -----------------------------------------------------------------------------------

async function start() {
  const session = await get("/api/introduction");
  speakFor(session.annotator, session.run_id);
  const refused = () => showRefused(at("refused"), sender, enqueue);
  sender = new Sender(await Outbox.open(`madbal ${session.run_id} ${session.annotator}`), {
    trouble,
    heard: (reply, started) => { waiting = reply.waiting; leases.confirmed(started); },
    back: () => say("The server is back; everything is sent."),
    refused: ({ query }) => enqueue(() => { trail.remove(query); refused(); show(); }),
    changed: () => { progress(); refused(); },
  });
  leases = new Leases(session.ttl_seconds, {
    trouble,
    unsent: () => sender.unsent.map((one) => one.query_id),
    heard: leased,
    changed: () => enqueue(() => { show(); }),
  });
  palette = new Palette(at("classes"), session.classes, {
    say, chosen: (name) => answer("labelled", name),
  });
  await sender.open();
  earlier = session.answered - session.history.length;
  trail.fill(session.history, sender.unsent);
  at("title").textContent = session.title;
  document.title = `${session.title}: madbal annotate`;
  at("who").textContent = session.annotator;
  refused();
  document.addEventListener("keydown", pressed);
  document.addEventListener("keyup", (event) => event.key === "Shift" && hold(false));
  window.addEventListener("blur", () => isHeld && hold(false));  // Shift is let go of elsewhere
  document.addEventListener("mousedown", (event) => {  // what the pointer pressed is not what Enter presses
    if (!event.target.closest("button, summary")) return;
    event.preventDefault();
    document.activeElement.blur();
  });
  const touched = () => leases.touched();
  for (const name of ["keydown", "pointermove", "pointerdown"]) document.addEventListener(name, touched, { passive: true });
  for (const one of document.querySelectorAll("[data-do]")) {
    one.addEventListener("click", () => DEEDS[one.dataset.do]());
  }
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.sign(event.deltaY)); }, { passive: false });
  new ResizeObserver(redraw).observe(canvas);
  at("numbers").addEventListener("toggle", numbers);
  setInterval(numbers, NUMBERS_EVERY);
  sender.send();
  await leases.lease();
}

start().catch(trouble);
