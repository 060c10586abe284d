// Runs the tests of a scenario and reports each to the Go test that started it.

/**
 * @param {string} name of the module that exports tests
 * @param {string} base URL of the server, http://…
 * @param {typeof globalThis.WebSocket} WebSocket
 */
export async function run(name, base, WebSocket) {
  const env = {
    base,
    url: base.replace("http", "ws") + "/ws",
    WebSocket,
    /** Asks the server's side for a favour: cut, restart, publish, other. */
    async ask(what, body) {
      const response = await fetch(base + "/" + what, { method: "POST", body });
      const text = await response.text();
      if (!response.ok) throw new Error(`${what}: ${text}`);
      return text;
    },
  };
  const report = (outcome) => env.ask("report", JSON.stringify(outcome));
  try {
    const { tests } = await import(`./${name}.mjs`);
    for (const [name, test] of Object.entries(tests)) {
      let error = "";
      try {
        await within(15000, test(env));
      } catch (e) {
        error = String(e?.stack || e);
      }
      await report({ name, error });
    }
  } catch (e) {
    await report({ name: "scenario", error: String(e?.stack || e) });
  }
  await report({ done: true });
}

/** Settles as promise does, or fails after so many milliseconds. */
export function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing happened for ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Fails unless got and want are the same as JSON, the order of members aside. */
export function equal(got, want, what = "") {
  const [a, b] = [canonical(got), canonical(want)];
  if (a !== b) throw new Error(`${what || "not equal"}: got ${a}, want ${b}`);
}

function canonical(value) {
  return JSON.stringify(value, (_, v) =>
    v && typeof v === "object" && !Array.isArray(v)
      ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1)))
      : v,
  );
}

export function check(ok, what) {
  if (!ok) throw new Error(what);
}

/** A promise with its resolve and reject. */
export function deferred() {
  const d = {};
  d.promise = new Promise((resolve, reject) => Object.assign(d, { resolve, reject }));
  return d;
}

/** Resolves once condition(), which may be async, is true. */
export async function until(condition, what) {
  for (const end = Date.now() + 10000; !(await condition()); ) {
    if (Date.now() > end) throw new Error(`never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
