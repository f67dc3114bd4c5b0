// Which key answers which class: a letter of its name, else any letter, digit or capital; changeable.

const SPARE = [..."abcdefghijklmnopqrstuvwxyz123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"];
const USABLE = new Set(SPARE);

/** Return a key ("" where none is left) for every name, in order; `chosen` (name -> key) comes first. */
export function assignKeys(names, chosen = {}) {
  const keys = names.map(() => "");
  const taken = new Set();
  const take = (index, key) => {
    if (keys[index] || !USABLE.has(key) || taken.has(key)) return;
    keys[index] = key;
    taken.add(key);
  };
  names.forEach((name, index) => take(index, chosen[name]));
  names.forEach((name, index) => { for (const letter of name.toLowerCase()) take(index, letter); });
  names.forEach((_, index) => { for (const key of SPARE) take(index, key); });
  return keys;
}

export const isUsable = (key) => USABLE.has(key);

export function readChosen(place) {
  try {
    return JSON.parse(localStorage.getItem(place)) ?? {};
  } catch {
    return {};
  }
}

export function storeChosen(place, chosen) {
  localStorage.setItem(place, JSON.stringify(chosen));
}
