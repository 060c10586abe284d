// npm's json-rpc-2.0 as a client of ours, and as a server whose methods we call.
import rpc from "json-rpc-2.0";
import { open } from "./raw.mjs";
import { check, equal, within } from "./run.mjs";

const { JSONRPCClient, JSONRPCServer, JSONRPCServerAndClient, JSONRPCErrorException } = rpc;

/** Runs a test with both halves over one connection. */
const over = (test) => async (env) => {
  const c = await open(env, "?golden");
  const send = (frame) => c.send(frame);
  const peer = new JSONRPCServerAndClient(new JSONRPCServer({ errorListener() {} }), new JSONRPCClient(send), {
    errorListener() {} });
  c.socket.onmessage = (e) => peer.receiveAndSend(JSON.parse(e.data));
  await test(peer, c);
  await c.close();
};

const failure = (promise) => promise.then((v) => Promise.reject(new Error(`did not fail: ${v}`)), (e) => e);

export const tests = {
  "requests": over(async (peer) => {
    equal(await peer.request("math.add", [19, 23]), 42);
    equal(await peer.request("math.add", { a: 1, b: 2 }), 3);
    equal(await peer.request("echo", { text: "ü" }), { text: "ü" });
    equal(await peer.request("text"), "plain words");
  }),

  "errors": over(async (peer) => {
    const e = await failure(peer.request("shop.find", { id: 7 }));
    check(e instanceof JSONRPCErrorException, "the class of the error");
    equal([e.code, e.message, e.data.code, e.data.reason], [-32005, "there is no such item", "not_found", "NO_ITEM"]);
    equal((await failure(peer.request("rpc.unheard.of", {}))).code, -32601);
  }),

  "a batch": over(async (peer) => {
    const answers = await within(5000, peer.requestAdvanced([
      { jsonrpc: "2.0", id: "a", method: "math.add", params: [1, 2] },
      { jsonrpc: "2.0", id: "b", method: "shop.find", params: {} },
      { jsonrpc: "2.0", id: "c", method: "math.add", params: [3, 4] },
    ]));
    const by = (id) => answers.find((a) => a.id === id);
    equal([by("a").result, by("b").error.code, by("c").result], [3, -32005, 7]);
  }),

  "a notification is an event": over(async (peer) => {
    const event = new Promise((resolve) => peer.addMethod("rpc.event", resolve));
    const { sub } = await peer.request("rpc.subscribe", { topic: "golden.news" });
    peer.notify("golden.news", { title: "hello" });
    const got = await within(5000, event);
    equal([got.sub, got.data], [sub, { title: "hello" }]);
    check(typeof got.cursor === "string", "an event has a cursor");
    equal(await peer.request("rpc.unsubscribe", { sub }), null);
  }),

  "we call its methods": over(async (peer) => {
    peer.addMethod("golden.upper", ([text]) => text.toUpperCase());
    const { sub } = await peer.request("rpc.respond", { topic: "golden.upper" });
    // The operation ask calls the topic that its body names; a string as a parameter is a list of one.
    equal(await peer.requestAdvanced({ jsonrpc: "2.0", id: "ask", method: "ask", params: ["\"golden.upper\""],
      meta: { body: "text" } }).then((answer) => answer.result), '"GOLDEN.UPPER"');
    equal(await peer.request("rpc.unsubscribe", { sub }), null);
  }),
};
