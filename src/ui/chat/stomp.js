// A client of STOMP 1.2 over WebSocket, without dependencies: heart-beats, receipts, tokens that are renewed before
// they end, and a connection that comes back by itself.

// Both sides send at least a line end in this time. A connection that is silent for three times as long is dead.
const BEAT_MS = 10_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const ESCAPES = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", ":": "\\c" };
const SIGNS = { "\\": "\\", n: "\n", r: "\r", c: ":" };

export class Connection {
  isReady = false;
  token = null;
  #signIn;
  #ready;
  #lost;
  #socket = null;
  #rest = "";
  #heardAt = 0;
  #beat;
  #renewal;
  #wait = FIRST_WAIT_MS;
  #ids = 0;
  #handlers = new Map();

  /**
   * `signIn` resolves to `{accessToken, expiresIn}`; an error of it with the status 401 or 403 ends the connection.
   * `ready` is called at each connect, to subscribe; `lost` at each end, with the error if there is one.
   */
  constructor(signIn, ready, lost) {
    this.#signIn = signIn;
    this.#ready = ready;
    this.#lost = lost;
  }

  async open() {
    let signed;
    try {
      signed = await this.#signIn();
    } catch (error) {
      return this.#again(error);
    }
    this.token = signed.accessToken;
    this.#rest = "";
    this.#heardAt = Date.now();
    this.#handlers.clear();
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws/chat`, ["v12.stomp"]);
    socket.onopen = () => this.#connect();
    socket.onmessage = ({ data }) => this.#read(data);
    socket.onclose = () => this.#drop();
    this.#socket = socket;
    this.#beat = setInterval(() => this.#keepAlive(), BEAT_MS);
    this.#renewal = setTimeout(() => this.#renew(), signed.expiresIn * 800);
  }

  /** Sends JSON, if there is a connection. */
  send(destination, body) {
    if (this.isReady) this.#write("SEND", { destination, "content-type": "application/json" }, JSON.stringify(body));
  }

  /**
   * `handle` gets the body and the headers of each message. `position`: headers that name the last message that is
   * here; what came after it comes first. `done` gets the headers of the receipt, after which nothing can be missed.
   */
  subscribe(destination, handle, position = {}, done = () => {}) {
    const id = `s-${this.#ids++}`;
    this.#handlers.set(id, handle).set(`r-${id}`, done);
    this.#write("SUBSCRIBE", { id, destination, receipt: `r-${id}`, ...position });
  }

  #connect() {
    const headers = { "accept-version": "1.2", host: location.hostname, "heart-beat": `${BEAT_MS},${BEAT_MS}` };
    this.#write("CONNECT", { ...headers, Authorization: `Bearer ${this.token}` });
  }

  #keepAlive() {
    if (Date.now() - this.#heardAt > 3 * BEAT_MS) this.#drop();
    else if (this.isReady) this.#socket.send("\n");
  }

  /** Replaces the token. If that fails, the hub ends the connection with the token, and the next one has another. */
  async #renew() {
    const socket = this.#socket;
    const signed = await this.#signIn().catch(() => null);
    if (!signed || !this.isReady || socket !== this.#socket) return;
    this.token = signed.accessToken;
    this.send("/app/auth", { token: this.token });
    this.#renewal = setTimeout(() => this.#renew(), signed.expiresIn * 800);
  }

  #drop() {
    clearInterval(this.#beat);
    clearTimeout(this.#renewal);
    this.isReady = false;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#again();
  }

  #again(error) {
    this.#lost(error);
    if (error?.status === 401 || error?.status === 403) return;
    setTimeout(() => this.open(), this.#wait * (0.5 + Math.random()));
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
  }

  #write(command, headers, body = "") {
    // The headers of CONNECT have no escapes.
    const escape = (text) => (command === "CONNECT" ? text : text.replace(/[\\\n\r:]/g, (sign) => ESCAPES[sign]));
    const lines = Object.entries(headers).map(([name, value]) => `${name}:${escape(value)}\n`);
    this.#socket.send(`${command}\n${lines.join("")}\n${body}\0`);
  }

  /** Each frame ends with a NUL byte; JSON has none inside. */
  #read(text) {
    this.#heardAt = Date.now();
    const frames = (this.#rest + text).split("\0");
    this.#rest = frames.pop();
    frames.forEach((frame) => this.#take(frame.trimStart()));
  }

  #take(frame) {
    const end = frame.indexOf("\n\n");
    const [command, ...lines] = frame.slice(0, end).split("\n");
    const decode = (text) => text.replace(/\\(.)/g, (_, sign) => SIGNS[sign]);
    const headers = Object.fromEntries(lines.map((line) => line.split(/:(.*)/, 2).map(decode)));
    if (command === "CONNECTED") {
      this.isReady = true;
      this.#ready();
    } else if (command === "RECEIPT") {
      this.#wait = FIRST_WAIT_MS;
      this.#handlers.get(headers["receipt-id"])?.(headers);
    } else if (command === "MESSAGE") {
      this.#handlers.get(headers.subscription)?.(JSON.parse(frame.slice(end + 2)), headers);
    }
  }
}
