// The chat page of ws/js/testdata, in two frames of one page.
import { equal, until } from "./run.mjs";

async function chat() {
  const frame = document.createElement("iframe");
  frame.src = "/chat.html";
  document.body.append(frame);
  const find = (selector) => frame.contentDocument?.querySelector(selector);
  await until(() => find("#state")?.textContent === "open", "an open connection");
  return {
    say(text) {
      find("#text").value = text;
      find("button").click();
    },
    saw: async (texts) => {
      const shown = () => [...frame.contentDocument.querySelectorAll("#messages li")].map((item) => item.textContent);
      await until(() => shown().length >= texts.length, `${texts}`);
      equal(shown(), texts);
    },
  };
}

export const tests = {
  "two people, one cut, one who comes late": async (env) => {
    const [ada, bob] = [await chat(), await chat()];
    ada.say("hello");
    await bob.saw(["hello"]);
    await env.ask("cut");
    bob.say("<b>hi</b>"); // waits for the connection
    for (const page of [ada, bob]) await page.saw(["hello", "<b>hi</b>"]);
    await (await chat()).saw(["hello", "<b>hi</b>"]);
  },
};
