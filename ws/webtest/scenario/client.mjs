// The JavaScript client, in Node and in browsers.
import { connect, Message, TransportError } from "./intermodal.mjs";
import { check, deferred, equal, until, within } from "./run.mjs";

/** Runs a test with a way to make clients, which are closed after it. */
const using = (test) => async (env) => {
  const clients = [];
  const make = (options, url = env.url) => {
    clients.push(connect(url, { WebSocket: env.WebSocket, minBackoff: 20, maxBackoff: 200, ...options }));
    return clients.at(-1);
  };
  try {
    await test(make, env);
  } finally {
    await Promise.all(clients.map((c) => c.close()));
  }
};

/** The error of what must fail. */
const failure = (promise) => within(10000, promise).then(
  (value) => Promise.reject(new Error(`did not fail: ${JSON.stringify(value)}`)),
  (e) => (e instanceof TransportError ? e : Promise.reject(e)),
);

/** Resolves when the client has this state. */
const state = (client, name) => within(10000, new Promise((resolve) => {
  if (client.state === name) return resolve({ state: name });
  client.addEventListener("state", (e) => e.detail.state === name && resolve(e.detail));
}));

let topics = 0;
const fresh = () => `topic.${Date.now().toString(36)}.${++topics}`;
const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);

export const tests = {
  // Kept in ws/testdata: nothing in here depends on time.
  "a conversation": using(async (make, env) => {
    const client = make({}, env.url + "?golden");
    const got = [];
    const chat = await client.subscribe("golden.chat", {}, (m) => got.push(m));
    await client.publish("golden.chat", { text: "hello" }, { id: "m1" });
    await client.publish("golden.chat", "plain", { id: "m2", header: { "content-type": "text/plain" } });
    await client.publish("golden.chat", bytes.subarray(250), { id: "m3" });
    await client.publish("golden.chat", undefined, { id: "m4" });
    await until(() => got.length === 4, "four events");
    equal(got.map((m) => m.id), ["m1", "m2", "m3", "m4"]);
    equal(got.slice(0, 2).map((m) => m.body), [{ text: "hello" }, "plain"]);
    equal([...got[2].body], [250, 251, 252, 253, 254, 255]);
    check(got[3].body === undefined, "an empty body is undefined");
    equal(got[0].topic, "golden.chat");
    const { cursor } = got[1];
    await chat.close();
    const again = await client.subscribe("golden.chat", { after: cursor });
    equal((await again.next()).value.id, "m3");
    await again.close();
    equal(await client.call("math.add", [1, 2]), 3);
    equal((await failure(client.call("shop.find", { id: 7 }))).reason, "NO_ITEM");
    const responder = await client.respond("golden.greet", (call) => `hello from ${call.topic}`);
    equal(await client.call("ask", "golden.greet"), "hello from golden.greet");
    await responder.close();
    const group = await client.subscribe("golden.jobs", { group: "workers", buffer: 1 });
    await client.publish("golden.jobs", [1], { id: "j1" });
    const job = (await group.next()).value;
    equal([job.body, job.attempt], [[1], 1]);
    const rest = group.next(); // settles the first
    await group.close();
    check((await rest).done, "a closed subscription is done");
    await client.close();
  }),

  "bodies of all kinds": using(async (make) => {
    const client = make();
    for (const body of [{ a: [1, "ü\u2028"] }, [], {}, 7, "text", "", null, false, [[null]]]) {
      equal(await client.call("echo", body), body, "call");
    }
    check((await client.call("echo")) === undefined, "an empty body");
    equal([...(await client.call("bytes"))], [...bytes]);
    equal(await client.call("text"), "plain words");
    const text = await client.request("echo", "not {json", { header: { "content-type": "text/plain" } });
    equal([text.body, text.header["content-type"]], ["not {json", ["text/plain"]]);
    const back = await client.call("echo", bytes);
    check(back instanceof Uint8Array, "bytes come back as bytes");
    equal([...back], [...bytes]);
    check((await client.call("echo", new TextEncoder().encode("ascii"))) instanceof Uint8Array, "bytes stay bytes");
    const large = "x".repeat(300000);
    equal((await client.call("echo", { large })).large.length, large.length);
  }),

  "errors carry code, reason and details": using(async (make) => {
    const client = make();
    const e = await failure(client.call("shop.find", {}));
    equal([e.code, e.reason, e.message], ["not_found", "NO_ITEM", "there is no such item"]);
    equal(e.details[0].type, "example.com/Item");
    equal(new TextDecoder().decode(e.details[0].value), "item 7");
    equal((await failure(client.call("secret"))).code, "unknown");
    equal((await failure(client.call("math.add", "x"))).code, "invalid_argument");
    equal((await failure(client.publish("rpc.no"))).code, "invalid_argument");
    equal((await failure(client.subscribe("*"))).code, "invalid_argument");
    const nobody = await failure(client.call("nobody.here"));
    check(["unavailable", "unimplemented"].includes(nobody.code), nobody.code);
  }),

  "a call ends in time, and tells": using(async (make) => {
    const client = make();
    const ended = await client.subscribe("slow.ended");
    const late = await failure(client.call("slow", [], { timeout: 100 }));
    equal(late.code, "deadline_exceeded");
    equal((await within(5000, ended.next())).value.body, "ended");
    const stop = new AbortController();
    const call = failure(client.call("slow", [], { signal: stop.signal }));
    setTimeout(() => stop.abort("enough"), 50);
    const e = await call;
    equal([e.code, e.cause], ["canceled", "enough"]);
    equal((await within(5000, ended.next())).value.body, "ended");
    equal((await failure(client.call("slow", [], { signal: AbortSignal.abort() }))).reason, "NOT_SENT");
  }),

  "responding": using(async (make) => {
    const [worker, caller] = [make(), make()];
    const topic = fresh();
    const seen = [];
    const responder = await worker.respond(topic, async (call, signal) => {
      seen.push(call);
      switch (call.body.do) {
        case "echo":
          return new Message({ body: call.body, header: { etag: '"7"' } });
        case "bytes":
          return bytes;
        case "nothing":
          return;
        case "refuse":
          throw new TransportError("failed_precondition", "not now", {
            reason: "CLOSED_TODAY", retryAfter: 1500, details: [{ type: "x/y", value: bytes }] });
        case "fail":
          throw new Error("the password is hunter2");
        case "wait":
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          seen.push(signal.reason.code);
          throw signal.reason;
      }
    });
    const reply = await caller.request(topic, { do: "echo" }, { header: { "x-key": ["1", "2"] } });
    equal([reply.body, reply.header.etag], [{ do: "echo" }, ['"7"']]);
    equal([seen[0].topic, seen[0].header["x-key"]], [topic, ["1", "2"]]);
    equal([...(await caller.call(topic, { do: "bytes" }))], [...bytes]);
    check((await caller.call(topic, { do: "nothing" })) === undefined, "an empty reply");
    const refused = await failure(caller.call(topic, { do: "refuse" }));
    equal([refused.code, refused.reason, refused.message, refused.retryAfter],
      ["failed_precondition", "CLOSED_TODAY", "not now", 1500]);
    equal([...refused.details[0].value], [...bytes]);
    const failed = await failure(caller.call(topic, { do: "fail" }));
    equal(failed.code, "unknown");
    check(!failed.message.includes("hunter2"), "private text has crossed");
    const stop = new AbortController();
    const call = failure(caller.call(topic, { do: "wait" }, { signal: stop.signal }));
    const before = seen.length;
    await until(() => seen.length > before, "the call at the responder");
    stop.abort();
    equal((await call).code, "canceled");
    await until(() => seen.at(-1) === "canceled", "the signal at the responder");
    const many = await Promise.all(Array.from({ length: 100 }, (_, n) => caller.call(topic, { do: "echo", n })));
    equal(many.map((body) => body.n), Array.from({ length: 100 }, (_, n) => n));
    await responder.close();
    const gone = await failure(caller.call(topic, { do: "echo" }));
    check(["unavailable", "unimplemented"].includes(gone.code), gone.code);
  }),

  "iterating, leaving, resuming by cursor": using(async (make) => {
    const client = make();
    const topic = fresh();
    const all = await client.subscribe(topic);
    for (let n = 0; n < 200; n++) await client.publish(topic, n);
    const got = [];
    for await (const message of all) {
      got.push(message.body);
      if (message.body === 99) break; // gives 99 back
    }
    const rest = await client.subscribe(topic, { after: all.cursor, buffer: 5 });
    for await (const message of rest) {
      got.push(message.body);
      if (message.body === 199) break;
    }
    equal(got, [...Array(100).keys(), ...Array.from({ length: 101 }, (_, n) => 99 + n)]);
    const oldest = await client.subscribe(topic, { after: "oldest" });
    equal((await oldest.next()).value.body, 0);
    equal((await failure(client.subscribe(topic, { after: "bogus" }))).code, "out_of_range");
  }),

  "a handler that throws": using(async (make) => {
    const client = make();
    const topic = fresh();
    let ended;
    client.addEventListener("ended", (e) => {
      ended = [e.detail.topic, e.detail.error.message];
      e.preventDefault();
    });
    const fails = await client.subscribe(topic, {}, (m) => {
      if (m.body === 2) throw new TransportError("internal", "cannot");
    });
    for (const n of [1, 2, 3]) await client.publish(topic, n);
    equal((await failure(fails.closed)).message, "cannot");
    equal(ended, [topic, "cannot"]);
    const again = await client.subscribe(topic, { after: fails.cursor });
    equal((await again.next()).value.body, 2);
  }),

  "a group shares, and hands out again what was refused": using(async (make) => {
    const clients = [make(), make()];
    const topic = fresh();
    const got = [];
    for (const [i, client] of clients.entries()) {
      await client.subscribe(topic, { group: "g", buffer: 2 }, (m) => {
        got.push([i, m.body, m.attempt]);
        if (m.body === 3 && m.attempt === 1) throw new TransportError("aborted", "once more", { retryAfter: 10 });
      });
    }
    for (let n = 0; n < 10; n++) await clients[0].publish(topic, n);
    await until(() => got.length >= 11, "all of them, one twice");
    equal(got.map(([, n]) => n).sort((a, b) => a - b), [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9]);
    equal(got.filter(([, n]) => n === 3).map(([, , attempt]) => attempt), [1, 2]);
  }),

  "cut connections: each message once, in order": using(async (make, env) => {
    const [client, publisher] = [make(), make()];
    const topic = fresh();
    const got = [];
    const sub = await client.subscribe(topic, {}, (m) => got.push(m.body));
    for (let n = 0; n < 300; n++) {
      const published = publisher.publish(topic, n); // the one on its way is sent again
      if (n % 50 === 25) await env.ask("cut");
      await published;
      if (n % 50 === 40) {
        const down = [env.ask("cut"), env.ask(`publish?topic=${topic}`, JSON.stringify(`${n}`))];
        await Promise.all(down);
      }
    }
    await until(() => got.filter((v) => typeof v === "number").length >= 300, "all of them");
    equal(got.filter((v) => typeof v === "number"), Array.from({ length: 300 }, (_, n) => n));
    equal(got.filter((v) => typeof v === "string"), ["40", "90", "140", "190", "240", "290"]);
    check(sub.cursor !== "", "the cursor of what was settled");
  }),

  "cut connections: calls under way fail, those that wait do not": using(async (make, env) => {
    const client = make();
    await state(client, "open");
    const call = failure(client.call("slow"));
    await client.call("echo"); // the other is on its way
    const waiting = state(client, "waiting");
    await env.ask("cut");
    const e = await call;
    equal([e.code, e.reason], ["unavailable", "OUTCOME_UNKNOWN"]);
    equal((await waiting).code, 1006);
    equal(await client.call("math.add", [20, 22]), 42);
  }),

  "cut connections: responders and groups go on": using(async (make, env) => {
    const [worker, caller] = [make(), make()];
    const topic = fresh();
    const got = new Set();
    await worker.respond(topic, (call) => call.body + 1);
    await worker.subscribe(topic, { group: "g" }, (m) => got.add(m.body));
    for (let n = 0; n < 3; n++) {
      await caller.publish(topic, n);
      const cut = state(worker, "waiting");
      await env.ask("cut");
      await cut;
      let sum;
      await until(async () => {
        sum = await caller.call(topic, n).catch((e) => {
          check(["unavailable", "unimplemented"].includes(e.code), e.code); // the worker is not back yet
        });
        return sum !== undefined;
      }, "the worker");
      equal(sum, n + 1);
    }
    await until(() => got.size === 3, "all jobs");
  }),

  "a server that goes away": using(async (make, env) => {
    const client = make();
    const topic = fresh();
    const got = [];
    await client.subscribe(topic, {}, (m) => got.push(m.body));
    await client.publish(topic, 1);
    const waiting = state(client, "waiting");
    await env.ask("restart");
    const why = await waiting;
    equal(why.code, 1001);
    await client.publish(topic, 2);
    await until(() => got.length === 2, "both");
    equal(got, [1, 2]);
  }),

  "closing": using(async (make) => {
    const client = make();
    const states = [];
    client.addEventListener("state", (e) => states.push(e.detail.state));
    const topic = fresh();
    const sub = await client.subscribe(topic);
    const next = sub.next();
    const call = failure(client.call("slow"));
    await client.call("echo");
    await client.close();
    equal((await call).reason, "CLOSED");
    check((await next).done, "the subscription is done");
    await sub.closed;
    equal((await failure(client.publish(topic))).reason, "CLOSED");
    equal((await failure(client.subscribe(topic))).reason, "CLOSED");
    await client.close();
    equal(states.slice(-2), ["open", "closed"]);
  }),

  "nobody there": using(async (make) => {
    const client = make({ timeout: 300, maxPending: 2 }, "ws://127.0.0.1:1/ws");
    const both = [failure(client.publish("a")), failure(client.call("b"))];
    equal((await failure(client.call("c"))).code, "resource_exhausted");
    for (const e of await Promise.all(both)) equal([e.code, e.reason], ["deadline_exceeded", "NOT_SENT"]);
    equal((await failure(client.subscribe("d"))).code, "deadline_exceeded");
    await state(client, "waiting");
  }),
};
