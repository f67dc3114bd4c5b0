// The dashboard: tables from the server's numbers. Names go in as text, never as markup.

const dash = (value, digits, unit = "") => value == null ? "–" : `${value.toFixed(digits)}${unit}`;
const percent = (share) => `${(100 * share).toFixed(0)} %`;

function table(caption, heads, rows) {
  const made = document.createElement("table");
  const title = made.createCaption();
  title.textContent = caption;
  const head = made.createTHead().insertRow();
  for (const text of heads) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const text of row) line.insertCell().textContent = text;
  }
  return made;
}

export function showNumbers(place, numbers) {
  const parts = [
    table("Progress", ["round", "answered", "of", "third opinion"], numbers.rounds.map((one) => [
      one.round < 0 ? "evaluation" : one.round, one.answered, one.asked, one.disputed])),
    table("People", ["who", "answered", "waiting", "s/click"], numbers.annotators.map((one) => [
      one.name, one.answered, one.waiting, dash(one.median_seconds, 1)])),
    table("Classes", ["class", "share", "s/click"], Object.entries(numbers.class_shares).map(
      ([name, share]) => [name, percent(share), dash(numbers.class_seconds[name], 1)])),
  ];
  if (numbers.kappa.length) {
    parts.push(table("Agreement (Cohen's κ)", ["who", "pixels", "κ"], numbers.kappa.map((one) => [
      one.annotators.join(", "), one.pixels, dash(one.kappa, 2)])));
  }
  if (numbers.correction) {
    const { shown, shown_agrees: seen, blind, blind_agrees: unseen } = numbers.correction;
    parts.push(table("Answers that agree with the network", ["", "answers", "agree"], [
      ["shown", shown, seen == null ? "–" : percent(seen)],
      ["blind", blind, unseen == null ? "–" : percent(unseen)]]));
  }
  const line = document.createElement("p");
  line.textContent = `${dash(numbers.answers_per_minute, 1)} answers a minute lately; `
    + `Krippendorff's α ${dash(numbers.alpha, 2)}`;
  place.replaceChildren(line, ...parts);
}
