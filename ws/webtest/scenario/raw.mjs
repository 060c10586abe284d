// A WebSocket by hand: what JSON-RPC 2.0 says about each frame, its examples of section 7 among them.
import { check, deferred, equal, within } from "./run.mjs";

/** Opens a WebSocket whose frames are read one by one, as JSON. */
export async function open(env, path = "", protocols) {
  const socket = new env.WebSocket(env.url + path, protocols);
  const frames = [];
  const waiting = [];
  const opened = deferred();
  const closed = deferred();
  socket.onopen = opened.resolve;
  socket.onerror = () => opened.reject(new Error("the handshake failed"));
  socket.onclose = (e) => closed.resolve({ code: e.code, reason: e.reason });
  socket.onmessage = (e) => {
    check(typeof e.data === "string", "a binary frame came");
    const frame = JSON.parse(e.data);
    waiting.length ? waiting.shift()(frame) : frames.push(frame);
  };
  await opened.promise;
  return {
    socket,
    closed: closed.promise,
    send: (frame) => socket.send(typeof frame === "string" ? frame : JSON.stringify(frame)),
    next: () => within(5000, frames.length ? frames.shift() : new Promise((resolve) => waiting.push(resolve))),
    async ask(frame) {
      this.send(frame);
      return this.next();
    },
    async close(code = 1000, reason = "") {
      socket.close(code, reason);
      return within(5000, closed.promise);
    },
  };
}

const call = (id, method, params) => ({ jsonrpc: "2.0", id, method, params });

/** Checks that answer is a success with this id and this result. Its member meta is for those who know it. */
function succeeds({ meta, ...answer }, id, result) {
  equal(answer, { jsonrpc: "2.0", id, result });
}

/** Checks that answer is an error with this id, JSON-RPC code and name of our Code. */
function fails(answer, id, code, name) {
  equal(Object.keys(answer).sort(), ["error", "id", "jsonrpc"], "members of an error");
  equal([answer.id, answer.error.code, answer.error.data?.code], [id, code, name], JSON.stringify(answer));
  check(answer.error.message !== "", "an error has a message");
}

/** Runs a test over one connection, which is then closed in order, and kept as a golden conversation. */
const over = (test) => async (env) => {
  const c = await open(env, "?golden");
  await test(c);
  equal((await c.close()).code, 1000, "close code");
};

export const tests = {
  "a request by position and by name": over(async (c) => {
    succeeds(await c.ask(call(1, "math.add", [19, 23])), 1, 42);
    succeeds(await c.ask(call("two", "math.add", { a: 1, b: 2 })), "two", 3);
  }),

  "ids come back as they are": over(async (c) => {
    for (const id of [0, -1, 1.5, 9007199254740991, "", "ü \" \u2028", "7"]) {
      succeeds(await c.ask(call(id, "echo", [id])), id, [id]);
    }
  }),

  "a body is embedded as it is": over(async (c) => {
    const body = { "z": [1, 1e3, "ü\u2028 \u{1f6a2}"], "a": null, "": { deep: [[[]]] } };
    succeeds(await c.ask(call(1, "echo", body)), 1, body);
    succeeds(await c.ask(call(2, "echo", [])), 2, []);
  }),

  "an error has the code of JSON-RPC and ours": over(async (c) => {
    const answer = await c.ask(call(7, "shop.find", { id: 7 }));
    fails(answer, 7, -32005, "not_found");
    equal(answer.error.message, "there is no such item");
    equal(answer.error.data.reason, "NO_ITEM");
    equal(answer.error.data.details, [{ type: "example.com/Item", value: "aXRlbSA3" }]);
  }),

  "private text stays private": over(async (c) => {
    const answer = await c.ask(call(8, "secret", []));
    fails(answer, 8, -32002, "unknown");
    check(!JSON.stringify(answer).includes("hunter2"), "the text of an error has crossed");
  }),

  "wrong parameters": over(async (c) => {
    fails(await c.ask(call(1, "math.add", ["a"])), 1, -32602, "invalid_argument");
  }),

  "methods that are not there": over(async (c) => {
    fails(await c.ask(call(1, "nobody.here", [])), 1, -32601, "unavailable");
    fails(await c.ask(call(2, "rpc.unheard.of", {})), 2, -32601, "unimplemented");
    fails(await c.ask(call(3, "no..topic", [])), 3, -32601, "invalid_argument");
  }),

  "what is no JSON": over(async (c) => {
    for (const frame of ['{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
      '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"']) {
      fails(await c.ask(frame), null, -32700, "invalid_argument");
    }
    succeeds(await c.ask(call(3, "math.add", [1])), 3, 1);
  }),

  "what is no request": over(async (c) => {
    fails(await c.ask('{"jsonrpc": "2.0", "method": 1, "params": "bar"}'), null, -32600, "invalid_argument");
    fails(await c.ask("[]"), null, -32600, "invalid_argument");
    fails(await c.ask("7"), null, -32600, "invalid_argument");
    const one = await c.ask("[1]");
    check(Array.isArray(one) && one.length === 1, "a batch of one is answered by a batch of one");
    fails(one[0], null, -32600, "invalid_argument");
    const three = await c.ask("[1,2,3]");
    equal(three.length, 3);
    for (const answer of three) fails(answer, null, -32600, "invalid_argument");
  }),

  "a batch": over(async (c) => {
    const answers = await c.ask([
      call("1", "math.add", [1, 2, 4]),
      { jsonrpc: "2.0", method: "notify.hello", params: [7] },
      call("2", "math.add", [42, -23]),
      { foo: "boo" },
      call("5", "shop.find", { name: "myself" }),
    ]);
    check(Array.isArray(answers), "a batch is answered by a batch");
    equal(answers.length, 4);
    const by = (id) => answers.find((a) => a.id === id);
    succeeds(by("1"), "1", 7);
    succeeds(by("2"), "2", 19);
    fails(by(null), null, -32600, "invalid_argument");
    fails(by("5"), "5", -32005, "not_found");
  }),

  "a batch of notifications is not answered": over(async (c) => {
    c.send([
      { jsonrpc: "2.0", method: "notify.sum", params: [1, 2, 4] },
      { jsonrpc: "2.0", method: "notify.hello", params: [7] },
    ]);
    succeeds(await c.ask(call("after", "math.add", [1])), "after", 1);
  }),

  "a binary frame ends the connection": async (env) => {
    const c = await open(env);
    c.socket.send(new Uint8Array([123, 125]));
    equal((await within(5000, c.closed)).code, 1003);
  },

  "no subprotocol, ours, and one that nobody knows": async (env) => {
    const none = await open(env);
    equal(none.socket.protocol, "");
    await none.close();
    const ours = await open(env, "", ["other", "intermodal.v1.json"]);
    equal(ours.socket.protocol, "intermodal.v1.json");
    succeeds(await ours.ask(call(1, "math.add", [1, 1])), 1, 2);
    await ours.close();
    const error = await open(env, "", ["cloudevents.json"]).then((c) => c.close(), (e) => e);
    check(error instanceof Error, "a subprotocol that nobody knows was accepted");
  },
};
