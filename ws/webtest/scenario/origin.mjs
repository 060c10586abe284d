// What a browser tells of the page that connects: a page of another site is turned away, unless its site is listed.
import { open } from "./raw.mjs";
import { check, equal } from "./run.mjs";

const elsewhere = async (env, path) => {
  const url = (await env.ask("other")).replace("http", "ws");
  check(!env.url.startsWith(url), "the other site is another");
  return open({ ...env, url: url + path });
};

const works = async (c) => {
  equal((await c.ask({ jsonrpc: "2.0", id: 1, method: "math.add", params: [1] })).result, 1);
  await c.close();
};

export const tests = {
  "its own site": async (env) => works(await open(env)),

  "another site": async (env) => {
    const error = await elsewhere(env, "/ws").then((c) => c.close(), (e) => e);
    equal(error.message, "the handshake failed");
  },

  "another site, which lists this one": async (env) => works(await elsewhere(env, "/open")),
};
