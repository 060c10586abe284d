// Credentials that are good for two seconds, and for an hour if they were renewed.
import { connect } from "./intermodal.mjs";
import { check, equal, until } from "./run.mjs";

async function life(env, options) {
  const client = connect(env.url, { WebSocket: env.WebSocket, minBackoff: 10, ...options });
  const states = [];
  client.addEventListener("state", (e) => states.push(e.detail));
  await client.call("echo");
  return { client, states };
}

export const tests = {
  "renewed in time, or connected again": async (env) => {
    let asked = 0;
    const renews = await life(env, { authenticate: () => ({ authorization: `Bearer ${++asked}` }) });
    const lapses = await life(env, {});
    await until(() => lapses.states.some((s) => s.code === 4401), "the end of the one that does not renew");
    equal(await lapses.client.call("math.add", [1, 2]), 3); // on a new connection
    check(renews.states.every((s) => s.state === "open"), "the one that renews was cut off");
    equal([asked, await renews.client.call("math.add", [1, 2])], [1, 3]);
    await Promise.all([renews.client.close(), lapses.client.close()]);
  },
};
