// Requests to the server that served this page, all in the name of one annotator.

/** The server was not reached, or its reply was cut off. */
export class Unreached extends Error {}

/** The server said no; `status` is its HTTP status. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

let speaker = {};
/** From now on say whom and which run this page speaks for: the browser's cookie may become another
 * annotator's, the port another run's. */
export function speakFor(annotator, runId) {
  speaker = { "X-Annotator": encodeURIComponent(annotator), "X-Run": runId };
}

const orUnreached = (promise) => promise.catch((error) => { throw new Unreached(String(error)); });

async function asked(path, options = {}) {
  const response = await orUnreached(fetch(path, { ...options, headers: { ...speaker, ...options.headers } }));
  if (response.ok) return response;
  let text = `HTTP ${response.status}`;
  try {
    text = (await response.json()).error;
  } catch { /* the status says it */ }
  throw new Refused(response.status, text);
}

export const get = async (path) => orUnreached((await asked(path)).json());

export const post = async (path, message) => orUnreached((await asked(path, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Madbal": "1" },
  body: JSON.stringify(message),
})).json());

/** Return a picture, decoded. */
export const picture = async (path) => createImageBitmap(await (await asked(path)).blob());
