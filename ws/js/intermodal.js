// The client of Intermodal's WebSocket server (Go package ws), for browsers and for Node: publish, subscribe with
// resume, call and respond over one connection that heals itself. One file, no dependencies, no build step.
//
//   import { connect } from "./intermodal.js";
//   const client = connect("/ws");
//   const feed = await client.subscribe("chat", {}, (message) => show(message.body));
//   await client.publish("chat", { text: "hello" });
//   const sum = await client.call("math.add", [1, 2], { timeout: 2000 });
//
// A body is a JSON value. A Uint8Array is sent as bytes, a string as plain text if the header has a content-type that
// is not JSON, and undefined is an empty body; all arrive as what they were. Times are in milliseconds.
//
// What is asked for while there is no connection waits for one, up to its timeout. When a connection breaks, publishes
// that were not confirmed are sent again with the same ID; calls that were under way fail with the reason
// OUTCOME_UNKNOWN, unless they have an idempotency-key in their header; subscriptions and responders go on, and each
// message of a topic with history is handed out once. A subscription that cannot go on from its place ends: with the
// code out_of_range if the server has lost its cursor, with unavailable if the topic has no history.
//
// @license MIT

/**
 * A header: keys in lower case, values are strings or arrays of them; received ones are arrays. Values of keys that end
 * in -bin are base64.
 * @typedef {Object<string, string | string[]>} Header
 */

/**
 * @typedef {object} ConnectOptions
 * @property {typeof WebSocket} [WebSocket] the class to use. Defaults to the global one. Node has it since version
 *   22; for older ones pass that of the package ws.
 * @property {number} [timeout] for what has no timeout of its own. Defaults to 30 s.
 * @property {number} [minBackoff] the bound of the first random delay before connecting again, doubled with each
 *   attempt. Defaults to 500 ms.
 * @property {number} [maxBackoff] the bound of all such delays. Defaults to 30 s.
 * @property {number} [heartbeat] after so long without a frame the server is asked whether it is there, and without an
 *   answer for as long again, the connection is given up. Defaults to 25 s.
 * @property {number} [maxPending] how many requests may wait for their answers; more are refused with
 *   resource_exhausted. Defaults to 1024.
 * @property {() => Header | Promise<Header>} [authenticate] is asked for new credentials shortly before the old ones
 *   expire, as {authorization: "Bearer …"}.
 */

/**
 * What a state event tells in its detail. retry is the delay before the next attempt, code and reason are those of the
 * close frame.
 * @typedef {object} State
 * @property {"connecting" | "open" | "waiting" | "closed"} state
 * @property {number} [code]
 * @property {string} [reason]
 * @property {number} [retry]
 */

/**
 * @typedef {object} SubscribeOptions
 * @property {string} [after] the cursor to resume after, or "oldest"; without it, what is published from now on.
 * @property {string} [group] share the messages with all who name the same group; each is acknowledged.
 * @property {number} [buffer] how many messages may be under way or waiting here. Defaults to 64.
 * @property {"disconnect" | "drop-oldest"} [overflow] what the server does when this client is too slow for it.
 * @property {string} [deadLetter] the topic for messages of the group that are refused
 * @property {number} [maxAttempts] of the group
 * @property {string[]} [require] qualities to insist on, such as "replay" or "ordered"
 * @property {number} [timeout] to become active
 */

const codes = ["ok", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists",
  "permission_denied", "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented",
  "internal", "unavailable", "data_loss", "unauthenticated"]; // the number of JSON-RPC is -32000 minus the index
const standard = { invalid_argument: -32602, unimplemented: -32601, internal: -32603 };

/** An error with a code, one of gRPC's 16 in snake_case. Throw one from a handler to tell the other side why. */
export class TransportError extends Error {
  /**
   * @param {string} code such as "not_found"
   * @param {string} [message] public: the other side sees it
   * @param {{reason?: string, details?: {type: string, value: Uint8Array}[], retryAfter?: number, header?: Header,
   *   cause?: unknown, remote?: boolean}} [more] reason is for programs, such as "NO_ITEM"; cause stays here
   */
  constructor(code, message = code.replaceAll("_", " "), more = {}) {
    super(message, { cause: more.cause });
    this.name = "TransportError";
    this.code = code;
    this.reason = more.reason ?? "";
    this.details = more.details ?? [];
    this.retryAfter = more.retryAfter ?? 0;
    this.header = more.header ?? {};
    /** Whether the other side sent it. A handler that throws one fails with "internal": it is not about its message. */
    this.remote = more.remote ?? false;
  }
}

/** A message as it was received, or a reply with a header. */
export class Message {
  /**
   * @param {{body?: unknown, header?: Header, id?: string, topic?: string, cursor?: string, attempt?: number,
   *   missed?: number}} members of a reply: body and header
   */
  constructor({ body, header = {}, id = "", topic = "", cursor = "", attempt = 1, missed = 0 }) {
    /** @type {any} */
    this.body = body;
    this.header = header;
    /** Its identity over retries and bridges. */
    this.id = id;
    this.topic = topic;
    /** The position after it, for SubscribeOptions.after; "" without history and in a group. */
    this.cursor = cursor;
    /** 1 for the first delivery; 0 if unknown. */
    this.attempt = attempt;
    /** How many messages were dropped right before it. */
    this.missed = missed;
  }
}

/**
 * Connects to a server and stays connected until closed. It returns at once: a state event tells how it goes.
 * @param {string | URL | (() => string | URL | Promise<string | URL>)} url ws:, wss:, http:, https:, or relative to the
 *   page. A function is asked before each attempt, so that the URL can have a fresh token in it.
 * @param {ConnectOptions} [options]
 */
export function connect(url, options) {
  return new Client(url, options);
}

/**
 * A client; see connect. It dispatches CustomEvents:
 * - state: the detail is a State.
 * - ended: a responder, or a subscription with a handler, has ended with an error. The detail is {topic, error}, which
 *   is logged to the console unless preventDefault is called.
 */
export class Client extends EventTarget {
  #url;
  #options;
  #socket; // the current one, open or not
  #ready = false; // it takes requests
  #closed = false; // for good
  #attempts = 0;
  #timer; // of the next attempt
  #heart; // of the heartbeat
  #ids = 0;
  #prefix = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
  #requests = new Map(); // what has no answer yet, by id, in order
  #feeds = new Set(); // subscriptions and responders: they outlive connections
  #bySub = new Map(); // the same by the server's numbers, which do not
  #serving = new Map(); // AbortControllers of the calls that are answered here, by id
  #online = () => this.#timer && this.#dial();

  constructor(url, options = {}) {
    super();
    this.#url = typeof url === "function" ? url : () => url;
    if (typeof url !== "function") resolve(url); // an error here is of no use later
    this.#options = { WebSocket: globalThis.WebSocket, timeout: 30000, minBackoff: 500, maxBackoff: 30000,
      heartbeat: 25000, maxPending: 1024, ...options };
    if (!this.#options.WebSocket) throw new TypeError("there is no global WebSocket: pass one in options.WebSocket");
    /** @type {State["state"]} */
    this.state = "connecting";
    globalThis.addEventListener?.("online", this.#online);
    this.#dial();
  }

  /**
   * Publishes an event. It resolves once the server's transport has taken it.
   * @param {string} topic
   * @param {unknown} [body]
   * @param {{id?: string, header?: Header, timeout?: number, signal?: AbortSignal}} [options] Whoever publishes
   *   the same event again should give it the same id.
   * @returns {Promise<void>}
   */
  async publish(topic, body, { id = `${this.#prefix}${++this.#ids}`, header, ...options } = {}) {
    const params = JSON.stringify({ topic, id, ...encode(body, header) });
    await this.#ask("rpc.publish", { params, keep: true, event: true, ...options });
  }

  /**
   * Calls an operation. It resolves with the body of the reply.
   * @param {string} topic
   * @param {unknown} [body]
   * @param {{header?: Header, timeout?: number, signal?: AbortSignal}} [options]
   * @returns {Promise<any>}
   */
  async call(topic, body, options) {
    return (await this.request(topic, body, options)).body;
  }

  /**
   * Calls an operation. It resolves with the reply, header and all.
   * @param {string} topic
   * @param {unknown} [body]
   * @param {{header?: Header, timeout?: number, signal?: AbortSignal}} [options]
   * @returns {Promise<Message>}
   */
  async request(topic, body, { header = {}, ...options } = {}) {
    const { data, ...meta } = encode(body, header);
    let params = JSON.stringify(data);
    if (params && (meta.body || !/^[[{]/.test(params))) { // JSON-RPC has only objects and arrays as parameters
      params = JSON.stringify([meta.body ? data : params]);
      meta.body ??= "text";
    }
    const frame = await this.#ask(topic, { params, meta, keep: "idempotency-key" in header, ...options });
    return new Message({ ...frame.meta, body: decode(frame.result, frame.meta) });
  }

  /**
   * Subscribes to a topic. It resolves once what is published from then on is seen. With a handler, messages are handed
   * to it one after the other. Without, iterate: for await (const message of subscription). Finishing the handler, or
   * the body of the loop, settles a message; leaving the loop gives it back and closes the subscription. A handler that
   * throws refuses the message if there is a group, and else ends the subscription, its cursor before the message.
   * @param {string} topic
   * @param {SubscribeOptions} [options]
   * @param {(message: Message) => unknown} [handler]
   * @returns {Promise<Subscription>}
   */
  async subscribe(topic, { timeout, ...options } = {}, handler) {
    const { after, group, ...rest } = options;
    const feed = new Feed("rpc.subscribe", { topic, group, ...rest });
    feed.position = after ?? "";
    await this.#activate(feed, timeout);
    const subscription = new Subscription(feed, handler);
    if (handler) this.#watch(topic, subscription.closed);
    return subscription;
  }

  /**
   * Answers calls, until closed. What the handler returns is the body of the reply, or all of it if it is a Message.
   * Its signal tells when the caller has given up. The text of an error that is no TransportError stays here, and the
   * caller sees the code "unknown".
   * @param {string} topic
   * @param {(call: Message, signal: AbortSignal) => unknown} handler
   * @param {{buffer?: number, timeout?: number}} [options] buffer is how many calls may be under way here.
   * @returns {Promise<Responder>}
   */
  async respond(topic, handler, { timeout, ...options } = {}) {
    const feed = new Feed("rpc.respond", { topic, ...options });
    feed.handler = handler;
    await this.#activate(feed, timeout);
    this.#watch(topic, feed.closed);
    return new Responder(feed);
  }

  /** Closes the connection for good. What is under way fails, subscriptions end. It resolves once the server knows. */
  async close() {
    const socket = this.#socket;
    if (this.#closed) return;
    const gone = socket && new Promise((resolve) => socket.addEventListener("close", resolve));
    this.#end();
    socket?.close(1000);
    await gone;
  }

  // The connection.

  async #dial() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#tell({ state: "connecting" });
    try {
      const url = resolve(await this.#url());
      if (this.#closed) return;
      const socket = new this.#options.WebSocket(url, "intermodal.v1.json");
      this.#socket = socket;
      socket.onopen = () => socket === this.#socket && this.#opened(socket);
      socket.onclose = (e) => this.#lost(socket, e.code, e.reason);
      socket.onerror = () => {}; // close follows, and says more
    } catch (e) {
      this.#lost(this.#socket, 1006, String(e?.message ?? e));
    }
  }

  #opened(socket) {
    const { heartbeat, maxBackoff } = this.#options;
    const since = Date.now();
    let heard = since;
    let asked; // whether it is there
    socket.onmessage = (e) => {
      heard = Date.now();
      asked = undefined;
      if (heard - since > maxBackoff) this.#attempts = 0; // not sooner: some servers accept, then close
      if (socket === this.#socket) this.#receive(e.data);
    };
    this.#heart = setInterval(() => { // browsers do not show the server's pings
      const now = Date.now();
      if (asked && now - asked >= heartbeat) {
        this.#lost(socket, 1006, "the server is silent");
        socket.close();
      } else if (!asked && now - heard >= heartbeat) {
        asked = now;
        this.#send({ id: `ping${++this.#ids}`, method: "rpc.ping" });
      }
    }, heartbeat / 2);
    this.#ready = true;
    for (const feed of this.#feeds) this.#start(feed);
    for (const request of this.#requests.values()) request.send?.();
    this.#tell({ state: "open" });
  }

  #lost(socket, code, reason) {
    if (socket !== this.#socket || this.#closed) return;
    this.#leave(new TransportError("canceled", "the connection is lost"));
    const error = new TransportError("unavailable", `the connection is lost: ${code} ${reason}`.trim(), {
      reason: "OUTCOME_UNKNOWN" });
    const refused = code === 1007 || code === 1009; // because of a frame: again would be in vain
    for (const request of [...this.#requests.values()]) {
      if (request.sent && (!request.keep || (refused && request.event))) request.reject(error);
    }
    if ((code >= 3500 && code < 4000) || (code >= 4500 && code < 5000)) return this.#end({ code, reason });
    const asked = /^retry=(\d{1,8})$/.exec(reason);
    const retry = Number(asked?.[1] ?? 0) + this.#backoff(this.#attempts++);
    this.#timer = setTimeout(() => this.#dial(), retry);
    this.#tell({ state: "waiting", code, reason, retry });
  }

  #backoff(attempts) {
    return Math.random() * Math.min(this.#options.maxBackoff, this.#options.minBackoff * 2 ** attempts);
  }

  /** Forgets what belongs to a connection. */
  #leave(why) {
    this.#socket = undefined;
    this.#ready = false;
    clearInterval(this.#heart);
    for (const feed of this.#feeds) feed.sub = undefined;
    this.#bySub.clear();
    for (const controller of this.#serving.values()) controller.abort(why);
    this.#serving.clear();
  }

  #end(by) {
    this.#closed = true;
    clearTimeout(this.#timer);
    globalThis.removeEventListener?.("online", this.#online);
    const error = closed(by && `the server has closed: ${by.code} ${by.reason}`.trim());
    this.#leave(error);
    for (const request of [...this.#requests.values()]) request.reject(error);
    for (const feed of this.#feeds) feed.end(by && error);
    this.#feeds.clear();
    this.#tell({ state: "closed", ...by });
  }

  #tell(detail) {
    this.state = detail.state;
    this.dispatchEvent(new CustomEvent("state", { detail }));
  }

  async #watch(topic, end) {
    try {
      await end;
    } catch (error) {
      const event = new CustomEvent("ended", { detail: { topic, error }, cancelable: true });
      if (this.dispatchEvent(event)) console.error(`intermodal: ${topic} has ended:`, error);
    }
  }

  // What comes in. Each frame is dealt with at once, so that no event overtakes the answer that names its subscription.

  #receive(data) {
    try {
      for (const frame of [JSON.parse(data)].flat()) {
        if (frame.method === undefined) this.#answered(frame);
        else if (frame.id === undefined) this.#notified(frame.method, frame.params ?? {});
        else this.#serve(frame);
      }
    } catch {
      this.#socket?.close(4400, "a frame makes no sense");
    }
  }

  #answered(frame) {
    const request = this.#requests.get(frame.id);
    if (!frame.error) return request?.resolve(frame);
    const error = fromProblem(frame.error.data, frame.error);
    if (error.reason === "NOT_SENT" && !this.#ready && request?.send) request.sent = false; // with the next connection
    else request?.reject(error);
  }

  #notified(method, params) {
    const feed = this.#bySub.get(params.sub);
    switch (method) {
      case "rpc.event":
        feed?.push(params, this.#socket);
        break;
      case "rpc.end":
        this.#bySub.delete(params.sub);
        if (!feed || (params.error?.reason === "CLOSED" && !this.#ready)) break; // with the next connection
        this.#feeds.delete(feed);
        feed.end(params.error && fromProblem(params.error));
        break;
      case "rpc.cancel":
        this.#serving.get(params.id)?.abort(new TransportError("canceled", "the caller has given up"));
        break;
      case "rpc.drain":
        this.#ready = false; // it closes once it has answered
        break;
      case "rpc.expires":
        this.#renew();
    }
  }

  async #renew() {
    try {
      const header = await this.#options.authenticate?.();
      if (header) await this.#ask("rpc.authenticate", { params: JSON.stringify({ header }) });
    } catch {
      // The server closes, and the next handshake may do better.
    }
  }

  /** Answers a request of the server. @param {any} frame */
  async #serve({ id, method, params, meta = {} }) {
    const { handler } = this.#bySub.get(meta.sub) ?? {};
    if (method === "rpc.ping") return this.#send({ id, result: null });
    if (method.startsWith("rpc.")) return this.#send({ id, error: toError(new TransportError("unimplemented")) });
    if (!handler) return this.#send({ id, error: toError(closed("the responder is closed", "NOT_SENT")) });
    const controller = new AbortController();
    const late = () => controller.abort(new TransportError("deadline_exceeded"));
    const timer = meta.timeout > 0 && setTimeout(late, meta.timeout);
    this.#serving.set(id, controller);
    let answer;
    try {
      const call = new Message({ ...meta, topic: method, body: decode(meta.body ? params?.[0] : params, meta) });
      const result = await handler(call, controller.signal);
      const { data, ...rest } = result instanceof Message ? encode(result.body, result.header) : encode(result);
      if (data === undefined) rest.body = "none";
      const told = Object.keys(rest).length > 0 && { meta: rest };
      answer = JSON.stringify({ jsonrpc: "2.0", id, result: data ?? null, ...told });
    } catch (e) {
      answer = { id, error: toError(e) };
    }
    clearTimeout(timer);
    if (this.#serving.get(id) !== controller) return; // the connection that asked is gone
    this.#serving.delete(id);
    this.#send(answer);
  }

  // What goes out.

  #send(frame) {
    if (this.#socket?.readyState !== 1) return;
    this.#socket.send(typeof frame === "string" ? frame : JSON.stringify({ jsonrpc: "2.0", ...frame }));
  }

  /**
   * Sends a request, now or with the next connection, and resolves with the frame that answers it. params is text: what
   * was asked for as it was then. A call has meta. If the connection breaks before the answer, what has keep is sent
   * again.
   * @param {string} method
   * @param {any} options
   * @returns {Promise<any>}
   */
  async #ask(method, { params, meta, keep, event, timeout = this.#options.timeout, signal }) {
    if (this.#closed) throw closed();
    if (signal?.aborted) throw new TransportError("canceled", undefined, { reason: "NOT_SENT", cause: signal.reason });
    if (this.#requests.size >= this.#options.maxPending) {
      throw new TransportError("resource_exhausted", "too many requests are waiting", { reason: "NOT_SENT" });
    }
    const id = ++this.#ids;
    timeout = Math.min(Math.ceil(timeout), 2 ** 31 - 1); // more than that, setTimeout takes for nothing
    const deadline = Date.now() + timeout;
    let timer, stop;
    const request = { keep, event, sent: false };
    request.send = () => {
      let frame = `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)}`;
      if (params) frame += `,"params":${event && request.sent ? params.slice(0, -1) + ',"again":true}' : params}`;
      if (meta) frame += `,"meta":${JSON.stringify({ ...meta, timeout: Math.max(1, deadline - Date.now()) })}`;
      request.sent = true;
      this.#send(frame + "}");
    };
    try {
      return await new Promise((resolve, reject) => {
        request.resolve = resolve;
        request.reject = reject;
        const giveUp = (code, cause) => {
          if (request.sent && meta) this.#send({ method: "rpc.cancel", params: { id } });
          reject(new TransportError(code, undefined, { cause, reason: request.sent ? "OUTCOME_UNKNOWN" : "NOT_SENT" }));
        };
        timer = setTimeout(() => giveUp("deadline_exceeded"), timeout);
        stop = () => giveUp("canceled", signal.reason);
        signal?.addEventListener("abort", stop);
        this.#requests.set(id, request);
        if (this.#ready) request.send();
      });
    } finally {
      this.#requests.delete(id);
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }

  /** Sends a request that has a meaning on this connection only. */
  #order(method, params, resolve, reject) {
    const id = ++this.#ids;
    const end = (f) => (value) => {
      this.#requests.delete(id);
      f(value);
    };
    this.#requests.set(id, { sent: true, resolve: end(resolve), reject: end(reject) });
    this.#send({ id, method, params });
  }

  /** Makes a feed active, and keeps it so until it ends. */
  async #activate(feed, timeout = this.#options.timeout) {
    if (this.#closed) throw closed();
    this.#feeds.add(feed);
    feed.send = (frame, socket) => socket === this.#socket && this.#send(frame);
    feed.stop = () => new Promise((/** @type {(value?: any) => void} */ resolve) => {
      this.#feeds.delete(feed);
      if (!this.#bySub.delete(feed.sub)) return resolve();
      this.#order("rpc.unsubscribe", { sub: feed.sub }, resolve, resolve);
    });
    const timer = setTimeout(() => {
      feed.stop();
      feed.end(new TransportError("deadline_exceeded"));
    }, timeout);
    if (this.#ready) this.#start(feed);
    await feed.active.finally(() => clearTimeout(timer));
  }

  /** Asks for a feed on this connection. */
  #start(feed) {
    const socket = this.#socket;
    const begun = ({ result }) => {
      if (!this.#feeds.has(feed)) return this.#order("rpc.unsubscribe", { sub: result.sub }, () => {}, () => {});
      this.#bySub.set(result.sub, feed);
      feed.begin(result, socket);
    };
    const refused = (error) => {
      if (!this.#ready || !this.#feeds.has(feed)) return; // with the next connection
      if (feed.began && error.code === "unavailable") { // it was well before, and may be again
        const again = () => socket === this.#socket && this.#feeds.has(feed) && this.#start(feed);
        return void setTimeout(again, this.#backoff(feed.attempts++));
      }
      this.#feeds.delete(feed);
      feed.end(error);
    };
    const params = feed.params();
    if (params) return this.#order(feed.method, params, begun, refused);
    this.#feeds.delete(feed);
    feed.end(new TransportError("unavailable", "the connection was lost, and there is no history to go on from"));
  }
}

/** A subscription. It is an async iterator, for one consumer; see Client.subscribe. */
export class Subscription {
  #feed;

  /** @hideconstructor */
  constructor(feed, handler) {
    this.#feed = feed;
    /** Resolves when it is over, with a handler once that has had all; rejects with why. @type {Promise<void>} */
    this.closed = handler ? this.#serve(handler) : feed.closed;
  }

  /** The position up to which all is settled, to go on from another time; "" in a group, and without history. */
  get cursor() {
    return this.#feed.cursor;
  }

  /** Ends the subscription. What was not handed out goes to others of the group. Resolves once nothing more comes. */
  close() {
    return this.#feed.close();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  async next() {
    this.#feed.settle();
    const value = await this.#feed.take();
    return value ? { value, done: false } : { value: undefined, done: true };
  }

  async return() {
    this.#feed.settle(new TransportError("canceled"));
    await this.close();
    return { value: undefined, done: true };
  }

  async #serve(handler) {
    for (let message; (message = await this.#feed.take()); ) {
      try {
        await handler(message);
        this.#feed.settle();
      } catch (e) {
        this.#feed.settle(e);
        if (this.#feed.options.group) continue;
        this.close();
        throw e;
      }
    }
  }
}

/** What answers calls; see Client.respond. */
export class Responder {
  #feed;

  /** @hideconstructor */
  constructor(feed) {
    this.#feed = feed;
    /** Resolves when it is closed, rejects if the server has ended it. @type {Promise<void>} */
    this.closed = feed.closed;
  }

  /** Takes no more calls. It resolves once nothing more comes; calls that came are still answered. */
  close() {
    return this.#feed.close();
  }
}

/** What a subscription or a responder is to the client: it is asked for anew on each connection. */
class Feed {
  sub; // the server's number for it on this connection
  handler; // of calls
  send; // send and stop are the client's
  stop;
  cursor = ""; // after what is settled
  position = ""; // after what has come: all that has come will be handed out, so this is where to go on
  began = false;
  attempts = 0; // to begin again on this connection
  activated; // these four settle active and closed
  refused;
  ended;
  failed;
  #queue = []; // what is not handed out
  #out; // what is
  #owed = 0; // credit
  #over = false;
  #error;
  #wake;

  constructor(method, options) {
    this.method = method;
    this.options = options;
    this.buffer = options.buffer ?? 64;
    this.active = new Promise((...f) => ([this.activated, this.refused] = f));
    this.closed = new Promise((...f) => ([this.ended, this.failed] = f));
    this.closed.catch(() => {}); // whoever it concerns is told otherwise too
  }

  /** Of the request that starts it; undefined if what came meanwhile is lost. */
  params() {
    const { options, position: from } = this;
    if (this.method !== "rpc.subscribe" || options.group) return { ...options, ...(from && { from }) };
    if (this.began && !from) return undefined;
    return { ...options, ...(from && { from }), credit: Math.max(1, this.buffer - this.#queue.length) };
  }

  begin({ sub, cursor = "" }, socket) {
    this.sub = sub;
    this.socket = socket;
    this.#owed = this.attempts = 0;
    if (!this.began) this.cursor = this.position = cursor;
    this.began = true;
    this.activated();
  }

  push(params, socket) {
    const { sub, tag, data, ...more } = params;
    const message = new Message({ topic: this.options.topic, ...more, body: decode(data, params) });
    this.#queue.push({ message, sub, tag, socket });
    if (message.cursor) this.position = message.cursor;
    this.#wake?.();
  }

  /** Waits for the next message and hands it out; undefined at the end. */
  async take() {
    while (this.#queue.length === 0) {
      if (this.#error) throw this.#error;
      if (this.#over) return undefined;
      await new Promise((resolve) => (this.#wake = resolve));
    }
    this.#out = this.#queue.shift();
    if (!this.options.group && ++this.#owed >= this.buffer / 2 && this.sub) {
      this.send({ method: "rpc.credit", params: { sub: this.sub, n: this.#owed } }, this.socket);
      this.#owed = 0;
    }
    return this.#out.message;
  }

  /** Settles what is out. */
  settle(error) {
    if (!this.#out) return;
    if (this.options.group) this.#ack(this.#out, error);
    else if (!error) this.cursor = this.#out.message.cursor;
    this.#out = undefined;
  }

  #ack({ sub, tag, socket }, error) {
    this.send({ method: "rpc.ack", params: { sub, tag, error: error && toError(error).data } }, socket);
  }

  /** Nothing more will come. What came is still handed out. */
  end(error) {
    if (this.#over) return;
    this.#over = true;
    this.#error = error;
    if (this.began) error ? this.failed(error) : this.ended();
    else this.refused(error ?? closed());
    this.#wake?.();
  }

  async close() {
    const stopped = this.stop();
    for (const entry of this.#queue.splice(0)) {
      if (this.options.group) this.#ack(entry, new TransportError("canceled"));
    }
    this.end();
    await stopped;
  }
}

// URLs, bodies and errors, as they are on the wire.

const resolve = (url) => new URL(url, globalThis.location?.href).href.replace(/^http/, "ws");

const contentType = (header) => [header?.["content-type"]].flat()[0] ?? "";
const isJSON = (type) => type === "" || /^application\/([\w.-]+\+)?json *(;|$)/i.test(type);

/**
 * The members of a message that carry a body and its header.
 * @param {any} body
 * @param {Header} [header]
 * @returns {{header?: Header, body?: string, data?: any}}
 */
function encode(body, header = {}) {
  if (body instanceof ArrayBuffer) body = new Uint8Array(body);
  if (ArrayBuffer.isView(body)) {
    const type = contentType(header) || "application/octet-stream";
    const data = toBase64(new Uint8Array(body.buffer, body.byteOffset, body.byteLength));
    return { header: { ...header, "content-type": type }, body: "base64", data };
  }
  const members = Object.keys(header).length > 0 ? { header } : {};
  if (body === undefined) return members;
  if (typeof body === "string" && !isJSON(contentType(header))) return { ...members, body: "text", data: body };
  return { ...members, data: body };
}

/**
 * The reverse, for the value that carries the body.
 * @param {any} data
 * @param {{header?: Header, body?: string}} [members]
 */
function decode(data, { body, header } = {}) {
  const type = contentType(header);
  switch (body) {
    case "none":
      return undefined;
    case "base64":
      return fromBase64(data);
    case "text":
      if (/^application\/octet-stream/i.test(type)) return new TextEncoder().encode(data);
      try {
        return isJSON(type) ? JSON.parse(data) : data;
      } catch {
        return data; // without a content-type
      }
  }
  return data;
}

function toBase64(bytes) {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 8192) binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(binary);
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

const closed = (why = "the client is closed", reason = "CLOSED") => new TransportError("unavailable", why, { reason });

/**
 * The error in a problem document, or that of JSON-RPC alone.
 * @param {any} problem
 * @param {{code?: number, message?: string}} [error]
 */
function fromProblem(problem, { code, message } = {}) {
  const standardCode = Object.keys(standard).find((name) => standard[name] === code);
  const name = problem?.code ?? standardCode ?? codes[-32000 - code] ?? "unknown";
  const details = problem?.details?.map(({ type, value }) => ({ type, value: fromBase64(value) }));
  const { reason, header, retryAfter = 0 } = problem ?? {};
  const more = { reason, header, details, retryAfter: retryAfter * 1000, remote: true };
  return new TransportError(name, problem?.detail ?? message, more);
}

/** The error of JSON-RPC for what a handler has thrown. */
function toError(e) {
  if (!(e instanceof TransportError)) e = new TransportError("unknown"); // its text is private
  if (e.remote) e = new TransportError("internal");
  const { code, message, reason, details, retryAfter, header } = e;
  const data = { code, detail: message };
  if (reason) data.reason = reason;
  if (details.length > 0) data.details = details.map(({ type, value }) => ({ type, value: toBase64(value) }));
  if (retryAfter > 0) data.retryAfter = retryAfter / 1000;
  if (Object.keys(header).length > 0) data.header = header;
  return { code: standard[code] ?? -32000 - Math.max(codes.indexOf(code), 2), message, data };
}
