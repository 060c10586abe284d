// The JavaScript client against a server that is played by the test, frame by frame: what a real one seldom does.
import { connect, TransportError } from "./intermodal.mjs";
import { check, equal, until, within } from "./run.mjs";

/** A class in the place of WebSocket, whose sockets the test holds the other end of. */
function fake() {
  const sockets = [];
  class Socket extends EventTarget {
    constructor(url, protocol) {
      super();
      Object.assign(this, { url, protocol, readyState: 0, sent: [], closed: [] });
      sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close(...how) {
      this.closed.push(how);
      this.drop(how[0] ?? 1005);
    }
    // The server's side.
    accept() {
      this.readyState = 1;
      this.onopen({});
    }
    say(frame) {
      this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
    }
    /** Answers the last request of a method. */
    answer(method, result) {
      const { id } = this.sent.findLast((f) => f.method === method);
      this.say({ jsonrpc: "2.0", id, ...(result?.error ? result : { result }) });
    }
    drop(code = 1006, reason = "") {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.onclose({ code, reason });
      this.dispatchEvent(new Event("close"));
    }
    /** Waits for a request of a method. */
    async saw(method) {
      await until(() => this.sent.some((f) => f.method === method), method);
      return this.sent.findLast((f) => f.method === method);
    }
  }
  return { sockets, Socket };
}

const playing = (test, options) => async () => {
  const { sockets, Socket } = fake();
  const client = connect("http://host.example/ws", { WebSocket: Socket, minBackoff: 1, maxBackoff: 5, ...options });
  const states = [];
  client.addEventListener("state", (e) => states.push(e.detail));
  /** The socket of the next attempt. */
  let seen = 0;
  const next = async (accept = true) => {
    await until(() => sockets.length > seen, "the next attempt");
    if (accept) sockets[seen].accept();
    return sockets[seen++];
  };
  try {
    await test(client, next, states);
  } finally {
    await client.close();
  }
};

const failure = (promise) => within(5000, promise).then(
  (value) => Promise.reject(new Error(`did not fail: ${JSON.stringify(value)}`)), (e) => e);
const event = (sub, n, more) => ({ jsonrpc: "2.0", method: "rpc.event", params: { sub, cursor: `c-${n}`, id: `${n}`,
  data: n, ...more } });
const problem = (code, more) => ({ error: { code: -32000, message: code, data: { code, ...more } } });

export const tests = {
  "the URL and the subprotocol": playing(async (client, next) => {
    const socket = await next();
    equal([socket.url, socket.protocol], ["ws://host.example/ws", "intermodal.v1.json"]);
  }),

  "close codes that are final": async () => {
    const passing = [1000, 1001, 1006, 1008, 1013, 3499, 4000, 4401, 4499];
    for (const code of [...passing, 3500, 3999, 4500, 4999]) {
      const final = !passing.includes(code);
      await playing(async (client, next) => {
        const socket = await next();
        const subscribing = client.subscribe("a");
        await socket.saw("rpc.subscribe");
        socket.answer("rpc.subscribe", { sub: 1, cursor: "c-0", buffer: 64 });
        const subscription = await subscribing;
        socket.drop(code, "because");
        if (!final) return void (await next());
        equal(client.state, "closed", code);
        equal((await failure(subscription.closed)).message, `the server has closed: ${code} because`);
        equal((await failure(client.call("x"))).reason, "CLOSED");
      })();
    }
  },

  "the server says when to come back": playing(async (client, next, states) => {
    (await next()).drop(1001, "retry=40");
    const at = Date.now();
    await next();
    check(Date.now() - at >= 39, `came back after ${Date.now() - at} ms`);
    const { retry, ...rest } = states.find((s) => s.state === "waiting");
    equal(rest, { state: "waiting", code: 1001, reason: "retry=40" });
    check(retry >= 40 && retry <= 41, `waits ${retry} ms`); // and minBackoff, at random
  }),

  "delays grow, at random, up to their bound": playing(async (client, next, states) => {
    for (let n = 0; n < 30; n++) (await next(false)).drop();
    const delays = states.filter((s) => s.state === "waiting").map((s) => s.retry);
    delays.forEach((d, n) => check(d >= 0 && d <= Math.min(5, 2 ** n), `delay ${n} is ${d} ms`));
    check(new Set(delays).size > 10, "delays are not random");
  }),

  "a publish that was not confirmed is sent again, marked, with the same ID": playing(async (client, next) => {
    const publishing = client.publish("a", { n: 1 });
    const first = await next();
    const { params } = await first.saw("rpc.publish");
    check(!("again" in params), "the first is no repetition");
    first.drop();
    const second = await next();
    equal((await second.saw("rpc.publish")).params, { ...params, again: true });
    second.answer("rpc.publish", null);
    await publishing;
  }),

  "a publish whose frame was refused is not": async () => {
    for (const code of [1007, 1009]) {
      await playing(async (client, next) => {
        const publishing = failure(client.publish("a", 1));
        const socket = await next();
        await socket.saw("rpc.publish");
        socket.drop(code);
        equal((await publishing).reason, "OUTCOME_UNKNOWN");
      })();
    }
  },

  "a body is what it was when it was published": playing(async (client, next) => {
    const body = { n: 1 };
    const publishing = client.publish("a", body);
    body.n = 2;
    const socket = await next();
    equal((await socket.saw("rpc.publish")).params.data, { n: 1 });
    socket.answer("rpc.publish", null);
    await publishing;
    check((await failure(client.publish("a", 1n))) instanceof TypeError, "what is no JSON is refused");
  }),

  "calls that were sent fail, others wait": playing(async (client, next) => {
    const first = await next();
    const plain = failure(client.call("a"));
    const keyed = client.call("b", {}, { header: { "idempotency-key": "k" } });
    await first.saw("b");
    first.drop();
    equal((await plain).reason, "OUTCOME_UNKNOWN");
    const waits = client.call("c");
    const second = await next();
    await second.saw("c");
    check(!second.sent.some((f) => f.method === "a"), "the call was sent twice");
    second.answer("b", 1);
    second.answer("c", 2);
    equal([await keyed, await waits], [1, 2]);
  }),

  "resume: after what has come, each message once": playing(async (client, next) => {
    const subscribing = client.subscribe("a", { buffer: 4 });
    const first = await next();
    equal((await first.saw("rpc.subscribe")).params, { topic: "a", buffer: 4, credit: 4 });
    first.answer("rpc.subscribe", { sub: 7, cursor: "c-0", buffer: 4 });
    first.say([event(7, 1), event(7, 2), event(7, 3)]);
    const subscription = await subscribing;
    equal((await subscription.next()).value.body, 1);
    equal(subscription.cursor, "c-0");
    first.drop();
    const second = await next();
    equal((await second.saw("rpc.subscribe")).params, { topic: "a", buffer: 4, from: "c-3", credit: 2 });
    second.answer("rpc.subscribe", { sub: 1, cursor: "c-3", buffer: 4 });
    second.say(event(1, 4, { missed: 3 }));
    const got = [];
    for (let n = 0; n < 3; n++) got.push((await subscription.next()).value);
    equal(got.map((m) => [m.body, m.missed]), [[2, 0], [3, 0], [4, 3]]);
    equal(subscription.cursor, "c-3");
    equal(second.sent.filter((f) => f.method === "rpc.credit").map((f) => f.params), [{ sub: 1, n: 2 }]);
  }),

  "a place that is lost ends the subscription, visibly": async () => {
    for (const [cursor, answer, code] of [["c-1", problem("out_of_range"), "out_of_range"],
      ["", null, "unavailable"]]) {
      await playing(async (client, next) => {
        const ended = new Promise((resolve) => client.addEventListener("ended", (e) => {
          e.preventDefault();
          resolve(e.detail);
        }));
        const subscribing = client.subscribe("a", {}, () => {});
        const first = await next();
        await first.saw("rpc.subscribe");
        first.answer("rpc.subscribe", { sub: 1, cursor, buffer: 64 });
        await subscribing;
        first.drop();
        const second = await next();
        if (answer) {
          await second.saw("rpc.subscribe");
          second.answer("rpc.subscribe", answer);
        }
        const { topic, error } = await within(5000, ended);
        equal([topic, error.code], ["a", code]);
      })();
    }
  },

  "a group: what an old connection brought is not acknowledged on a new one": playing(async (client, next) => {
    const subscribing = client.subscribe("a", { group: "g" });
    const first = await next();
    await first.saw("rpc.subscribe");
    first.answer("rpc.subscribe", { sub: 1, buffer: 64 });
    const subscription = await subscribing;
    first.say(event(1, 1, { cursor: undefined, tag: 1 }));
    await subscription.next();
    first.drop();
    const second = await next();
    await second.saw("rpc.subscribe");
    second.answer("rpc.subscribe", { sub: 1, buffer: 64 });
    second.say([event(1, 1, { cursor: undefined, tag: 5, attempt: 2 }), event(1, 2, { cursor: undefined, tag: 6 })]);
    const again = (await subscription.next()).value;
    equal([again.attempt, second.sent.filter((f) => f.method === "rpc.ack")], [2, []]);
    const closing = subscription.return();
    await second.saw("rpc.unsubscribe");
    second.answer("rpc.unsubscribe", null);
    await closing;
    const acks = second.sent.filter((f) => f.method === "rpc.ack");
    equal(acks.map(({ params }) => [params.sub, params.tag, params.error.code]), [[1, 5, "canceled"], [1, 6, "canceled"]]);
  }),

  "a call that an old connection brought is not answered on a new one": playing(async (client, next) => {
    const first = await next();
    let finish, signal;
    const responding = client.respond("greet", (call, s) => {
      signal = s;
      return new Promise((resolve) => (finish = resolve));
    });
    await first.saw("rpc.respond");
    first.answer("rpc.respond", { sub: 1, buffer: 64 });
    await responding;
    first.say({ jsonrpc: "2.0", id: 1, method: "greet", params: [], meta: { sub: 1 } });
    await until(() => finish, "the call");
    first.drop();
    equal([signal.aborted, signal.reason.code], [true, "canceled"]);
    const second = await next();
    await second.saw("rpc.respond");
    second.answer("rpc.respond", { sub: 1, buffer: 64 });
    finish("late");
    second.say({ jsonrpc: "2.0", id: 2, method: "rpc.ping" });
    await until(() => second.sent.some((f) => f.id === 2), "the answer to the ping");
    check(!second.sent.some((f) => f.id === 1 && f.result !== undefined), "the call was answered");
  }),

  "a server that drains": playing(async (client, next) => {
    const first = await next();
    const subscribing = client.subscribe("a");
    await first.saw("rpc.subscribe");
    first.answer("rpc.subscribe", { sub: 1, cursor: "c-0", buffer: 64 });
    const subscription = await subscribing;
    const done = client.call("early");
    const crossing = client.publish("a", 1);
    first.say({ jsonrpc: "2.0", method: "rpc.drain", params: { retry: 1 } });
    const error = { code: "unavailable", reason: "CLOSED" };
    first.say({ jsonrpc: "2.0", method: "rpc.end", params: { sub: 1, error } });
    first.answer("rpc.publish", problem("unavailable", { reason: "NOT_SENT" }));
    const late = client.call("late");
    first.answer("early", 1);
    equal(await done, 1);
    check(!first.sent.some((f) => f.method === "late"), "a call was sent to a server that drains");
    first.drop(1001, "retry=1");
    const second = await next();
    equal((await second.saw("rpc.subscribe")).params.from, "c-0");
    second.answer("rpc.subscribe", { sub: 3, cursor: "c-0", buffer: 64 });
    check(!("again" in (await second.saw("rpc.publish")).params), "what was not sent is no repetition");
    second.answer("rpc.publish", null);
    second.answer("late", 2);
    equal([await crossing, await late], [undefined, 2]);
    second.say(event(3, 1));
    equal((await subscription.next()).value.body, 1);
  }),

  "a subscription that the server ends": playing(async (client, next) => {
    const socket = await next();
    const subscribing = [client.subscribe("a"), client.subscribe("b")];
    await until(() => socket.sent.length === 2, "both");
    for (const [i, { id }] of socket.sent.entries()) {
      socket.say({ jsonrpc: "2.0", id, result: { sub: i + 1, cursor: "c-0", buffer: 64 } });
    }
    const [a, b] = await Promise.all(subscribing);
    const end = (params) => ({ jsonrpc: "2.0", method: "rpc.end", params });
    socket.say([event(1, 1), end({ sub: 1 }), 
      end({ sub: 2, error: { code: "permission_denied", detail: "no longer" } })]);
    equal((await a.next()).value.body, 1);
    check((await a.next()).done, "an orderly end");
    await a.closed;
    const e = await failure(b.next());
    equal([e.code, e.message], ["permission_denied", "no longer"]);
  }),

  "silence": playing(async (client, next, states) => {
    const first = await next();
    await first.saw("rpc.ping");
    first.answer("rpc.ping", null);
    const second = await next(); // since the next question was not answered
    await second.saw("rpc.ping");
    equal(states.find((s) => s.state === "waiting").reason, "the server is silent");
    equal(first.closed.length, 1);
  }, { heartbeat: 50 }),

  "the server's ping, and methods that nobody has": playing(async (client, next) => {
    const socket = await next();
    socket.say({ jsonrpc: "2.0", id: 1, method: "rpc.ping" });
    socket.say({ jsonrpc: "2.0", id: "x", method: "rpc.open", params: { stream: 2 } });
    socket.say({ jsonrpc: "2.0", id: "y", method: "greet", params: [], meta: { sub: 9 } });
    equal(socket.sent[0], { jsonrpc: "2.0", id: 1, result: null });
    equal([socket.sent[1].id, socket.sent[1].error.code], ["x", -32601]);
    equal([socket.sent[2].id, socket.sent[2].error.code, socket.sent[2].error.data.reason], ["y", -32014, "NOT_SENT"]);
  }),

  "an error that a handler has from elsewhere is not about its call": playing(async (client, next) => {
    const socket = await next();
    const responding = client.respond("greet", () => client.call("other"));
    await socket.saw("rpc.respond");
    socket.answer("rpc.respond", { sub: 1, buffer: 64 });
    await responding;
    socket.say({ jsonrpc: "2.0", id: "y", method: "greet", params: [], meta: { sub: 1 } });
    await socket.saw("other");
    socket.answer("other", problem("unauthenticated", { detail: "your token" }));
    await until(() => socket.sent.some((f) => f.id === "y"), "the answer");
    equal(socket.sent.at(-1).error.data, { code: "internal", detail: "internal" });
  }),

  "what is asked for when it opens is sent once": playing(async (client, next) => {
    let publishing;
    client.addEventListener("state", (e) => {
      if (e.detail.state === "open") publishing = client.publish("a", 1);
    });
    const socket = await next();
    await socket.saw("rpc.publish");
    equal(socket.sent.length, 1);
    socket.answer("rpc.publish", null);
    await publishing;
  }),

  "a subscription that is refused for now is asked for again": playing(async (client, next) => {
    const subscribing = client.subscribe("a", { after: "c-5" });
    const first = await next();
    equal((await first.saw("rpc.subscribe")).params.from, "c-5");
    first.answer("rpc.subscribe", { sub: 1, cursor: "c-5", buffer: 64 });
    const subscription = await subscribing;
    first.drop();
    const second = await next();
    await second.saw("rpc.subscribe");
    second.answer("rpc.subscribe", problem("unavailable"));
    await until(() => second.sent.length === 2, "once more");
    second.answer("rpc.subscribe", { sub: 1, cursor: "c-5", buffer: 64 });
    second.say(event(1, 6));
    equal((await subscription.next()).value.body, 6);
  }),

  "arguments": async () => {
    let error;
    try {
      connect("no URL", { WebSocket: class {} });
    } catch (e) {
      error = e;
    }
    check(error instanceof TypeError, "a URL that is none");
    await playing(async (client, next) => {
      const socket = await next();
      const calls = [client.call("a", new Date(0)), client.call("a", new Float32Array([1]), { timeout: Infinity })];
      equal(socket.sent[0].params, ['"1970-01-01T00:00:00.000Z"']);
      equal([socket.sent[1].params, socket.sent[1].meta.timeout], [["AACAPw=="], 2 ** 31 - 1]);
      for (const { id } of [...socket.sent]) socket.say({ jsonrpc: "2.0", id, result: 1 });
      equal(await Promise.all(calls), [1, 1]);
    })();
  },

  "frames that make no sense": async () => {
    for (const frame of ["{", "null", '{"method":"rpc.event","params":{"sub":1,"body":"base64","data":"%"}}']) {
      await playing(async (client, next) => {
        const socket = await next();
        const subscribing = client.subscribe("a");
        await socket.saw("rpc.subscribe");
        socket.answer("rpc.subscribe", { sub: 1, cursor: "c-0", buffer: 64 });
        await subscribing;
        socket.say(frame);
        equal(socket.closed[0], [4400, "a frame makes no sense"]);
        await next();
      })();
    }
  },

  "credentials are renewed": playing(async (client, next) => {
    const socket = await next();
    socket.say({ jsonrpc: "2.0", method: "rpc.expires", params: { in: 30000 } });
    equal((await socket.saw("rpc.authenticate")).params, { header: { authorization: "Bearer 2" } });
    socket.answer("rpc.authenticate", { expires: 60000 });
  }, { authenticate: async () => ({ authorization: "Bearer 2" }) }),

  "a fresh URL for each attempt": async () => {
    const { sockets, Socket } = fake();
    let tokens = 0;
    const client = connect(async () => {
      if (++tokens === 2) throw new Error("no token now");
      return `wss://host.example/ws?token=${tokens}`;
    }, { WebSocket: Socket, minBackoff: 1, maxBackoff: 5 });
    await until(() => sockets.length === 1, "the first");
    sockets[0].drop();
    await until(() => sockets.length === 2, "the third, as the second failed");
    equal(sockets.map((s) => s.url), ["wss://host.example/ws?token=1", "wss://host.example/ws?token=3"]);
    await client.close();
  },

  "an error of another's JSON-RPC": playing(async (client, next) => {
    const socket = await next();
    for (const [error, code] of [[{ code: -32601, message: "m" }, "unimplemented"], [{ code: -32602, message: "m" },
      "invalid_argument"], [{ code: -32005, message: "m" }, "not_found"], [{ code: 7, message: "m" }, "unknown"]]) {
      const call = failure(client.call("a"));
      await until(() => socket.sent.length > 0, "the call");
      socket.answer("a", { error });
      const e = await call;
      check(e instanceof TransportError, String(e));
      equal([e.code, e.message], [code, "m"]);
      socket.sent.length = 0;
    }
  }),
};
