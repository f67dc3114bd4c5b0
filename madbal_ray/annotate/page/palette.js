// The classes: a button and a key each; a click on the key changes it.

import { assignKeys, isUsable, readChosen, storeChosen } from "./keys.js";

export class Palette {
  /** `told` has say(text, isBad) and chosen(name). */
  constructor(list, classes, told) {
    this.list = list;
    this.classes = classes;
    this.told = told;
    this.place = `madbal-keys ${JSON.stringify(classes.map((one) => one.name))}`;
    this.changing = null;  // name of the class whose key is being changed
    this.build();
  }

  build() {
    this.keys = assignKeys(this.classes.map((one) => one.name), readChosen(this.place));
    this.list.replaceChildren(...this.classes.map((one, index) => this.line(one, this.keys[index])));
  }

  line({ name, color }, letter) {
    const line = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "class";
    button.dataset.name = name;
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.backgroundColor = `rgb(${color.join(" ")})`;
    button.append(swatch, name);
    button.addEventListener("click", () => this.told.chosen(name));
    const key = document.createElement("button");
    key.type = "button";
    key.className = "key";
    key.setAttribute("aria-label", `key of ${name}: ${letter || "none"}; change it`);
    const label = document.createElement("kbd");
    label.textContent = letter || "–";
    key.append(label);
    key.addEventListener("click", () => {
      this.changing = name;
      this.told.say(`Press the new key of ${name} (letter or digit 1-9); Escape leaves it.`);
    });
    line.append(button, key);
    return line;
  }

  /** Return the class that a key answers, or null. */
  nameOf(key) {
    const index = key.length === 1 ? this.keys.indexOf(key) : -1;
    return index < 0 ? null : this.classes[index].name;
  }

  changeKey(key) {
    const name = this.changing;
    if (key === "Escape") {
      this.changing = null;
      return this.told.say("");
    }
    if (!isUsable(key)) return this.told.say(`${key} has a use of its own; press a letter or a digit from 1 to 9.`, true);
    this.changing = null;
    const chosen = Object.fromEntries(Object.entries(readChosen(this.place)).filter(([, old]) => old !== key));
    storeChosen(this.place, { ...chosen, [name]: key });
    this.build();
    this.told.say(`${key} is the key of ${name}.`);
  }

  /** Show which class was given, and which one the network says. */
  mark(name, predicted) {
    for (const button of this.list.querySelectorAll(".class")) {
      button.classList.toggle("given", button.dataset.name === name);
      button.classList.toggle("predicted", button.dataset.name === predicted);
    }
  }
}
