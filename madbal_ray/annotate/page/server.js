// Requests to the server that served this page.

/** The server said no; `status` is its HTTP status. Anything else that is thrown: it was not reached. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function read(response) {
  if (response.ok) return response.json();
  let text = `HTTP ${response.status}`;
  try {
    text = (await response.json()).error;
  } catch { /* the status says it */ }
  throw new Refused(response.status, text);
}

export const get = async (path) => read(await fetch(path));

export const post = async (path, message) => read(await fetch(path, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Madbal": "1" },
  body: JSON.stringify(message),
}));
