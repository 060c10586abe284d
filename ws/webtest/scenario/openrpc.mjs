// npm's @open-rpc/client-js: requests, notifications and its way to make a batch.
import { Client, RequestManager, WebSocketTransport } from "@open-rpc/client-js";
import { check, equal, until, within } from "./run.mjs";

const over = (test) => async (env) => {
  const manager = new RequestManager([new WebSocketTransport(env.url + "?golden")]);
  const client = new Client(manager);
  client.onError(() => {}); // each request tells its own
  try {
    await within(10000, test(client));
  } finally {
    client.close();
  }
};

export const tests = {
  "requests": over(async (client) => {
    equal(await client.request({ method: "math.add", params: [2, 2] }), 4);
    equal(await client.request({ method: "echo", params: { text: "ü" } }), { text: "ü" });
  }),

  "errors": over(async (client) => {
    const e = await client.request({ method: "shop.find", params: {} }).then(() => null, (e) => e);
    equal([e?.code, e?.message, e?.data?.code], [-32005, "there is no such item", "not_found"]);
  }),

  "a batch": over(async (client) => {
    client.startBatch();
    const sums = [client.request({ method: "math.add", params: [1, 2] }),
      client.request({ method: "math.add", params: { a: 3, b: 4 } })];
    client.stopBatch();
    equal(await Promise.all(sums), [3, 7]);
  }),

  "notifications, to us and from us": over(async (client) => {
    const got = [];
    client.onNotification((n) => got.push(n));
    const { sub } = await client.request({ method: "rpc.subscribe", params: { topic: "golden.open" } });
    await client.notify({ method: "golden.open", params: { n: 1 } });
    await until(() => got.length > 0, "the event");
    equal([got[0].method, got[0].params.sub, got[0].params.data], ["rpc.event", sub, { n: 1 }]);
    check((await client.request({ method: "rpc.unsubscribe", params: { sub } })) === null, "unsubscribed");
  }),
};
