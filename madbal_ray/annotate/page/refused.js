// What the server said no to: how many, why, and what to do about it.

export function showRefused(place, sender, enqueue) {
  const count = sender.refused.length;
  place.hidden = !count;
  if (!count) return place.replaceChildren();
  const title = document.createElement("summary");
  title.textContent = count === 1 ? "1 answer was refused" : `${count} answers were refused`;
  const list = document.createElement("ol");
  for (const { query, status, class_name, reason } of sender.refused) {
    const line = document.createElement("li");
    line.textContent = `${query.image_id}, ${class_name ?? status}: ${reason}`;
    list.append(line);
  }
  const buttons = [["send again", () => sender.retry()], ["forget", () => sender.forget()]].map(([text, deed]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => enqueue(deed));
    return button;
  });
  place.replaceChildren(title, list, ...buttons);
}
